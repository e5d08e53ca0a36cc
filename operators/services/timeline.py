"""The timeline: events recorded with the change they tell of, handed over to be announced, and read back in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from openvibe.events import Event as Fact
from openvibe.protocol import subjects
from operators.models import Card, Event, Run
from operators.models.event import EventQuerySet, EventRow
from operators.models.statements import insert
from operators.services import announcements, cards
from operators.services.masking import masked


def record(
    *, project_id: str, run_id: str, last_seq: int, facts: Sequence[Fact], now: datetime, actor: str = ""
) -> None:
    """Write facts into a run's thread, inside the transaction that made them true.

    `last_seq` is the run's counter after it was raised by the number of facts: whoever raised it owns the numbers.
    Secrets are taken out of them. They are announced once the transaction is committed.
    """
    if not facts:
        return
    written = rows(project_id=project_id, run_id=run_id, facts=facts, now=now, actor=actor)
    for seq, row in enumerate(written, start=last_seq - len(facts) + 1):
        row.seq = seq
    insert(Event, written)
    announce(written)


def announce(written: Sequence[EventRow]) -> None:
    """Hand numbered rows over to be announced once they are committed."""
    if written:
        transaction.on_commit(partial(announcements.tell, written))


def rows(
    *, project_id: str, run_id: str, facts: Sequence[Fact], now: datetime, actor: str = "",
    into: list[Card] | None = None,
) -> list[EventRow]:  # fmt: skip
    """Return the rows of facts in a run's thread, still without numbers; secrets are taken out of them.

    The cards of large values are put `into` the list, to be written with the rows.
    """
    return [
        EventRow(
            project_id=project_id,
            channel=subjects.thread(run_id),
            kind=fact.kind,
            run_id=run_id,
            node=fact.node,
            step_id=fact.step_id,
            actor=actor,
            data=cards.stowed(project_id, masked(fact.data), into=into),
            created_at=now,
        )
        for fact in facts
    ]


@transaction.atomic
def note(run_id: str, fact: Fact, *, actor: str = "") -> None:
    """Write a fact about a run that neither changes it nor needs its claim, whatever the run's status."""
    now = timezone.now()
    changed = Run.objects.filter(id=run_id).change("last_seq", "project_id", last_seq=F("last_seq") + 1, updated_at=now)
    if changed is not None:
        record(project_id=changed[1], run_id=run_id, last_seq=changed[0], facts=[fact], now=now, actor=actor)


def read(
    project_id: str, channel: str, *, after: int = 0, since: datetime | None = None, limit: int = 500
) -> list[Event]:
    """Return a channel's events that follow number `after`, and are later than `since`, in order."""
    rows = Event.objects.after(project_id, channel, after).select_related("run")
    return list((rows.filter(created_at__gt=since) if since else rows)[:limit])


def newest(
    project_id: str,
    channel: str,
    *,
    before: int | None = None,
    limit: int = 200,
    narrow: Callable[[EventQuerySet], EventQuerySet] | None = None,
) -> list[Event]:
    """Return a channel's newest events, or the newest ones before a number, in order; of those that `narrow` leaves."""
    rows: EventQuerySet = Event.objects.filter(project_id=project_id, channel=channel)
    if before is not None:
        rows = rows.filter(seq__lt=before)
    rows = narrow(rows) if narrow else rows
    return list(rows.order_by("-seq").select_related("run")[:limit])[::-1]
