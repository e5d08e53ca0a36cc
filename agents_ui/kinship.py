"""Which runs a run has started, and by which of its acts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db.models import QuerySet
from django.utils import timezone

from operators.models import Emission, Run, Wait
from operators.services.endings import REPLY_KEY

#: How the key of a run begins that an event started; the event's id and the workflow follow.
EVENT_KEY = "event:"
#: More of them than these no page names.
MOST = 200
#: How long after an act a page looks whether it has started a run by now.
FRESH = timedelta(minutes=1)

#: Events that tell of acts which start runs.
STARTING = frozenset({"event.emitted", "reply.requested"})

#: The runs that each act started, by the id of the event or of the question.
Children = Mapping[str, list[Run]]


def children(run_id: str) -> Children:
    """Return the runs that a run has started, oldest first, by what started them."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in of(run_id)[:MOST]:
        found[cause(run)].append(run)
    return found


def of(run_id: str) -> QuerySet[Run]:
    """Return the runs that a run has started, oldest first."""
    return Run.objects.filter(parent_id=run_id).select_related("operator", "workflow").order_by("created_at", "id")


def cause(run: Run) -> str:
    """Return the id of the event or of the question that started a run; empty if neither did."""
    key = run.key or ""
    if key.startswith(REPLY_KEY):
        return key.removeprefix(REPLY_KEY)
    return key.split(":")[1] if key.startswith(EVENT_KEY) else ""


def awaited(act: str) -> datetime | None:
    """Return when an act happened that may still start a run; None if all that it starts is there."""
    emitted = Emission.objects.filter(id=act, delivered_at=None).values_list("emitted_at", flat=True).first()
    asked = Wait.objects.pending().filter(id=act, kind=Wait.Kind.REPLY, sent_at=None)
    return emitted or asked.values_list("opened_at", flat=True).first()


def fresh(at: datetime | None) -> bool:
    """Tell whether an act of that time is worth looking at again."""
    return at is not None and timezone.now() - at < FRESH
