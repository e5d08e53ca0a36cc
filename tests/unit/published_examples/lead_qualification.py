"""Lead qualification, a complete definition, word for word."""
# ruff: noqa
# fmt: off

from openvibe import operator, workflow, node, llm_node, conditional

@operator(
    id="revenue_ops",
    name="Revenue Operations",
    description="Sales pipeline automation",
)
class RevenueOps:
    # State fields — auto-compiled to LangGraph TypedDict
    contact_id: str = ""
    source: str = ""
    company_data: str = ""
    fit_score: int = 0
    intent_score: int = 0
    urgency_score: int = 0
    composite_score: float = 0.0
    route: str = ""
    crm_updated: bool = False

    @workflow(id="lead_qualification", trigger="webhook:hubspot_new_lead")
    class LeadQualification:

        @llm_node(model="haiku")
        def enrich(self, state):
            return {
                "system": "You are a data enrichment specialist...",
                "user": f"Enrich this contact: {state['contact_id']}",
                "output_key": "company_data",
            }

        @llm_node(model="sonnet", output_format="json")
        def score(self, state):
            return {
                "system": "You are a lead scoring expert...",
                "user": f"Score this lead:\n{state['company_data']}",
                "output_keys": {
                    "fit_score": int,
                    "intent_score": int,
                    "urgency_score": int,
                },
            }

        @conditional(routes={
            "sales": lambda s: s["composite_score"] >= 80,
            "nurture": lambda s: 50 <= s["composite_score"] < 80,
            "educate": lambda s: s["composite_score"] < 50,
        })
        def route(self, state):
            score = (
                state["fit_score"] * 0.4
                + state["intent_score"] * 0.35
                + state["urgency_score"] * 0.25
            )
            return {"composite_score": score, "route": "pending"}

        @node
        def update_crm(self, state):
            # Pure logic — call HubSpot, update CRM
            return {"crm_updated": True}
