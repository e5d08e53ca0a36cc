"""Fires what is due: leases that ran out, bells that nobody heard, deadlines that passed, news that was not announced.

Any number of clocks may run; each act is a conditional update, so that one of them does it and the others do nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, transaction
from django.db.models import F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Concat, Least
from django.utils import timezone

from openvibe.events import STEP_STARTED
from openvibe.events import Event as Fact
from openvibe.protocol import subjects
from operators.errors import DomainError
from operators.link import link
from operators.models import Channel, Emission, Event, Notice, Run, Wait
from operators.services import (
    announcements,
    deliveries,
    doorbell,
    endings,
    errands,
    inbox,
    notices,
    recalls,
    retention,
    subscriptions,
    timeline,
    timers,
    unheard,
    waits,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: The longest sleep between two looks, in seconds, and the shortest: what falls due within that is done together.
LONGEST_SLEEP = 1.0
SHORTEST_SLEEP = 0.05
#: Where counting rings ends: the pause between them stopped growing long before.
MOST_RINGS = 100
#: How long an errand may be on its way before it counts as lost.
NEWS_PAUSE = timedelta(seconds=2)
#: How long an announcement may. That it has arrived is written down now and then, and later on a busy machine.
ANNOUNCED_PAUSE = timedelta(seconds=5)
#: How many rows one look deals with, so that a backlog floods neither the broker nor the bus.
MOST = 200


def run_until(ended: threading.Event) -> None:
    """Look, sleep until something is due, look again."""
    sweeping = threading.Thread(target=retention.every_hour, args=(ended,), name="retention", daemon=True)
    sweeping.start()
    looked = 0.0
    while not ended.is_set():
        try:
            if time.monotonic() - looked >= LONGEST_SLEEP:
                looked = time.monotonic()
                tick()
            # In between only what has a moment of its own.
            pause = SHORTEST_SLEEP if meet_deadlines() else _sleep()
        except Exception:
            # Whatever it was, without a clock nothing that was lost would ever be found.
            logger.exception("The clock could not look; it looks again")
            close_old_connections()
            pause = LONGEST_SLEEP
        ended.wait(pause)
    sweeping.join(LONGEST_SLEEP)


def tick() -> None:
    """Do everything that is due now. What cannot be done holds nothing else up."""
    now = timezone.now()
    for act in _acts(now):
        try:
            act()
        except (OperationalError, InterfaceError):
            # The database is away, for everybody.
            raise
        except Exception:
            logger.exception("The clock could not do a part of its work; it goes on with the others")


def _acts(now: datetime) -> Iterator[Callable[[], object]]:
    yield lambda: _each(_lost(now), lambda run: _requeue(run, now))
    yield lambda: _each(unheard.runs(now, most=MOST), lambda run: _ring_again(run, now))
    yield meet_deadlines
    yield lambda: _each(_outlived(now), lambda run_id: _end_outlived(run_id, now))
    yield lambda: _each(_unannounced_runs(now), _tell_run)
    yield lambda: _each(_unannounced_channels(), _tell_channel)
    yield lambda: _each_while_taken(_undelivered(now), deliveries.deliver)
    yield lambda: _each_while_taken(_unsent(now), _ask_again)
    yield lambda: _each_while_taken(_unsaid(now), notices.send)
    yield lambda: _each_while_taken(_unrecalled(now), recalls.recall)
    yield lambda: _each_while_taken(errands.due(now, MOST), errands.look)
    yield lambda: _each(_unreplied(now), deliveries.reply)
    yield lambda: _each(inbox.stuck(MOST), inbox.apply)
    yield lambda: _each(subscriptions.behind(MOST), subscriptions.derive)
    yield lambda: _each(subscriptions.due(timezone.now(), MOST), subscriptions.send_out)


def meet_deadlines() -> bool:
    """Fire the timers that are due, and do what other waits say of their deadlines; tell whether there may be more."""
    now, fired = timezone.now(), 0
    try:
        fired = timers.fire(now, most=MOST)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        logger.exception("The clock could not fire these timers together; it tries each by itself")
        _each(list(timers.due(now)[:MOST]), _expire)
    _each(_due(now), _expire)
    return fired == MOST


def _each(found: list[T], act: Callable[[T], None]) -> None:
    for item in found:
        try:
            act(item)
        except DomainError as error:
            logger.info("Nothing left to do for %s: %s", item, error)
        except (OperationalError, InterfaceError):
            # The database is away, for everybody.
            raise
        except Exception:
            # One row that cannot be dealt with must not hold up all others, look after look.
            logger.exception("The clock could not deal with %s", item)


def _each_while_taken(found: list[T], act: Callable[[T], bool]) -> None:
    """Do it for one after the other, until the bus keeps one waiting and does not take it.

    Each of the others would wait as long, and hold up every timer meanwhile. What is refused at once holds nobody up.
    """
    kept_waiting = threading.Event()

    def take(item: T) -> None:
        began = time.monotonic()
        if not kept_waiting.is_set() and not act(item) and time.monotonic() - began > LONGEST_SLEEP:
            kept_waiting.set()

    _each(found, take)


def _lost(now: datetime) -> list[Run]:
    rows = Run.objects.filter(status=Run.Status.RUNNING, lease_until__lt=now)
    return list(rows.order_by("lease_until").for_bells()[:MOST])


def _requeue(run: Run, now: datetime) -> None:
    run_id = run.id
    lost = Run.objects.filter(id=run_id, status=Run.Status.RUNNING, lease_until__lt=now)
    most = settings.OPENVIBE.most_losses
    with transaction.atomic():
        changed = lost.filter(losses__lt=most - 1).change(
            "last_seq", "project_id", "epoch", "losses",
            status=Run.Status.QUEUED, lease_until=None, rung_at=now, rings=0, updated_at=now,
            losses=F("losses") + 1, last_seq=F("last_seq") + 1,
        )  # fmt: skip
        if changed is None:
            endings.fail(lost, _killer(run_id, most), now=now, actor=waits.CLOCK)
            return
        fact = Fact("run.lost", data={"epoch": changed[2], "losses": changed[3]})
        timeline.record(project_id=changed[1], run_id=run_id, last_seq=changed[0], facts=[fact], now=now)
        transaction.on_commit(lambda: doorbell.ring(run_id, run.operator))


def _killer(run_id: str, losses: int) -> dict[str, Any]:
    begun = Event.objects.filter(run_id=run_id, channel=subjects.thread(run_id), kind=STEP_STARTED)
    node, step_id = begun.order_by("-seq").values_list("node", "step_id").first() or ("", "")
    where = f"at step {node!r}" if node else "before its first step"
    told = f"The run has lost its worker {losses} times in a row {where}; does the step end or exhaust the process?"
    return {"message": told, "kind": "WorkerLost", "node": node, "step_id": step_id, "losses": losses}


def _ring_again(run: Run, now: datetime) -> None:
    queued = Run.objects.filter(id=run.id, status=Run.Status.QUEUED)
    if queued.update(rung_at=now, rings=Least(F("rings") + 1, Value(MOST_RINGS))):
        doorbell.ring(run.id, run.operator)


def _due(now: datetime) -> list[Wait]:
    rows = Wait.objects.pending().filter(deadline__lte=now)
    # Timers fire together, but for those of a run that goes on at another branch.
    rows = rows.exclude(kind=Wait.Kind.TIMER, run__status=Run.Status.WAITING)
    return list(rows.order_by("deadline", "seat")[:MOST])


def _expire(wait: Wait) -> None:
    waits.expire(wait)


def _outlived(now: datetime) -> list[str]:
    rows = Run.objects.active().filter(expires_at__lte=now)
    return list(rows.order_by("expires_at").values_list("id", flat=True)[:MOST])


def _end_outlived(run_id: str, now: datetime) -> None:
    told = "The run has lived longer than its workflow allows (max_days of @durable)"
    with transaction.atomic():
        runs = Run.objects.active().filter(id=run_id, expires_at__lte=now)
        endings.fail(runs, {"message": told, "kind": "RunOutlived"}, now=now, actor=waits.CLOCK)


def _unannounced_runs(now: datetime) -> list[tuple[str, str, int]]:
    rows = Run.objects.filter(told=False, announced_seq__lt=F("last_seq"), updated_at__lt=now - ANNOUNCED_PAUSE)
    return list(rows.order_by("created_at").values_list("project_id", "id", "announced_seq")[:MOST])


def _tell_run(row: tuple[str, str, int]) -> None:
    project_id, run_id, seq = row
    announcements.tell(list(Event.objects.after(project_id, subjects.thread(run_id), seq)[:MOST]))


def _unannounced_channels() -> list[Channel]:
    return list(Channel.objects.filter(announced_seq__lt=F("last_seq")))


def _tell_channel(channel: Channel) -> None:
    events = list(Event.objects.after(channel.project_id, channel.name, channel.announced_seq)[:MOST])
    horizon = timezone.now() - ANNOUNCED_PAUSE
    if events and events[0].created_at < horizon:
        announcements.tell(events)


def _undelivered(now: datetime) -> list[str]:
    rows = Emission.objects.filter(Q(delivered_at=None) | Q(published_at=None), emitted_at__lt=now - NEWS_PAUSE)
    # Without the bus nothing is published, and asking it anew for each event would hold everything else up.
    rows = rows if link.connected else rows.filter(delivered_at=None)
    return list(rows.order_by("emitted_at").values_list("id", flat=True)[:MOST])


def _unsent(now: datetime) -> list[str]:
    rows = Wait.objects.pending().exclude(kind=Wait.Kind.TIMER)
    rows = rows.filter(sent_at=None, opened_at__lt=now - NEWS_PAUSE)
    # Without the bus only other operators can be asked, and the shared context be looked at.
    rows = rows if link.connected else rows.filter(kind__in=[Wait.Kind.REPLY, Wait.Kind.CHANGE])
    # By turns: many that cannot be asked now, such as those of a server that is away, hide none of the others.
    turns = rows.order_by(F("tried_at").asc(nulls_first=True), "opened_at")
    return list(turns.values_list("id", flat=True)[:MOST])


def _ask_again(wait_id: str) -> bool:
    # Before it is tried: whatever becomes of it, it goes to the end of the line.
    Wait.objects.filter(id=wait_id).update(tried_at=timezone.now())
    return deliveries.ask(wait_id)


def _unsaid(now: datetime) -> list[int]:
    if not link.connected:
        return []
    rows = Notice.objects.filter(sent_at=None, written_at__lt=now - NEWS_PAUSE)
    return list(rows.order_by("written_at").values_list("pk", flat=True)[:MOST])


def _unrecalled(now: datetime) -> list[str]:
    rows = Wait.objects.unrecalled().filter(closed_at__lt=now - NEWS_PAUSE)
    # Runs of our own are called back without the bus.
    rows = rows if link.connected else rows.filter(kind=Wait.Kind.REPLY)
    return list(rows.order_by("closed_at").values_list("id", flat=True)[:MOST])


def _unreplied(now: datetime) -> list[str]:
    rows = Wait.objects.pending().filter(kind=Wait.Kind.REPLY, opened_at__lt=now - NEWS_PAUSE)
    rows = rows.annotate(answered_by=Concat(Value(endings.REPLY_KEY), F("id")))
    # Looked for one by one, because most of those that wait may wait for long.
    answering = Run.objects.filter(project_id=OuterRef("run__project_id"), key=OuterRef("answered_by"))
    ended = rows.annotate(ended=Subquery(answering.filter(ended_at__lt=now - NEWS_PAUSE).values("id")))
    return list(ended.filter(ended__isnull=False).values_list("ended", flat=True)[:MOST])


def _sleep() -> float:
    now = timezone.now()
    # One that has passed and is still there could not be dealt with; it is due again at the next look.
    coming = Wait.objects.pending().filter(deadline__gt=now).order_by("deadline").values_list("deadline", flat=True)
    following = coming.first()
    if following is None:
        return LONGEST_SLEEP
    return min(LONGEST_SLEEP, max(SHORTEST_SLEEP, (following - now).total_seconds()))
