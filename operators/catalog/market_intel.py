"""Market Intelligence: what the funnel, the deals and the conversations say, and answers to questions about revenue."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from openvibe import llm_node, node, operator, workflow
from operators.catalog import funnels, keys, prompts

STAGES = ("leads", "mqls", "sqls", "deals")
#: How much of a deal's value is expected, by its stage.
WEIGHTS = {"discovery": 0.1, "proposal": 0.3, "negotiation": 0.6, "closing": 0.8}
OTHER_STAGE = 0.1
STALE_DAYS = 30

ask = prompts.of("market_intel")


@operator(
    id="market_intel",
    name="Market Intelligence",
    owner="CEO / Strategy",
    description="Watches funnel, deals and conversations, and answers questions about revenue.",
)
class MarketIntel:
    funnel_metrics: Annotated[dict[str, Any], Field(title="Funnel", description="leads, mqls, sqls, deals")] = {}
    anomalies: str = ""
    funnel_brief: str = ""
    analysis_kind: str = ""
    deals: Annotated[
        list[dict[str, Any]], Field(title="Deals", description="customer_name, stage, days_in_stage, value")
    ] = []
    risk_model: str = ""
    forecast: str = ""
    forecast_report: str = ""
    segment_id: Annotated[str, Field(title="Segment", description="Whose conversations these are")] = "all"
    transcripts: Annotated[list[dict[str, Any]], Field(title="Transcripts", description="Each with a text")] = []
    patterns: str = ""
    conversation_summary: str = ""
    question: Annotated[str, Field(title="Question", min_length=1)]
    query_results: Annotated[dict[str, Any], Field(title="Data", description="What the answer may rest on")] = {}
    parsed_intent: str = ""
    reasoning: str = ""
    answer: str = ""

    @workflow(
        id="funnel_monitor",
        trigger="cron:0 6 * * *",
        trigger_id="daily_funnel",
        emits=("analysis_complete",),
        inputs=("funnel_metrics",),
        sample_input={"funnel_metrics": {"leads": 400, "mqls": 120, "sqls": 48, "deals": 12}},
        timeout=timedelta(minutes=3),
    )
    class FunnelMonitor:
        """Look at the funnel every morning and say what is out of order."""

        @node
        def pull_metrics(self, state):
            counted = funnels.counts(state["funnel_metrics"], STAGES)
            rates = zip(("lead_to_mql", "mql_to_sql", "sql_to_deal"), funnels.rates(counted), strict=True)
            return {"funnel_metrics": {**counted, **dict(rates)}, "analysis_kind": "funnel"}

        @llm_node(model="haiku", temperature=0.7)
        def detect_anomalies(self, state):
            return ask("r1_funnel_monitor", "anomalies", state, "funnel_metrics")

        @llm_node(model="haiku", temperature=0.7)
        def brief(self, state):
            return ask("funnel_brief", "funnel_brief", state, "anomalies", "funnel_metrics")

    @workflow(
        id="deal_risk_forecast",
        trigger="cron:0 7 * * 1-5",
        trigger_id="weekday_forecast",
        inputs=("deals",),
        sample_input={
            "deals": [
                {"customer_name": "Harbour & Pine", "stage": "negotiation", "days_in_stage": 34, "value": 48000},
                {"customer_name": "Linden Advisory", "stage": "discovery", "days_in_stage": 6, "value": 20000},
            ]
        },
        timeout=timedelta(minutes=5),
    )
    class DealRiskForecast:
        """Judge the risk of every deal and forecast revenue from it."""

        @node
        def pull_deals(self, state):
            return {"deals": [weighed(deal) for deal in state["deals"]]}

        @llm_node(model="sonnet", temperature=0.7)
        def model_risk(self, state):
            return ask("r2_deal_risk_forecast", "risk_model", state, "deals", task="risk")

        @llm_node(model="sonnet", temperature=0.7)
        def forecast(self, state):
            return ask("r2_deal_risk_forecast", "forecast", state, "deals", "risk_model", task="forecast")

        @llm_node(model="haiku", temperature=0.7)
        def report(self, state):
            return ask("forecast_report", "forecast_report", state, "forecast", "risk_model")

    @workflow(
        id="conversation_analysis",
        trigger="cron:0 8 * * 1",
        trigger_id="weekly_conversations",
        emits=("analysis_complete",),
        inputs=("transcripts", "segment_id"),
        sample_input={"transcripts": [{"text": "Buyer: we close the books by hand. Who else of our size uses this?"}]},
        timeout=timedelta(minutes=10),
    )
    class ConversationAnalysis:
        """Learn from a week of sales conversations, for sales and for marketing."""

        @node
        def pull_transcripts(self, state):
            items = [identified(item, number) for number, item in enumerate(state["transcripts"], start=1)]
            return {"transcripts": items, "analysis_kind": "conversations"}

        @llm_node(model="sonnet", temperature=0.7)
        def extract_patterns(self, state):
            return ask("r3_conversation_analysis", "patterns", state, "transcripts")

        @llm_node(model="haiku", temperature=0.7)
        def summarize(self, state, ctx):
            known = {"patterns": state["patterns"], "conversations": len(state["transcripts"])}
            ctx.context.put("market", keys.of(state["segment_id"], "analysis"), known)
            return ask("conversation_summary", "conversation_summary", known, *known)

    @workflow(
        id="nl_query",
        trigger="on_demand",
        trigger_id="query",
        inputs=("question", "query_results"),
        sample_input={"question": "How many deals did we win last quarter?", "query_results": {"deals_won": 9}},
        timeout=timedelta(minutes=3),
    )
    class NlQuery:
        """Answer a question about revenue from the data at hand, and say what is missing."""

        @llm_node(model="haiku", temperature=0.7)
        def parse_question(self, state):
            return ask("r4_nl_revenue_interface", "parsed_intent", state, "question")

        @node
        def query_data(self, state):
            return {"query_results": state["query_results"] or {"note": "No live data source is connected."}}

        @llm_node(model="sonnet", temperature=0.7)
        def reason(self, state):
            return ask("nl_reasoning", "reasoning", state, "question", "parsed_intent", "query_results")

        @llm_node(model="haiku", temperature=0.7)
        def respond(self, state):
            return ask("nl_answer", "answer", state, "question", "reasoning")


def weighed(deal: dict[str, Any]) -> dict[str, Any]:
    """Return a deal with what its stage makes of its value, and whether it has been there too long."""
    known = funnels.counts(deal, ("value", "days_in_stage"))
    weight = WEIGHTS.get(str(deal.get("stage", "")).lower(), OTHER_STAGE)
    return {
        **deal,
        "is_stale": known["days_in_stage"] > STALE_DAYS,
        "weighted_value": round(known["value"] * weight, 2),
    }


def identified(item: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a transcript that certainly has an id and a number of words."""
    return {"id": f"transcript-{number}", "word_count": len(str(item.get("text", "")).split()), **item}
