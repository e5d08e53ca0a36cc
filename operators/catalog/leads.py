"""What Revenue Operations knows of leads: their names, their stages, what the CRM holds, and what others are told."""

from __future__ import annotations

from typing import Any

from openvibe.contrib import hubspot, not_connected
from operators.catalog import keys

#: The least score of each stage, nearest to a decision first.
STAGES = {80: "decision_ready", 60: "product_aware", 40: "solution_aware", 0: "educational"}


def key(state: dict[str, Any]) -> str:
    """Return what a lead is known by in the shared context."""
    return str(state["contact_id"] or state["company_name"])


def contact(ctx: Any, contact_id: str) -> dict[str, Any] | None:
    """Return the properties that the CRM holds of a contact, or None where there is no CRM or no contact."""
    crm = hubspot.from_environment()
    if crm is None:
        not_connected(ctx, "HubSpot", hubspot.REMEDY)
    return crm.contact(contact_id)["properties"] if crm and contact_id else None


def intel(ctx: Any, company_name: str) -> Any:
    """Return what Company Intelligence knows of a company, or None."""
    return ctx.context.get("companies", keys.of(company_name, "intel"))


def content_plan(ctx: Any, state: dict[str, Any]) -> Any:
    """Return the content that the Content Engine made for a lead, or None."""
    return ctx.context.get("leads", keys.of(key(state), "content_plan"))


def updated(ctx: Any, contact_id: str, properties: dict[str, Any]) -> bool:
    """Write properties of a contact to the CRM, once; return whether there was a CRM and a contact to write to."""
    crm = hubspot.from_environment()
    if crm is None:
        not_connected(ctx, "HubSpot", hubspot.REMEDY)
    if crm is None or not contact_id:
        return False
    key = ctx.idempotency_key("update_crm")
    ctx.effect("update_crm", lambda: crm.update_contact(contact_id, properties, key=key))
    return True


def unscored(answer: str) -> dict[str, Any]:
    """Return zeros for a lead whose scores could not be read; it is educated then: nobody knows that it is unfit."""
    zeros = {"fit": 0, "intent": 0, "urgency": 0}
    return {"score": {**zeros, "reasoning": answer, "route": "education", "unparsable": True}}


def handover(state: dict[str, Any]) -> dict[str, Any]:
    """Return what others are told of a lead."""
    profile = state["enriched_data"] or state["assessment"] or f"{state['company_name']} {state['lead_data']}"
    known = {name: state[name] for name in ("contact_id", "company_name", "segment", "lead_data", "lead_score")}
    return {**known, "lead_id": key(state), "buyer_profile": profile, "deal_stage": "qualified"}


def stage(score: float) -> str:
    """Return how near to a decision a lead of this score is."""
    return next(stage for least, stage in STAGES.items() if score >= least)


def qualifications(ctx: Any) -> list[dict[str, Any]]:
    """Return how leads were qualified, from the shared context."""
    found = [key for key in ctx.context.keys("leads") if key.endswith("/qualification")]
    return [{"lead": key.partition("/")[0], **ctx.context.get("leads", key)} for key in found]
