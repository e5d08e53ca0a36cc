"""Queued runs whose bell nobody heard: the broker lost it, or it went down with the worker that had taken it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import F, Q

from operators.models import Operator, Process, Run
from operators.models.run import RunQuerySet
from operators.services import doorbell, limits

#: How long a rung run may stay queued before it is rung again; it doubles with each ring, up to RING_LIMIT.
RING_PAUSE = timedelta(seconds=2)
RING_LIMIT = timedelta(seconds=60)


def runs(now: datetime, *, most: int) -> list[Run]:
    """Return runs to ring for again. Those whose bells still hang, because all workers are busy, are none of them."""
    queued = limits.unlimited(Run.objects.filter(status=Run.Status.QUEUED))
    quiet = queued.filter(Q(rung_at=None) | Q(rung_at__lt=now - RING_PAUSE))
    found: list[Run] = []
    # Each queue by itself: runs whose workers are away, however many, hide none of another queue.
    for operators in _queues(quiet):
        oldest = quiet.filter(operator__in=operators).order_by(F("rung_at").asc(nulls_first=True), "created_at")
        found += _bereft([run for run in oldest.for_bells()[:most] if _quiet(run, now)], queued)
    # A run that waits for a slot hears no bell before there is one.
    for queue in limits.queues():
        found += [run for run in queue.turns().for_bells()[:most] if _quiet(run, now)]
    return found


def _queues(quiet: RunQuerySet) -> Iterable[list[Operator]]:
    """Return the operators of these runs, parted by the queues in which their bells hang."""
    parted: dict[str, list[Operator]] = defaultdict(list)
    for operator in Operator.objects.filter(pk__in=quiet.values("operator_id")):
        parted[doorbell.queue(operator)].append(operator)
    return parted.values()


def _quiet(run: Run, now: datetime) -> bool:
    return run.rung_at is None or run.rung_at < now - _pause(run.rings)


def _pause(rings: int) -> timedelta:
    return min(RING_PAUSE * (1 << min(rings, 10)), RING_LIMIT)


def _bereft(found: list[Run], queued: RunQuerySet) -> list[Run]:
    """Leave out as many runs of a queue as have a bell, the last rung ones. `found` has the oldest bells first."""
    left = _lost(found[0].operator, queued) if found else 0
    return [run for place, run in enumerate(found) if run.rung_at is None or place < left]


def _lost(operator: Operator, queued: RunQuerySet) -> int:
    """Return how many queued runs of an operator's queue have no bell; all of them, where none hangs any more."""
    # What brings no code shares one queue.
    sharers = ~Q(operator__source="") if operator.source else Q(operator__source="", operator__slug=operator.slug)
    hanging = doorbell.hanging(doorbell.queue(operator))
    # Workers have some more in hand, for as long as there are more.
    return queued.filter(sharers).count() - (hanging + _in_hand() if hanging else 0)


def _in_hand() -> int:
    workers = Process.living().filter(kind=Process.Kind.WORKER).count()
    return workers * settings.OPENVIBE.worker_threads
