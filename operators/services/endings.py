"""Ends of runs that come from outside of their play, and what follows from any end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Concat

from openvibe import canonical, groups, late
from openvibe.events import Event as Fact
from openvibe.outcomes import REST
from operators.models import Errand, Operator, Run, Wait
from operators.models.checkpoint import DatabaseRows
from operators.models.run import RunQuerySet
from operators.models.wait import OVERRIDDEN, WaitQuerySet
from operators.services import doorbell, limits, timeline, waits
from operators.services.masking import masked

#: How the key of a run begins that answers another run's request; the wait's id follows.
REPLY_KEY = "reply:"


def fail(runs: RunQuerySet, error: Mapping[str, Any], *, now: datetime, actor: str = "") -> bool:
    """Let the one run that is selected fail; False if the condition no longer holds.

    `error` holds `message`, `kind` and, where a step is to blame, `node` and `step_id`; part of the caller's
    transaction.
    """
    told = masked({"node": "", "step_id": "", "traceback": "", **error})
    fact = Fact("run.failed", node=told["node"], step_id=told["step_id"], data=told)
    return end(runs, fact, now=now, actor=actor, status=Run.Status.FAILED, error=told)


def cancel(runs: RunQuerySet, reason: str, *, now: datetime, actor: str) -> bool:
    """Cancel the one run that is selected; False if the condition no longer holds. Part of the caller's transaction."""
    fact = Fact("run.cancelled", data={"reason": canonical.jsonable(reason)})
    return end(runs, fact, now=now, actor=actor, status=Run.Status.CANCELLED)


def end(runs: RunQuerySet, fact: Fact, *, now: datetime, actor: str, status: Run.Status, **changes: Any) -> bool:
    """End the one run that is selected, and tell why; part of the caller's transaction."""
    changed = runs.change(
        "id", "project_id", "operator_id", "key", "last_seq",
        status=status, ended_at=now, lease_until=None, updated_at=now, last_seq=F("last_seq") + 1, **changes,
    )  # fmt: skip
    if changed is None:
        return False
    run_id, project_id, operator_id, key, last_seq = changed
    timeline.record(project_id=project_id, run_id=run_id, last_seq=last_seq, facts=[fact], now=now, actor=actor)
    operator = Operator.objects.select_related("project").get(pk=operator_id)
    call_off(run_id, operator=operator, now=now)
    follow(run_id, key=key, operator=operator)
    return True


def call_off(run_id: str, *, operator: Operator, now: datetime) -> None:
    """Close what a run that ends waits for, and have told who does it; part of the caller's transaction."""
    if waits.cancel_open(run_id, now=now):
        transaction.on_commit(partial(doorbell.recall, run_id, operator))


def undo(run_id: str) -> None:
    """Let a run that goes on after its end ask anew what that end has closed, and what has brought it about.

    Part of the caller's transaction. A graph with branches may stand at a gate while another of its branches fails.
    """
    closed = Wait.objects.filter(run_id=run_id, status=Wait.Status.CANCELLED, rule="")
    # What was overridden is no pause already, and is to be found when it is asked anew; a rest is asked by nobody.
    _set_aside(closed.exclude(Q(interrupt_id__startswith=OVERRIDDEN) | Q(interrupt_id__startswith=REST)))
    last = _last_pause(run_id)
    # Whatever else a step was told before, it has put up with, since it went on and asked this.
    bad = last is not None and (groups.failed(list(last.group)) or groups.silent(list(last.group)))
    if last and bad and late.history.unanswer(DatabaseRows(), run_id, last.step_id, last.interrupt_id):
        _set_aside(last.group)


def by_silence(run_id: str) -> bool:
    """Tell whether a run that was rejected at a gate was so by its deadline, and by nobody's no."""
    last = _last_pause(run_id)
    return last is not None and groups.silent(list(last.group))


def _last_pause(run_id: str) -> Wait | None:
    pauses = Wait.objects.filter(run_id=run_id).exclude(interrupt_id__contains="/")
    return pauses.order_by("-opened_at", "-id").first()


def _set_aside(waits: WaitQuerySet) -> None:
    # One pause is one wait: those stay as they are, under names that no pause has.
    waits.update(interrupt_id=Concat(Value("closed/"), F("id")))


def follow(run_id: str, *, key: str | None, operator: Operator) -> None:
    """Do what follows from a run's end: whoever asked is answered, the next one may begin."""
    if (key or "").startswith(REPLY_KEY):
        transaction.on_commit(partial(doorbell.reply, run_id, operator))
    elif (key or "").startswith(Errand.KEY):
        transaction.on_commit(partial(doorbell.gather, Errand.of_key(key or "")))
    limits.freed(operator)
