"""Customer Success: customers begin well, stay healthy, are heard, and grow."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from openvibe import Listen, Retry, human_in_the_loop, llm_node, node, operator, workflow
from openvibe.errors import TransientServiceError
from operators.catalog import keys, messages, prompts

PATIENT = Retry(attempts=3, on=(TransientServiceError,))
MILESTONES = ("Set up and first login", "First result shown to a colleague", "Second team at work", "Review and plan")
LEVELS = {"critical": "critical", "at-risk": "warning"}
#: A qualified lead is no customer yet; its onboarding is prepared.
PREPARATION = {"customer_id": "lead_id", "customer_name": "company_name", "deal_stage": "deal_stage"}
CHANNEL = "#cs-agents"

ask = prompts.of("customer_success")


class Health(TypedDict):
    """How well a customer is doing."""

    status: Literal["healthy", "at-risk", "critical"]
    score: Annotated[int, Field(ge=0, le=100)]
    factors: list[str]
    trend: Literal["rising", "steady", "falling", "unknown"]


@operator(
    id="customer_success",
    name="Customer Success",
    owner="CS Lead",
    description="Onboards customers, watches their health, hears them, and finds where they can grow.",
)
class CustomerSuccess:
    customer_id: Annotated[str, Field(title="Customer's id")] = ""
    customer_name: Annotated[str, Field(title="Customer")] = ""
    customer_email: Annotated[str, Field(title="Mail address", description="Where the welcome goes")] = ""
    deal_stage: Annotated[str, Field(title="Deal stage", description="Before it is won, a plan is only prepared")] = (
        "won"
    )
    onboarding_plan: Annotated[str, Field(title="Onboarding plan")] = ""
    milestones: Annotated[list[dict[str, Any]], Field(title="Milestones")] = []
    review_welcome: str = ""
    welcome_sent: bool = False
    accounts: Annotated[list[dict[str, Any]], Field(title="Accounts", description="Each with a customer_name")] = []
    actions: str = ""
    playbooks: str = ""
    health_signals: Annotated[dict[str, Any], Field(title="Signals", description="Usage, tickets, NPS")] = {}
    health_score: dict[str, Any] = {}
    risks: list[dict[str, Any]] = []
    usage_data: Annotated[dict[str, Any], Field(title="Usage")] = {}
    opportunities: str = ""
    proposals: str = ""
    feedback: Annotated[list[dict[str, Any]], Field(title="Feedback", description="Each with source and text")] = []
    themes: str = ""
    voice_report: str = ""
    deal_id: Annotated[str, Field(title="Deal")] = ""
    reason: Annotated[str, Field(title="Reason", description="Why the deal is at risk")] = ""
    situation: str = ""
    recommendation: str = ""
    alert_sent: bool = False

    @workflow(
        id="onboarding",
        trigger="webhook:hubspot_deal_won",
        trigger_id="deal_won",
        listens=(Listen("revenue_ops.lead_qualified", takes=PREPARATION),),
        inputs=("customer_id", "customer_name", "customer_email", "deal_stage"),
        sample_input={
            "customer_id": "company-77",
            "customer_name": "Harbour & Pine",
            "customer_email": "dana@example.com",
        },
        timeout=timedelta(minutes=5),
    )
    class Onboarding:
        """Plan a customer's first 30 days and, once a person agrees and the deal is won, welcome the customer."""

        @llm_node(model="sonnet", temperature=0.7)
        def create_plan(self, state, ctx):
            known = ctx.context.get("companies", keys.of(state["customer_name"], "intel"))
            return ask("c1_onboarding", "onboarding_plan", state, "customer_id", "customer_name", known=known)

        @node
        def setup_milestones(self, state):
            weeks = enumerate(MILESTONES, start=1)
            return {"milestones": [{"week": week, "title": title, "status": "pending"} for week, title in weeks]}

        @human_in_the_loop(
            prompt="Send this welcome and plan to the customer?",
            timeout=timedelta(hours=48),
            edits=("onboarding_plan", "milestones"),
            escalate_to="owner",
        )
        def review_welcome(self, state):
            return {name: state[name] for name in ("customer_name", "deal_stage", "onboarding_plan", "milestones")}

        @node(retry=PATIENT)
        def send_welcome(self, state, ctx):
            if state["deal_stage"] != "won":
                ctx.log("The deal is not won yet, so the plan is kept and no welcome is sent.")
                return {"welcome_sent": False}
            subject = f"Welcome, {state['customer_name']}: your first 30 days"
            return {"welcome_sent": messages.mailed(ctx, state["customer_email"], subject, state["onboarding_plan"])}

    @workflow(
        id="success_advisory",
        trigger="cron:0 10 * * 2",
        trigger_id="weekly_advisory",
        listens=(Listen("company_intel.research_complete", takes={"customer_name": "company_name"}),),
        inputs=("accounts", "customer_id", "customer_name"),
        sample_input={"accounts": [{"customer_name": "Harbour & Pine", "seats": 40, "active_seats": 22}]},
        timeout=timedelta(minutes=5),
    )
    class SuccessAdvisory:
        """Say what to do for each account now, and write playbooks for what comes up again."""

        @node
        def review_accounts(self, state, ctx):
            return {"accounts": [informed(ctx, item) for item in state["accounts"] or [placeholder(state)]]}

        @llm_node(model="sonnet", temperature=0.7)
        def identify_actions(self, state):
            return ask("c2_success_advisor", "actions", state, "accounts", task="actions")

        @llm_node(model="sonnet", temperature=0.7)
        def generate_playbooks(self, state):
            return ask("c2_success_advisor", "playbooks", state, "actions", task="playbooks")

    @workflow(
        id="health_monitoring",
        trigger="cron:0 2 * * *",
        trigger_id="daily_health",
        inputs=("customer_id", "customer_name", "health_signals"),
        sample_input={
            "customer_name": "Harbour & Pine",
            "health_signals": {"active_seats": 22, "seats": 40, "open_tickets": 3, "nps": 6},
        },
        timeout=timedelta(minutes=3),
    )
    class HealthMonitoring:
        """Score a customer's health, flag risks, and tell everybody when the level changes."""

        @node
        def pull_signals(self, state):
            nothing = {"source": "placeholder", "usage": None, "tickets": None, "nps": None}
            return {"health_signals": state["health_signals"] or nothing}

        @llm_node(model="haiku", temperature=0.7, output_format="json")
        def score_health(self, state):
            fields, output = ("customer_name", "health_signals"), {"health_score": Health}
            return ask("c3_health_intelligence", output, state, *fields, fallback=unscored)

        @node
        def flag_risks(self, state, ctx):
            key, level = keys.of(account(state), "health"), level_of(state["health_score"])
            known = {"customer_name": state["customer_name"], "level": level, "health": state["health_score"]}
            if ctx.context.get("accounts", key, {}).get("level", "none") != level:
                ctx.emit("health_changed", known)
            ctx.context.put("accounts", key, known)
            return {"risks": [] if level == "none" else [{"customer_name": state["customer_name"], "level": level}]}

    @workflow(
        id="expansion_scan",
        trigger="cron:0 9 * * 3",
        trigger_id="weekly_expansion",
        inputs=("customer_id", "customer_name", "usage_data"),
        sample_input={"customer_name": "Harbour & Pine", "usage_data": {"seats": 40, "active_seats": 40, "teams": 2}},
        timeout=timedelta(minutes=5),
    )
    class ExpansionScan:
        """Find customers who would gain from using more, and draft what to propose."""

        @node
        def analyze_usage(self, state):
            return {
                "usage_data": {"customer_name": account(state), **(state["usage_data"] or {"source": "placeholder"})}
            }

        @llm_node(model="sonnet", temperature=0.7)
        def identify_opportunities(self, state):
            return ask("c4_expansion", "opportunities", state, "usage_data", task="opportunities")

        @llm_node(model="sonnet", temperature=0.7)
        def draft_proposals(self, state):
            return ask("c4_expansion", "proposals", state, "customer_name", "opportunities", task="proposals")

    @workflow(
        id="customer_voice",
        trigger="cron:0 8 * * 5",
        trigger_id="weekly_voice",
        inputs=("customer_name", "feedback"),
        sample_input={"feedback": [{"source": "ticket", "text": "The export loses our project codes."}]},
        timeout=timedelta(minutes=5),
    )
    class CustomerVoice:
        """Read what customers said this week and report it to the leadership."""

        @node
        def collect_feedback(self, state):
            nothing = {"source": "placeholder", "kind": "NPS", "customer_name": state["customer_name"], "score": None}
            return {"feedback": state["feedback"] or [nothing]}

        @llm_node(model="sonnet", temperature=0.7)
        def analyze_themes(self, state):
            return ask("c5_customer_voice", "themes", state, "feedback")

        @llm_node(model="haiku", temperature=0.7)
        def report(self, state):
            return ask("voice_report", "voice_report", state, "themes")

    @workflow(
        id="urgent_review",
        trigger="event:revenue_ops:deal_at_risk",
        trigger_id="revenue_escalation",
        inputs=("customer_name", "deal_id", "reason"),
        sample_input={
            "customer_name": "Harbour & Pine",
            "deal_id": "deal-7",
            "reason": "stalled: no activity for 16 days",
        },
        timeout=timedelta(minutes=3),
    )
    class UrgentReview:
        """Size up a deal at risk, recommend what to do within hours, and alert the team."""

        @llm_node(model="sonnet", temperature=0.3)
        def assess_situation(self, state, ctx):
            health = ctx.context.get("accounts", keys.of(state["customer_name"], "health"))
            fields = ("customer_name", "deal_id", "reason")
            return ask("urgent_situation", "situation", state, *fields, account_health=health)

        @llm_node(model="sonnet", temperature=0.3)
        def recommend_action(self, state):
            return ask("urgent_action", "recommendation", state, "situation")

        @node(retry=PATIENT)
        def alert_team(self, state, ctx):
            text = f"*{state['customer_name']} is at risk:* {state['reason']}\n\n{state['recommendation']}"
            return {"alert_sent": messages.posted(ctx, CHANNEL, text)}


def account(state: dict[str, Any]) -> str:
    """Return what a customer is known by in the shared context."""
    return str(state["customer_name"] or state["customer_id"])


def placeholder(state: dict[str, Any]) -> dict[str, Any]:
    """Return the account of the one customer that was named, about which nothing else is known."""
    return {"customer_id": state["customer_id"], "customer_name": state["customer_name"], "source": "placeholder"}


def informed(ctx: Any, item: dict[str, Any]) -> dict[str, Any]:
    """Return an account with what other operators know of it."""
    name = str(item.get("customer_name", ""))
    known = {
        "research": ctx.context.get("companies", keys.of(name, "intel")),
        "health": ctx.context.get("accounts", keys.of(name, "health")),
    }
    return {**item, **{label: value for label, value in known.items() if value}}


def unscored(answer: str) -> dict[str, Any]:
    """Keep an answer that is no health score as its text."""
    return {"health_score": {"text": answer}}


def level_of(health: dict[str, Any]) -> str:
    """Return `critical`, `warning` or `none` by the status or, where there is none, by the words of the answer."""
    told = str(health.get("status") or health.get("text", "")).lower().replace("at risk", "at-risk")
    return next((level for word, level in LEVELS.items() if word in told), "none")
