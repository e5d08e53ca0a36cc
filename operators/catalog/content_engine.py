"""Content Engine: from what segments need to content in every format, and when it goes out."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from openvibe import Listen, human_in_the_loop, llm_node, node, operator, workflow
from operators.catalog import funnels, keys, prompts

Mark = Annotated[int, Field(ge=1, le=10)]
#: Where each format is published.
CHANNELS = {
    "social_post": "linkedin",
    "email_snippet": "email",
    "blog_summary": "blog",
    "newsletter_section": "newsletter",
}
STAGES = ("awareness", "consideration", "decision", "purchase")
PENDING = "(pending)"

ask = prompts.of("content_engine")


class Variant(TypedDict):
    """One way to say a message."""

    variant: str
    headline: str
    body: str
    cta: str
    tone: str


class Evaluation(TypedDict):
    """How well a variant does, each mark from 1 to 10."""

    variant: str
    clarity: Mark
    resonance: Mark
    specificity: Mark
    cta: Mark
    note: str


Variants = Annotated[list[Variant], Field(min_length=3, max_length=5)]
Evaluations = Annotated[list[Evaluation], Field(min_length=1)]


class Post(TypedDict):
    """When what is published where; `content_key` is the format of the text."""

    channel: str
    scheduled_at: str
    content_key: str
    status: Literal["scheduled"]


@operator(
    id="content_engine",
    name="Content Engine",
    owner="Marketing Lead",
    description="Researches segments, writes and adapts content, and plans where it goes.",
)
class ContentEngine:
    segment_data: Annotated[
        list[dict[str, Any]], Field(title="Segments", description="Name, size, characteristics")
    ] = [{"name": "Consulting firms", "size": "50 to 500 people", "characteristics": "partners sell and deliver"}]
    segment_id: Annotated[str, Field(title="Segment", description="Whose market analysis is used")] = "all"
    company_name: Annotated[str, Field(title="Company", description="A company that stands for its industry")] = ""
    segment_analysis: Annotated[str, Field(title="Segment analysis")] = ""
    segment_report: str = ""
    topic: Annotated[str, Field(title="Topic")] = "How a consulting firm outgrows its spreadsheets"
    message_variants: list[Variant] = []
    evaluation: list[Evaluation] | str = []
    recommendation: dict[str, Any] = {}
    lead_id: Annotated[str, Field(title="Lead", description="Whom the content is for, if it is for one lead")] = ""
    audience: Annotated[str, Field(title="Audience", description="Who reads it, in a few sentences")] = ""
    research: str = ""
    draft: str = ""
    polished_content: str = ""
    source_content: Annotated[str, Field(title="Content")] = ""
    content_formats: Annotated[list[str], Field(title="Formats", description="Chosen by length if empty")] = []
    adapted_content: Annotated[dict[str, str], Field(title="Adapted content", description="Format: text")] = {}
    channels: Annotated[list[str], Field(title="Channels", description="Chosen by format if empty")] = []
    schedule: Annotated[list[Post], Field(title="Schedule")] = []
    review_schedule: str = ""
    distribution_report: str = ""
    funnel_metrics: Annotated[dict[str, Any], Field(title="Funnel", description="How many people in each stage")] = {}
    funnel_analysis: str = ""
    optimization_recommendations: str = ""

    @workflow(
        id="segment_research",
        trigger="cron:0 9 * * 1",
        trigger_id="weekly_research",
        listens=("company_intel.research_complete",),
        inputs=("segment_data", "company_name"),
        sample_input={"segment_data": [{"name": "Boutique strategy firms", "size": "50 to 120 people"}]},
        timeout=timedelta(minutes=5),
    )
    class SegmentResearch:
        """Find out what segments, or the industry of a company that was researched, care about."""

        @node
        def gather_data(self, state, ctx):
            intel = ctx.context.get("companies", keys.of(state["company_name"], "intel"))
            industry = {"name": f"Firms like {state['company_name']}", "characteristics": intel and intel["research"]}
            return {"segment_data": [segment(item) for item in ([industry] if intel else state["segment_data"])]}

        @llm_node(model="sonnet", temperature=0.7)
        def analyze_segments(self, state):
            return ask("m1_segment_research", "segment_analysis", state, "segment_data")

        @llm_node(model="haiku", temperature=0.7)
        def report(self, state):
            return ask("segment_report", "segment_report", state, "segment_analysis")

    @workflow(
        id="message_testing",
        trigger="cron:0 10 * * 1,4",
        listens=(Listen("market_intel.analysis_complete", where={"analysis_kind": "conversations"}),),
        inputs=("topic", "segment_data", "segment_id"),
        sample_input={"topic": "What a late time sheet costs a consulting firm"},
        timeout=timedelta(minutes=5),
    )
    class MessageTesting:
        """Write variants of a message, judge them, and recommend one to test on people."""

        @llm_node(model="sonnet", temperature=0.7, output_format="json")
        def generate_variants(self, state, ctx):
            output = {"message_variants": Variants}
            heard = ctx.context.get("market", keys.of(state["segment_id"], "analysis"))
            return ask(
                "m2_message_testing", output, state, "topic", "segment_data", heard_in_the_market=heard,
                fallback=lambda answer: {"message_variants": [only_variant(state["topic"], answer)]},
            )  # fmt: skip

        @llm_node(model="haiku", temperature=0.7, output_format="json")
        def evaluate(self, state):
            output, fallback = {"evaluation": Evaluations}, lambda answer: {"evaluation": answer}
            return ask("message_evaluation", output, state, "message_variants", fallback=fallback)

        @node
        def recommend(self, state):
            chosen = best(state["message_variants"], state["evaluation"])
            return {"recommendation": {"variant": chosen, "evaluation": str(state["evaluation"])[:500]}}

    @workflow(
        id="content_generation",
        trigger="cron:0 9 * * *",
        trigger_id="daily_content",
        listens=(Listen("revenue_ops.lead_qualified", takes={"lead_id": "lead_id", "audience": "buyer_profile"}),),
        emits=("content_generated",),
        inputs=("topic", "segment_analysis", "lead_id", "audience"),
        sample_input={"topic": "Three signs that a consulting firm has outgrown its spreadsheets"},
        timeout=timedelta(minutes=10),
    )
    class ContentGeneration:
        """Research, draft and polish an article, for everybody or for one lead."""

        @llm_node(model="sonnet", temperature=0.7)
        def research(self, state, ctx):
            told = ctx.context.get("leads", keys.of(state["lead_id"], "qualification"))
            fields = ("topic", "segment_analysis", "audience")
            return ask("m3_content_generation", "research", state, *fields, task="research", qualification=told)

        @llm_node(model="sonnet", temperature=0.7)
        def draft(self, state):
            return ask("m3_content_generation", "draft", state, "topic", "audience", "research", task="draft")

        @llm_node(model="haiku", temperature=0.7)
        def polish(self, state):
            return ask("content_polish", "polished_content", state, "draft")

    @workflow(
        id="repurposing",
        trigger="event:self:content_generated",
        trigger_id="content_ready",
        emits=("content_repurposed",),
        inputs=("source_content", "polished_content", "content_formats", "topic", "lead_id"),
        sample_input={"source_content": "Spreadsheets do not fail at once. They fail the month a partner is ill."},
        timeout=timedelta(minutes=5),
    )
    class Repurposing:
        """Adapt one piece of content to other formats, and keep what was made for a lead as its content plan."""

        @node
        def analyze_content(self, state):
            source = state["source_content"] or state["polished_content"]
            words = len(source.split())
            longer = ["blog_summary"] * (words > 200) + ["newsletter_section"] * (words > 500)
            formats = state["content_formats"] or ["social_post", "email_snippet", *longer]
            return {"source_content": source, "content_formats": formats}

        @llm_node(model="sonnet", temperature=0.7, output_format="json")
        def adapt_formats(self, state):
            formats = state["content_formats"]
            output = {"adapted_content": TypedDict("Adapted", dict.fromkeys(formats, str), total=False)}
            return ask(
                "m4_content_repurposing", output, state, "content_formats", "source_content",
                fallback=lambda answer: {"adapted_content": dict.fromkeys(formats, answer)},
            )  # fmt: skip

        @node
        def finalize(self, state, ctx):
            adapted = {name: state["adapted_content"].get(name) or PENDING for name in state["content_formats"]}
            ctx.context.put("content", keys.of(state["topic"], "formats"), adapted)
            if state["lead_id"]:
                plan = {"topic": state["topic"], "content": adapted}
                ctx.context.put("leads", keys.of(state["lead_id"], "content_plan"), plan)
            return {"adapted_content": adapted}

    @workflow(
        id="distribution",
        trigger="event:self:content_repurposed",
        trigger_id="repurposed_ready",
        inputs=("adapted_content", "channels"),
        sample_input={
            "adapted_content": {"social_post": "Is your firm still run from one file?", "email_snippet": "…"}
        },
        timeout=timedelta(minutes=3),
    )
    class Distribution:
        """Plan where and when content goes out, and have a person agree."""

        @node
        def select_channels(self, state):
            ready = [name for name, text in state["adapted_content"].items() if text != PENDING]
            found = [channel for name, channel in CHANNELS.items() if name in ready]
            return {"channels": state["channels"] or found or ["linkedin", "email"]}

        @node
        def schedule_posts(self, state, ctx):
            first = ctx.now() + timedelta(hours=8)
            times = [first + timedelta(hours=4 * position) for position in range(len(state["channels"]))]
            return {"schedule": [post(state, *item) for item in zip(state["channels"], times, strict=True)]}

        @human_in_the_loop(
            prompt="Publish on these channels at these times?",
            timeout=timedelta(hours=24),
            edits=("schedule", "adapted_content"),
            on_reject="report",
        )
        def review_schedule(self, state):
            return {"schedule": state["schedule"], "adapted_content": state["adapted_content"]}

        @llm_node(model="haiku", temperature=0.7)
        def report(self, state):
            kept = {"schedule": [] if state["review_schedule"] == "reject" else state["schedule"]}
            fields = ("review_schedule", "channels", "schedule")
            return ask("m5_distribution", "distribution_report", {**state, **kept}, *fields, update=kept)

    @workflow(
        id="journey_optimization",
        trigger="cron:0 8 * * 5",
        trigger_id="weekly_optimization",
        listens=(Listen("market_intel.analysis_complete", where={"analysis_kind": "funnel"}),),
        inputs=("funnel_metrics",),
        sample_input={"funnel_metrics": {"awareness": 4000, "consideration": 900, "decision": 160, "purchase": 40}},
        timeout=timedelta(minutes=5),
    )
    class JourneyOptimization:
        """Find where buyers leave and recommend what to change first."""

        @node
        def collect_metrics(self, state):
            counted = funnels.counts(state["funnel_metrics"].get("stages", state["funnel_metrics"]), STAGES)
            rates = dict(zip(STAGES[1:], funnels.rates(counted), strict=True))
            return {"funnel_metrics": {"stages": counted, "conversion_rates": rates, "period": "last_30_days"}}

        @llm_node(model="sonnet", temperature=0.7)
        def analyze_funnel(self, state):
            return ask("m6_journey_optimization", "funnel_analysis", state, "funnel_metrics")

        @llm_node(model="haiku", temperature=0.7)
        def recommend(self, state):
            return ask("journey_recommendations", "optimization_recommendations", state, "funnel_analysis")


def segment(item: dict[str, Any]) -> dict[str, Any]:
    """Return a segment in the one form that prompts know."""
    unknown = {"name": "Unnamed segment", "size": "unknown", "characteristics": "unknown"}
    return {name: item.get(name) or default for name, default in unknown.items()}


def only_variant(topic: str, text: str) -> Variant:
    """Return one variant that carries an answer which was no list of variants."""
    return Variant(variant="unsorted", headline=topic, body=text, cta="", tone="")


def best(variants: list[Variant], evaluation: list[Evaluation] | str) -> Variant:
    """Return the variant with the most points; the first where they are equal or could not be read."""
    judged = evaluation if isinstance(evaluation, list) else []
    marks = ("clarity", "resonance", "specificity", "cta")
    points: dict[str, int] = {item["variant"]: sum(item[mark] for mark in marks) for item in judged}  # type: ignore[literal-required]
    return max(variants, key=lambda item: points.get(item["variant"], 0))


def post(state: dict[str, Any], channel: str, moment: Any) -> Post:
    """Return the plan of one publication; a channel without a format of its own gets the first text."""
    formats = [name for name, goes_to in CHANNELS.items() if goes_to == channel and name in state["adapted_content"]]
    content_key = next(iter([*formats, *state["adapted_content"]]), "")
    return Post(channel=channel, scheduled_at=moment.isoformat(), content_key=content_key, status="scheduled")
