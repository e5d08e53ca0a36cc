"""What Revenue Operations knows of deals: one shape for all of them, and what may be said of their risks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from operators.catalog import keys


def flat(deal: dict[str, Any]) -> dict[str, Any]:
    """Return a deal of the CRM as one flat object."""
    return {"deal_id": deal["id"], "customer_name": deal["properties"].get("dealname"), **deal["properties"]}


def identified(deal: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a deal that certainly has an id and a name."""
    deal_id = str(deal.get("deal_id") or f"deal-{number}")
    return {**deal, "deal_id": deal_id, "customer_name": str(deal.get("customer_name") or deal_id)}


def risks(deals: list[dict[str, Any]]) -> Any:
    """Return the type of a risk assessment of these deals: their ids are the only ones that it may name."""
    ids: Any = Literal[tuple(deal["deal_id"] for deal in deals)] if deals else str
    levels: Any = Literal["high", "medium", "low"]
    risk: Any = create_model("Risk", deal_id=(ids, ...), level=(levels, ...), factors=(list[str], ...))
    return Annotated[list[risk], Field(max_length=len(deals))]


def health(ctx: Any, deals: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what Customer Success last said of the health of the deals' accounts, or None where it said nothing."""
    names = {deal["customer_name"] for deal in deals}
    found = {name: ctx.context.get("accounts", keys.of(name, "health")) for name in sorted(names)}
    return {name: told for name, told in found.items() if told} or None


def unassessed(deals: list[dict[str, Any]], answer: str) -> dict[str, Any]:
    """Return risks that are unknown, because the model said nothing usable; its words are the only factor."""
    return {
        "risk_assessment": [{"deal_id": deal["deal_id"], "level": "unknown", "factors": [answer]} for deal in deals]
    }


def at_risk(deals: list[dict[str, Any]], risks: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return what others are told of each deal at high risk."""
    reasons = {risk["deal_id"]: "; ".join(risk["factors"]) for risk in risks if risk["level"] == "high"}
    return [
        {"deal_id": deal["deal_id"], "customer_name": deal["customer_name"], "reason": reasons[deal["deal_id"]]}
        for deal in deals
        if deal["deal_id"] in reasons
    ]
