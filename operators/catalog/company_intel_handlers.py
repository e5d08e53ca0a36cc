"""What the nodes of company_intel.yaml do that no YAML can say: a function for each, named as there.

The judgements are those of `company_intel`, so that both descriptions of the operator behave alike.
"""

from __future__ import annotations

from typing import Any

from operators.catalog import company_intel


def unparsed(answer: str) -> dict[str, Any]:
    """Keep an answer that is no analysis as its text."""
    return company_intel.unparsed(answer)


def decide(state: dict[str, Any]) -> dict[str, Any]:
    """Decide on the quality of a prospect."""
    return {"prospect_quality": company_intel.quality(state["analysis"])}


def report(state: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """Write the report, and leave what is known for other operators."""
    company_intel.leave(state, ctx)
    return {"report": company_intel.written(state), "completed": True}
