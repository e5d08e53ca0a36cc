"""What runs may cost: when a budget is used up, the question whether to raise it, and what an answer allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol

from openvibe.errors import InputError
from openvibe.outcomes import WaitRequest
from openvibe.registry import Registry
from openvibe.runs import Run
from openvibe.specs import Budget

#: What the question's form is called, and what a person may say to it.
FORM, RAISE, STOP = "budget", "raise", "stop"
#: Over what a budget counts: the run itself, or all runs of the operator that began that day or month (UTC).
Span = Literal["run", "day", "month"]
SPANS: tuple[Span, ...] = ("run", "day", "month")
#: What a run is allowed that a person refused more money.
NOTHING = Decimal(0)
#: Why a run fails then.
REFUSED = "A person has refused this run more money"
#: More than this nobody allows a run.
MOST = 1_000_000
_CENT = Decimal("0.01")
_SPENT: dict[Span, str] = {
    "run": "This run has cost ${spent:.2f}; its budget is ${limit:.2f}.",
    "day": "The operator's runs of today have cost ${spent:.2f}; its budget is ${limit:.2f} a day.",
    "month": "The operator's runs of this month have cost ${spent:.2f}; its budget is ${limit:.2f} a month.",
}


class Allowed(Protocol):
    """A run, as far as budgets go."""

    allowance_usd: Decimal | None


def question(budget: Budget | None, *, node: str, run: Allowed, spent: Callable[[Span], Decimal]) -> WaitRequest | None:
    """Return what is to be asked before `node`, if a budget is used up; amounts are US dollars.

    What a person has allowed the run in all is all that counts for it then.
    """
    if run.allowance_usd is not None:
        limits: dict[Span, Decimal] = {"run": run.allowance_usd}
    elif budget is not None:
        limits = {span: limit for span in SPANS if (limit := getattr(budget, span)) is not None}
    else:
        return None
    used_up = ((span, limit, cost) for span, limit in limits.items() if (cost := spent(span)) >= limit)
    found = next(used_up, None)
    return None if found is None else _asked(*found, node=node, own=spent("run"), step=_step(budget, found[1]))


def asking(
    run: Run, registry: Registry, runs: Callable[..., Sequence[Run]], *, now: Callable[[], datetime]
) -> Callable[[str, Decimal], WaitRequest | None]:
    """Return what a play in a script asks before each step, by its node and what the play has cost so far."""
    operator, before = registry.operator(run.operator_id), run.metrics.cost_usd or Decimal(0)
    budget = operator.spec.budget if operator else None

    def ask(node: str, cost: Decimal) -> WaitRequest | None:
        def spent(span: Span) -> Decimal:
            if span == "run":
                return before + cost
            since = began(span, now())
            others = [other for other in runs(operator=run.operator_id) if other.id != run.id]
            own = before + cost if run.created_at >= since else Decimal(0)
            return sum((other.metrics.cost_usd or Decimal(0) for other in others if other.created_at >= since), own)

        return question(budget, node=node, run=run, spent=spent)

    return ask


def began(span: Span, now: datetime) -> datetime:
    """Return when the day or the month began that a budget counts over."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight.replace(day=1) if span == "month" else midnight


def allowed(decision: str, payload: Mapping[str, Any], values: Mapping[str, Any] | None) -> Decimal:
    """Return what the run may cost in all after an answer; `NOTHING` ends it.

    Raises:
        InputError: the amount is none, or not above what the run has cost.
    """
    if decision != RAISE:
        return NOTHING
    given = (values or {}).get("allowance_usd", payload["allowance_usd"])
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not number or not payload["run_usd"] < given < MOST:
        told = f"is {given!r}; use a number of US dollars above {payload['run_usd']}, which the run has cost"
        raise InputError(f"allowance_usd: {told}", [{"field": "allowance_usd", "type": "", "message": told}])
    return Decimal(str(given)).quantize(Decimal("0.0001"))


def _step(budget: Budget | None, limit: Decimal) -> Decimal:
    return (budget.run if budget else None) or limit


def _asked(span: Span, limit: Decimal, spent: Decimal, *, node: str, own: Decimal, step: Decimal) -> WaitRequest:
    """Return the question. What is proposed lets the run cost as much again as it was meant to."""
    more = (own + step).quantize(_CENT) + _CENT
    amount = {
        "type": "number",
        "exclusiveMinimum": float(own),
        "exclusiveMaximum": MOST,
        "title": "What this run may cost in all (US dollars)",
    }
    values = {"type": "object", "properties": {"allowance_usd": amount}, "additionalProperties": False}
    return WaitRequest(
        node=node,
        kind="approval",
        prompt=f"Raise the budget? {_SPENT[span].format(spent=spent, limit=limit)}",
        payload={
            "span": span,
            "limit_usd": float(limit),
            "spent_usd": float(spent),
            "run_usd": float(own),
            "allowance_usd": float(more),
        },
        decisions=[RAISE, STOP],
        schema={
            "type": "object",
            "properties": {
                "decision": {"enum": [RAISE, STOP]},
                "notes": {"type": "string", "maxLength": 10_000},
                "values": values,
            },
            "required": ["decision"],
            "additionalProperties": False,
        },
        edits=["allowance_usd"],
        form=FORM,
    )
