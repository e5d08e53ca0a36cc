"""Tells the bus what the database already holds: a thread of its own that nobody who writes has to wait for.

A run's events go out as one message on its thread. Those that everybody should know of are repeated, with numbers of
their own, on the project's `public` channel. When the bus has taken them, `announced_seq` says so; what it did not take
is told again by the clock.
"""

from __future__ import annotations

import concurrent.futures
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import orjson
from django.db import close_old_connections, connection, transaction
from django.db.models import F

from openvibe.bus import Message
from openvibe.errors import BusError
from openvibe.protocol import envelope, headers, subjects
from operators.link import link
from operators.models import Channel, Event, Run
from operators.models.event import Told
from operators.models.statements import transaction_in_few_trips
from operators.services import turns

logger = logging.getLogger(__name__)

#: What the general channel tells of every run.
PUBLIC_KINDS = frozenset(
    {
        "run.started",
        "gate.opened",
        "gate.decided",
        "gate.expired",
        "gate.escalated",
        "run.completed",
        "run.failed",
        "run.cancelled",
        "run.retried",
    }
)
#: How long announced numbers may wait to be written down together, in seconds.
MARK_PAUSE = 0.3
#: Raises a run's announced number over what follows it without a gap.
MARK = "UPDATE operators_run SET announced_seq = %s WHERE id = %s AND announced_seq >= %s AND announced_seq < %s"
#: How often a number after a gap is tried again before the clock is left to announce it anew.
MARK_TRIES = 5
#: NATS takes at most 1 MiB a message; a longer batch is told in parts of about this many bytes.
MESSAGE_SIZE = 400 * 1024


@dataclass(frozen=True, order=True)
class Taken:
    """Events of one run that the bus has taken."""

    run_id: str
    first: int
    last: int
    tries: int = 0


@dataclass
class Announcer:
    """The thread, and what it has been told."""

    _told: queue.Queue[Sequence[Told]] = field(default_factory=queue.Queue)
    _starting: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None
    _taken: list[Taken] = field(default_factory=list)
    _hurried: threading.Event = field(default_factory=threading.Event)

    def tell(self, events: Sequence[Told]) -> None:
        """Announce these events of one channel soon."""
        self._told.put(events)
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="announcer", daemon=True)
                self._thread.start()

    def settle(self, timeout: float) -> bool:
        """Wait until all that was told has been tried and written down; False if `timeout` seconds were too short."""
        if self._thread is None or not self._thread.is_alive():
            return True
        deadline = time.monotonic() + timeout
        self._hurried.set()
        try:
            while self._told.unfinished_tasks or self._taken:
                # An empty batch wakes the thread up.
                self._told.put([])
                with self._told.all_tasks_done:
                    left = max(0.0, deadline - time.monotonic())
                    if not self._told.all_tasks_done.wait_for(lambda: not self._told.unfinished_tasks, left):
                        return False
        finally:
            self._hurried.clear()
        return True

    def _work(self) -> None:
        marked_at = time.monotonic()
        while True:
            told = self._next()
            try:
                self._announce([event for events in told for event in events])
                hurried = not told or self._hurried.is_set()
                if self._taken and (hurried or time.monotonic() - marked_at > MARK_PAUSE):
                    marked_at = time.monotonic()
                    self._mark()
            except Exception:
                # The clock announces again whatever this thread could not; it must outlive any single fault.
                logger.exception("Announcing failed")
                close_old_connections()
            if not self._taken and connection.vendor != "sqlite":
                # The next news may be long in coming; a pool gets its connection back.
                connection.close()
            for _ in told:
                self._told.task_done()

    def _next(self) -> list[Sequence[Told]]:
        try:
            told = [self._told.get(timeout=MARK_PAUSE if self._taken else None)]
        except queue.Empty:
            return []
        while not self._told.empty():
            told.append(self._told.get())
        return told

    def _announce(self, batch: list[Told]) -> None:
        news = [event for event in batch if _is_news(event)]
        parts = _unbroken(batch)
        sent = [
            (events, send(events, beside=beside)) for events, beside in zip(parts, turns.messages(parts), strict=True)
        ]
        repeated = publicly(news) if news else []
        sent += [(events, send(events)) for events in _unbroken(repeated)]
        for events, future in sent:
            if _arrived(future):
                self._took(events)

    def _took(self, events: list[Told]) -> None:
        first, last = events[0], events[-1]
        if last.channel == subjects.PUBLIC:
            rows = Channel.objects.filter(project_id=last.project_id, name=last.channel)
            rows.filter(announced_seq__gte=first.seq - 1, announced_seq__lt=last.seq).update(announced_seq=last.seq)
        elif last.run_id:
            self._taken.append(Taken(last.run_id, first.seq, last.seq))

    def _mark(self) -> None:
        """Write down what the bus has taken. What follows a gap waits: another process may be filling it."""
        # In the order of ids, so that two processes never wait for each other's rows.
        taken, self._taken = sorted(self._taken), []
        with transaction_in_few_trips(), connection.cursor() as cursor:
            cursor.executemany(MARK, [(item.last, item.run_id, item.first - 1, item.last) for item in taken])
        runs = Run.objects.filter(id__in={item.run_id for item in taken}).values_list("id", "announced_seq")
        marked = dict(runs)
        self._taken += [
            replace(item, tries=item.tries + 1)
            for item in taken
            if marked.get(item.run_id, item.last) < item.last and item.tries < MARK_TRIES
        ]


