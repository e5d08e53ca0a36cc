"""Company Intelligence: what is known about a company, and whether it is worth a call."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from openvibe import llm_node, node, operator, workflow
from operators.catalog import keys, prompts

Quality = Literal["high", "medium", "low"]

ask = prompts.of("company_intel")


class Analysis(TypedDict):
    """How good a prospect a company is."""

    prospect_quality: Quality
    reasoning: str
    pain_points: list[str]
    approach_angle: str


@operator(
    id="company_intel",
    name="Company Intelligence",
    owner="Sales / Strategy",
    description="Researches a company and judges how good a prospect it is.",
)
class CompanyIntel:
    company_name: Annotated[str, Field(title="Company", min_length=1, max_length=200, examples=["Stripe"])]
    research: str = ""
    analysis: dict[str, Any] = {}
    prospect_quality: Quality = "medium"
    report: str = ""
    completed: bool = False

    @workflow(
        id="research",
        trigger="on_demand",
        trigger_id="query",
        capability="research",
        emits=("research_complete",),
        inputs=("company_name",),
        sample_input={"company_name": "Stripe"},
        timeout=timedelta(minutes=5),
    )
    class Research:
        """Research a company, analyse it, decide on its quality, and report."""

        @llm_node(model="haiku", temperature=0.7)
        def research(self, state):
            return ask("research", "research", state, "company_name")

        @llm_node(model="haiku", temperature=0.7, output_format="json")
        def analyze(self, state):
            return ask("analyze", {"analysis": Analysis}, state, "company_name", "research", fallback=unparsed)

        @node
        def decide(self, state):
            return {"prospect_quality": quality(state["analysis"])}

        @node
        def report(self, state, ctx):
            leave(state, ctx)
            return {"report": written(state), "completed": True}


def unparsed(answer: str) -> dict[str, Any]:
    """Keep an answer that is no analysis as its text."""
    return {"analysis": {"text": answer}}


def quality(analysis: dict[str, Any]) -> Quality:
    """Return the quality that an analysis names; where it fits no form, the word in its text, otherwise medium."""
    if "prospect_quality" in analysis:
        named: Quality = analysis["prospect_quality"]
        return named
    text = analysis.get("text", "").lower()
    return "high" if "high" in text else "low" if "low" in text else "medium"


def leave(state: dict[str, Any], ctx: Any) -> None:
    """Leave what is known of a company for other operators."""
    known = ("company_name", "prospect_quality", "research", "analysis")
    ctx.context.put("companies", keys.of(state["company_name"], "intel"), {name: state[name] for name in known})


def written(state: dict[str, Any]) -> str:
    """Return the report on a company as Markdown."""
    analysis = state["analysis"]
    lines = [
        f"## Company intelligence: {state['company_name']}",
        f"**Prospect quality: {state['prospect_quality']}**",
        "### Research",
        state["research"],
        "### Analysis",
        analysis.get("reasoning") or analysis.get("text", ""),
        *[f"- {pain}" for pain in analysis.get("pain_points", [])],
    ]
    return "\n\n".join(lines)
