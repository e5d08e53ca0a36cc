"""What an operator's runs have cost, and the question whether one may cost more."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db.models import Sum
from django.utils import timezone

from openvibe import budgets
from openvibe.outcomes import WaitRequest
from openvibe.specs import Budget
from operators.models import Operator, Run, Wait


def of(operator: Operator) -> Budget | None:
    """Return an operator's budget, as the administrator left it."""
    amounts = {span: getattr(operator, f"budget_{span}_usd") for span in budgets.SPANS}
    return Budget(**amounts) if any(amount is not None for amount in amounts.values()) else None


def question(run: Run, *, node: str, own: Decimal) -> WaitRequest | None:
    """Return what is to be asked before a node of a run that has cost `own` so far, if a budget is used up."""
    now = timezone.now()

    def spent(span: budgets.Span) -> Decimal:
        if span == "run":
            return own
        since = budgets.began(span, now)
        return cost(run.operator, since, without=run) + (own if run.created_at >= since else 0)

    return budgets.question(of(run.operator), node=node, run=run, spent=spent)


def cost(operator: Operator, since: datetime, *, without: Run | None = None) -> Decimal:
    """Return what the runs have cost that an operator has begun since then."""
    rows = Run.objects.filter(operator=operator, created_at__gte=since)
    rows = rows.exclude(pk=without.pk) if without else rows
    return rows.aggregate(total=Sum("cost_usd"))["total"] or Decimal(0)


def told(wait: Wait) -> None:
    """Allow the run what a person has said; part of the transaction that closes the wait."""
    allowance = budgets.allowed(wait.decision, wait.payload, wait.values)
    Run.objects.filter(pk=wait.run_id).update(allowance_usd=allowance)
