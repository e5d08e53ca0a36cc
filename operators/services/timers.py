"""Timers that are due fire together: a few statements and one transaction, however many they are."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from django.db import transaction
from django.db.models import F

from openvibe.events import Event as Fact
from operators.models import Event, Run, Wait
from operators.models.event import EventRow
from operators.models.statements import insert
from operators.models.wait import WaitQuerySet
from operators.services import doorbell, timeline
from operators.services.waits import CLOCK


def due(now: datetime) -> WaitQuerySet:
    """Return the timers that are due, the most urgent first."""
    return Wait.objects.pending().filter(kind=Wait.Kind.TIMER, deadline__lte=now).order_by("deadline")


@transaction.atomic
def fire(now: datetime, *, most: int) -> int:
    """Fire up to so many of the timers that are due and wake their runs; return how many.

    A run whose row somebody else holds is left for the next look, so that nobody waits for a process that froze.
    """
    found = due(now).values_list("id", "run_id")[:most]
    # One timer of a run at a time, since each is one event of the run's thread.
    chosen = {run_id: wait_id for wait_id, run_id in reversed(found)}
    if not chosen:
        return 0
    # The runs' rows before their waits', as whoever plays or cancels them takes them: two orders would be a deadlock.
    rows = Run.objects.filter(id__in=chosen, status=Run.Status.WAITING).select_related("operator").order_by("id")
    runs = {run.id: run for run in rows.select_for_update(of=("self",), no_key=True, skip_locked=True)}
    waits = due(now).filter(id__in=[chosen[run_id] for run_id in runs])
    fired = list(waits.only("id", "run_id", "node", "step_id"))
    _record(fired, runs, now=now)
    Wait.objects.filter(id__in=[wait.id for wait in fired]).update(
        status=Wait.Status.RESOLVED, decider=CLOCK, closed_at=now
    )
    woken = [runs[wait.run_id] for wait in fired]
    Run.objects.filter(id__in=[run.id for run in woken]).update(
        status=Run.Status.QUEUED, rung_at=now, rings=0, updated_at=now, last_seq=F("last_seq") + 1, told=False
    )
    transaction.on_commit(partial(_ring, woken))
    return len(fired)


def _record(fired: list[Wait], runs: dict[str, Run], *, now: datetime) -> None:
    events: list[EventRow] = []
    for wait in fired:
        run = runs[wait.run_id]
        fact = Fact("timer.fired", node=wait.node, step_id=wait.step_id, data={"wait_id": wait.id})
        [event] = timeline.rows(project_id=run.project_id, run_id=run.id, facts=[fact], now=now, actor=CLOCK)
        event.seq = run.last_seq + 1
        events.append(event)
    insert(Event, events)
    timeline.announce(events)


def _ring(woken: list[Run]) -> None:
    for run in woken:
        doorbell.ring(run.id, run.operator)
