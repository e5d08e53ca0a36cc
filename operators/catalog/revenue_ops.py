"""Revenue Operations: from a new lead to outreach that a person has approved, and deals that do not get lost."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from openvibe import Retry, conditional, durable, human_in_the_loop, llm_node, node, operator, workflow
from openvibe.contrib import hubspot, not_connected
from openvibe.errors import TransientServiceError
from operators.catalog import deals, keys, leads, prompts

Percent = Annotated[float, Field(ge=0, le=100)]
Channel = Literal["email", "linkedin", "phone"]
PATIENT = Retry(attempts=3, on=(TransientServiceError,))
#: What others are told of a lead, by where it is sent.
EVENTS = {"sales": "lead_qualified", "nurture": "lead_nurture"}

ask = prompts.of("revenue_ops")


class Score(TypedDict):
    """How a lead scores, and where the model would send it."""

    fit: Percent
    intent: Percent
    urgency: Percent
    reasoning: str
    route: Literal["sales", "nurture", "education", "disqualify"]


class Touch(TypedDict):
    """One message of an outreach sequence; `wait_days` counts from the touch before it."""

    touch: Annotated[int, Field(ge=1, le=20)]
    channel: Channel
    subject: str
    body: str
    wait_days: Annotated[int, Field(ge=0, le=60)]


Sequence = Annotated[list[Touch], Field(min_length=1, max_length=10)]


@operator(
    id="revenue_ops",
    name="Revenue Operations",
    owner="VP Sales",
    description="Turns leads into conversations and keeps deals moving.",
)
class RevenueOps:
    contact_id: Annotated[str, Field(title="Contact", description="The contact's id in the CRM", max_length=200)] = ""
    company_name: Annotated[str, Field(title="Company", max_length=200)] = ""
    lead_data: Annotated[dict[str, Any], Field(title="Lead", description="What the lead told and did")] = {}
    enriched_data: str = ""
    score: dict[str, Any] = {}
    lead_score: Annotated[Percent, Field(title="Lead score", description="From 0 to 100")] = 0
    route: str = ""
    crm_updated: bool = False
    buyer_profile: Annotated[
        str, Field(title="Buyer profile", description="Who the buyer is, in a few sentences", min_length=1)
    ]
    segment: Annotated[str, Field(title="Segment", max_length=200)] = "mid-market"
    research_notes: str = ""
    outreach_sequence: Annotated[list[Touch], Field(title="Outreach sequence")] = []
    personalized_sequence: Annotated[list[Touch], Field(title="Personalized sequence")] = []
    review_sequence: str = ""
    final_plan: dict[str, Any] = {}
    max_touches: Annotated[int, Field(title="Most touches", ge=1, le=100)] = 10
    touch_interval_days: Annotated[float, Field(title="Days between touches", gt=0, le=30)] = 3
    current_stage: str = ""
    assessment: str = ""
    touch_content: str = ""
    touch_channel: Channel = "email"
    touch_history: list[dict[str, Any]] = []
    touches_completed: int = 0
    escalation_reason: str = ""
    sales_review: str = ""
    signals: Annotated[list[str], Field(title="Signals", description="What buyers did, one line each")] = []
    recent_scores: Annotated[list[dict[str, Any]], Field(title="Recent scores")] = []
    analysis: str = ""
    brief: str = ""
    active_deals: Annotated[list[dict[str, Any]], Field(title="Deals", description="Used when no CRM is there")] = []
    risk_assessment: list[dict[str, Any]] = []
    actions: str = ""
    review_actions: str = ""

    @workflow(
        id="lead_qualification",
        trigger="webhook:hubspot_new_lead",
        trigger_id="new_lead",
        listens=("company_intel.research_complete",),
        inputs=("contact_id", "company_name", "segment", "lead_data"),
        sample_input={
            "contact_id": "contact-1042",
            "company_name": "Harbour & Pine Consulting",
            "segment": "consulting, 50 to 500 people",
            "lead_data": {"name": "Dana Reyes", "role": "Head of operations", "people": 180, "did": "asked for a demo"},
        },
        timeout=timedelta(minutes=5),
    )
    class LeadQualification:
        """Gather what is known of a lead, score it, decide where it goes, and tell the CRM and whoever comes next."""

        @llm_node(model="haiku", temperature=0.7)
        def enrich(self, state, ctx):
            crm = leads.contact(ctx, state["contact_id"])
            named = {"company_name": str(state["company_name"] or (crm or {}).get("company") or "")}
            about = {"crm_contact": crm, "company_research": leads.intel(ctx, named["company_name"]), "update": named}
            return ask("lead_enrichment", "enriched_data", {**state, **named}, "company_name", "lead_data", **about)

        @llm_node(model="sonnet", temperature=0.3, output_format="json")
        def score(self, state):
            return ask("s1_lead_qualification", {"score": Score}, state, "enriched_data", fallback=leads.unscored)

        @conditional(
            routes={
                "disqualify": lambda s: s["score"]["fit"] < 20 and not s["score"].get("unparsable"),
                "sales": lambda s: s["lead_score"] >= 80,
                "nurture": lambda s: s["lead_score"] >= 50,
                "education": lambda _: True,
            }
        )
        def route(self, state):
            score = state["score"]
            return {"lead_score": round(0.40 * score["fit"] + 0.35 * score["intent"] + 0.25 * score["urgency"], 6)}

        @node(retry=PATIENT)
        def update_crm(self, state, ctx):
            told = {"hs_lead_status": state["route"].upper(), "lead_score": state["lead_score"]}
            known = {name: state[name] for name in ("score", "lead_score", "route", "company_name", "segment")}
            ctx.context.put("leads", keys.of(leads.key(state), "qualification"), known)
            if state["route"] in EVENTS:
                ctx.emit(EVENTS[state["route"]], leads.handover(state))
            return {"crm_updated": leads.updated(ctx, state["contact_id"], told)}

    @workflow(
        id="engagement",
        trigger="event:self:lead_qualified",
        trigger_id="lead_qualified",
        inputs=("contact_id", "buyer_profile", "segment"),
        sample_input={
            "contact_id": "contact-1042",
            "buyer_profile": "Dana Reyes leads operations at a consulting firm of 180 people that has outgrown its "
            "spreadsheets and is comparing tools before the end of the quarter.",
            "segment": "consulting, 50 to 500 people",
        },
        timeout=timedelta(minutes=10),
    )
    class Engagement:
        """Research a buyer, write outreach, have a person review it, and hand it over."""

        @llm_node(model="sonnet", temperature=0.7)
        def research_buyer(self, state, ctx):
            about = {"task": "research notes", "content_made_for_the_buyer": leads.content_plan(ctx, state)}
            return ask("s3_engagement", "research_notes", state, "segment", "buyer_profile", **about)

        @llm_node(model="sonnet", temperature=0.7, output_format="json")
        def generate_sequence(self, state):
            return ask(
                "s3_engagement", {"outreach_sequence": Sequence}, state, "research_notes", task="outreach sequence",
                fallback=lambda answer: {"outreach_sequence": [single_touch(answer)]},
            )  # fmt: skip

        @llm_node(model="haiku", temperature=0.7, output_format="json")
        def personalize(self, state):
            return ask(
                "engagement_personalize", {"personalized_sequence": Sequence}, state, "research_notes",
                "outreach_sequence", fallback=lambda _: {"personalized_sequence": state["outreach_sequence"]},
            )  # fmt: skip

        @human_in_the_loop(
            prompt="Send this outreach to the buyer?",
            timeout=timedelta(hours=24),
            edits=("personalized_sequence",),
        )
        def review_sequence(self, state):
            return {"personalized_sequence": state["personalized_sequence"]}

        @node
        def format(self, state):
            plan = {"contact_id": state["contact_id"], "segment": state["segment"]}
            return {"final_plan": {**plan, "sequence": state["personalized_sequence"], "status": "ready"}}

    @workflow(
        id="nurture_sequence",
        trigger="event:self:lead_nurture",
        trigger_id="lead_nurture",
        inputs=(
            "contact_id",
            "company_name",
            "segment",
            "lead_data",
            "lead_score",
            "max_touches",
            "touch_interval_days",
        ),
        sample_input={
            "contact_id": "contact-1043",
            "company_name": "Linden Advisory",
            "lead_data": {"name": "Sam Okoro", "role": "Partner", "people": 60, "did": "read two guides"},
            "lead_score": 55,
        },
        timeout=timedelta(minutes=5),
    )
    @durable(max_days=42)
    class NurtureSequence:
        """Send a useful touch every few days until the lead is ready for sales, or the touches are used up."""

        @llm_node(model="haiku", temperature=0.7)
        def assess(self, state):
            staged = {"current_stage": leads.stage(state["lead_score"])}
            fields = ("current_stage", "lead_score", "lead_data")
            return ask("s5_nurture", "assessment", {**state, **staged}, *fields, task="assess", update=staged)

        @llm_node(model="sonnet", temperature=0.5, output_format="json")
        def generate_touch(self, state, ctx):
            output = {"touch_content": str, "touch_channel": Channel, "lead_score": Percent}
            return ask(
                "s5_nurture", output, state, "current_stage", "lead_score", "lead_data", "assessment", "touch_history",
                task=f"write touch {state['touches_completed'] + 1} of {state['max_touches']}",
                content_made_for_the_lead=leads.content_plan(ctx, state),
                fallback=lambda answer: {"touch_content": answer, "touch_channel": "email"},
            )  # fmt: skip

        @node
        def record_touch(self, state):
            number = state["touches_completed"] + 1
            touch = {"touch_number": number, "stage": state["current_stage"], "channel": state["touch_channel"]}
            history = [*state["touch_history"], {**touch, "preview": state["touch_content"][:100]}]
            return {"touch_history": history, "touches_completed": number}

        @conditional(
            routes={
                "sales_review": lambda s: s["route"] == "escalate",
                "complete": lambda s: s["route"] == "complete",
                "wait_and_loop": lambda s: s["route"] == "continue",
            }
        )
        def evaluate(self, state):
            touches, most = state["touches_completed"], state["max_touches"]
            # One touch beyond the last, so that a gate that is always answered with `continue` ends the loop too.
            if state["lead_score"] >= 80 and touches <= most:
                return {"route": "escalate", "escalation_reason": f"The score reached {state['lead_score']:g}."}
            return {"route": "complete" if touches >= most else "continue"}

        @human_in_the_loop(
            prompt="The lead replied or scored high: continue or hand off?",
            timeout=timedelta(hours=24),
            decisions=("handoff_to_sales", "continue", "archive"),
            on_timeout="continue",
            goto={"continue": "wait_and_loop", "archive": "complete"},
        )
        def sales_review(self, state):
            return {name: state[name] for name in ("lead_data", "touch_history", "escalation_reason")}

        @node
        def escalate(self, state, ctx):
            ctx.emit("lead_qualified", leads.handover(state))
            return {"route": "escalate"}

        @node
        def complete(self, state):
            return {"route": "complete"}

        @node(next="generate_touch")
        def wait_and_loop(self, state):
            rest = timedelta(days=state["touch_interval_days"])
            return {"route": "continue", "current_stage": leads.stage(state["lead_score"]), "wait_duration": rest}

    @workflow(
        id="buyer_intelligence",
        trigger="cron:0 7 * * *",
        trigger_id="daily_intel",
        inputs=("signals", "active_deals", "recent_scores"),
        sample_input={"signals": ["Harbour & Pine asked for a price", "Linden Advisory has been quiet for 9 days"]},
        timeout=timedelta(minutes=3),
    )
    class BuyerIntelligence:
        """Read what buyers did since yesterday and brief the head of sales."""

        @node
        def scan(self, state, ctx):
            scores = state["recent_scores"] or leads.qualifications(ctx)
            lines = [f"Deal: {deal}" for deal in state["active_deals"][:5]]
            return {"signals": state["signals"] or [*lines, *[f"Score: {score}" for score in scores[:5]]]}

        @llm_node(model="haiku", temperature=0.7)
        def analyze(self, state):
            return ask("s2_buyer_intelligence", "analysis", state, "signals")

        @llm_node(model="haiku", temperature=0.7)
        def brief(self, state):
            return ask("buyer_brief", "brief", state, "analysis")

    @workflow(
        id="deal_support",
        trigger="cron:0 7 * * 1-5",
        trigger_id="weekday_deals",
        inputs=("active_deals",),
        sample_input={
            "active_deals": [
                {"deal_id": "deal-7", "customer_name": "Harbour & Pine", "stage": "proposal", "idle_days": 16},
                {"deal_id": "deal-8", "customer_name": "Linden Advisory", "stage": "discovery", "idle_days": 2},
            ]
        },
        timeout=timedelta(minutes=3),
    )
    class DealSupport:
        """Find the deals that may be lost and propose what their owners should do today."""

        @node(retry=PATIENT)
        def pull_deals(self, state, ctx):
            crm = hubspot.from_environment()
            if crm is None:
                not_connected(ctx, "HubSpot", hubspot.REMEDY)
            found = [deals.flat(deal) for deal in crm.deals(limit=50)] if crm else state["active_deals"]
            return {"active_deals": [deals.identified(deal, number) for number, deal in enumerate(found, start=1)]}

        @llm_node(model="sonnet", temperature=0.7, output_format="json")
        def assess_risk(self, state, ctx):
            known = {**state, "active_deals": state["active_deals"][:20]}
            output = {"risk_assessment": deals.risks(known["active_deals"])}
            health = deals.health(ctx, known["active_deals"])
            return ask(
                "s4_deal_support", output, known, "active_deals", account_health=health,
                fallback=lambda answer: deals.unassessed(known["active_deals"], answer),
            )  # fmt: skip

        @llm_node(model="haiku", temperature=0.7)
        def generate_actions(self, state, ctx):
            for deal in deals.at_risk(state["active_deals"], state["risk_assessment"]):
                ctx.emit("deal_at_risk", deal)
            return ask("deal_actions", "actions", state, "active_deals", "risk_assessment")

        @human_in_the_loop(
            prompt="Publish these actions to the deal owners?",
            timeout=timedelta(hours=12),
            edits=("actions",),
            on_reject="end",
            on_timeout="approve",
        )
        def review_actions(self, state):
            return {"actions": state["actions"]}


def single_touch(text: str) -> Touch:
    """Return one email that carries an answer which was no sequence."""
    return Touch(touch=1, channel="email", subject="A thought for your team", body=text, wait_days=0)