_announcer = Announcer()
tell = _announcer.tell
settle = _announcer.settle


def send(events: Sequence[Told], *, beside: Sequence[Message] = ()) -> concurrent.futures.Future[None]:
    """Send events of one channel, as one message or a few, to be kept by its stream, and what goes with them."""
    return link.submit(_sent(list(events), beside))


async def _sent(events: list[Told], beside: Sequence[Message]) -> None:
    # A stream takes what one connection sends in its order: that it keeps what follows says that it has had these.
    await link.precede(beside)
    part: list[Told] = []
    texts: list[bytes] = []
    size = 0
    for event in events:
        text = envelope.dumps(event.wire())
        if part and size + len(text) > MESSAGE_SIZE:
            await _send_part(part, texts)
            part, texts, size = [], [], 0
        part.append(event)
        texts.append(text)
        size += len(text)
    await _send_part(part, texts)


async def _send_part(events: list[Told], texts: list[bytes]) -> None:
    last = events[-1]
    subject = subjects.recorded(last.project_id, last.channel)
    batch = f"{last.channel}:{events[0].seq}-{last.seq}"
    body = {
        "version": envelope.VERSION,
        "id": batch,
        "timestamp": last.created_at,
        "type": "timeline.recorded",
        "project": last.project_id,
        "channel": last.channel,
        "run_id": last.run_id or "",
        "seq": last.seq,
        "role": "system",
        "kind": "event",
        # Put in as they are: each event is made text once.
        "payload": {"events": [orjson.Fragment(text) for text in texts]},
    }
    stamps = headers.stamped("timeline.recorded", message_id=envelope.message_id(subject, batch))
    await link.store(subject, envelope.dumps(body), stamps)


def publicly(news: Sequence[Told]) -> list[Event]:
    """Repeat a run's events on the public channels of their projects, each once, in a short transaction."""
    repeated: list[Event] = []
    for project_id, events in _by_project(news).items():
        with transaction.atomic():
            channel = locked_channel(project_id)
            ids = [_id(event) for event in events]
            known = set(
                Event.objects.filter(
                    project_id=project_id, channel=subjects.PUBLIC, message_id__in=ids
                ).values_list("message_id", flat=True)
            )  # fmt: skip
            fresh = [event for event in events if _id(event) not in known]
            repeated += append(channel, [_copy(event) for event in fresh])
    return repeated


def append(channel: Channel, events: Sequence[Event]) -> list[Event]:
    """Number events and write them into a channel whose row the caller has locked."""
    if not events:
        return []
    for position, event in enumerate(events, start=channel.last_seq + 1):
        event.seq = position
    Channel.objects.filter(pk=channel.pk).update(last_seq=F("last_seq") + len(events))
    return Event.objects.bulk_create(events)


def locked_channel(project_id: str, name: str = subjects.PUBLIC) -> Channel:
    """Return a channel's row, locked until the caller's transaction ends: whoever holds it may number events."""
    Channel.objects.bulk_create([Channel(project_id=project_id, name=name)], ignore_conflicts=True)
    return Channel.objects.select_for_update().get(project_id=project_id, name=name)


def _copy(event: Told) -> Event:
    return Event(
        project_id=event.project_id,
        channel=subjects.PUBLIC,
        kind=event.kind,
        run_id=event.run_id,
        node=event.node,
        step_id=event.step_id,
        actor=event.actor,
        data=event.data,
        message_id=_id(event),
        created_at=event.created_at,
    )


def _is_news(event: Told) -> bool:
    return event.channel != subjects.PUBLIC and event.kind in PUBLIC_KINDS


def _id(event: Told) -> str:
    return f"{event.run_id}:{event.seq}"


def _unbroken(events: Iterable[Told]) -> list[list[Told]]:
    """Return each channel's events in order, parted where a number is missing: another process tells that one."""
    numbered = {(event.project_id, event.channel, event.seq): event for event in events}
    parts: list[list[Told]] = []
    for key in sorted(numbered):
        project_id, channel, seq = key
        if (project_id, channel, seq - 1) not in numbered:
            parts.append([])
        parts[-1].append(numbered[key])
    return parts


def _by_project(events: Iterable[Told]) -> dict[str, list[Told]]:
    groups: dict[str, list[Told]] = defaultdict(list)
    for event in events:
        groups[event.project_id].append(event)
    return groups


def _arrived(future: concurrent.futures.Future[None]) -> bool:
    try:
        future.result(timeout=10)
    except (BusError, TimeoutError) as error:
        logger.info("Not announced yet: %s", error)
        return False
    return True
