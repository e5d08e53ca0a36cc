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
from django.db import IntegrityError, close_old_connections, connection, transaction
from django.db.models import F

from openvibe.bus import Message
from openvibe.errors import BusError
from openvibe.protocol import envelope, headers, subjects
from operators.link import link
from operators.models import Channel, Event, marks
from operators.models.event import EventRow, Told
from operators.models.statements import insert
from operators.models.stroke import Change, Insert, strike
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
#: What lists of runs show beside that: that a run has fallen asleep, and that it goes on.
STIRRING = frozenset({"timer.set", "run.resumed"})
REQUESTED = ".requested"
#: How long announced numbers may wait to be written down together, in seconds: a short run is marked once.
MARK_PAUSE = 1.0
#: While news come in crowds, how long they are gathered before they are sent, in seconds: the steps of a short run
#: become one message.
GATHER_PAUSE = 0.02
#: The news of how many runs at once count as a crowd.
CROWD = 4
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
    _crowded: bool = False

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
        if self._crowded and not self._hurried.is_set():
            self._hurried.wait(GATHER_PAUSE)
        while not self._told.empty():
            told.append(self._told.get())
        self._crowded = len({events[0].run_id for events in told if events}) >= CROWD
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
        for project in {event.project_id for event in batch if _stirs(event)}:
            link.submit(link.publish(subjects.stirred(project), b"{}"))

    def _took(self, events: list[Told]) -> None:
        first, last = events[0], events[-1]
        if last.channel == subjects.PUBLIC:
            rows = Channel.objects.filter(project_id=last.project_id, name=last.channel)
            rows.filter(announced_seq__gte=first.seq - 1, announced_seq__lt=last.seq).update(announced_seq=last.seq)
        elif last.run_id:
            self._taken.append(Taken(last.run_id, first.seq, last.seq))

    def _mark(self) -> None:
        """Write down what the bus has taken. What follows a gap waits: another process may be filling it."""
        taken, self._taken = _joined(sorted(self._taken)), []
        marked = marks.mark((item.run_id, item.first, item.last) for item in taken)
        self._taken += [
            replace(item, tries=item.tries + 1)
            for item in taken
            if item.run_id not in marked and item.tries < MARK_TRIES
        ]


def _joined(taken: list[Taken]) -> list[Taken]:
    """Join what follows one another without a gap, so that each run is marked once; `taken` is sorted."""
    joined: list[Taken] = []
    for item in taken:
        before = joined[-1] if joined else None
        if before and before.run_id == item.run_id and before.last + 1 >= item.first:
            last, tries = max(before.last, item.last), max(before.tries, item.tries)
            joined[-1] = replace(before, last=last, tries=tries)
        else:
            joined.append(item)
    return joined


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


def publicly(news: Sequence[Told]) -> list[EventRow]:
    """Repeat a run's events on the public channels of their projects, each once."""
    repeated: list[EventRow] = []
    for project_id, events in _by_project(news).items():
        copies = [_copy(event) for event in events]
        try:
            repeated += _appended(project_id, copies)
        except IntegrityError:
            repeated += _appended_once(project_id, copies)
    return repeated


def _appended(project_id: str, copies: list[EventRow]) -> list[EventRow]:
    """Append events that are most likely new, in one statement; raises `IntegrityError` if one of them is not."""
    public = {"project_id": project_id, "name": subjects.PUBLIC}
    numbered = [Insert(Event, copies, numbered="seq")]
    change = Change(Channel, where=public, put={}, add={"last_seq": len(copies)}, counter="last_seq", inserts=numbered)
    return _appended_once(project_id, copies) if strike(change) is None else copies


@transaction.atomic
def _appended_once(project_id: str, copies: list[EventRow]) -> list[EventRow]:
    channel = locked_channel(project_id)
    ids = [copy.message_id for copy in copies]
    rows = Event.objects.filter(project_id=project_id, channel=subjects.PUBLIC, message_id__in=ids)
    known = set(rows.values_list("message_id", flat=True))
    return append(channel, [copy for copy in copies if copy.message_id not in known])


def append(channel: Channel, events: Sequence[EventRow]) -> list[EventRow]:
    """Number events and write them into a channel whose row the caller has locked."""
    if not events:
        return []
    for position, event in enumerate(events, start=channel.last_seq + 1):
        event.seq = position
    Channel.objects.filter(pk=channel.pk).update(last_seq=F("last_seq") + len(events))
    insert(Event, events)
    return list(events)


def locked_channel(project_id: str, name: str = subjects.PUBLIC) -> Channel:
    """Return a channel's row, locked until the caller's transaction ends: whoever holds it may number events."""
    rows = Channel.objects.select_for_update().filter(project_id=project_id, name=name)
    if (found := rows.first()) is None:
        Channel.objects.bulk_create([Channel(project_id=project_id, name=name)], ignore_conflicts=True)
        found = rows.get()
    return found


def _copy(event: Told) -> EventRow:
    return EventRow(
        project_id=event.project_id,
        channel=subjects.PUBLIC,
        kind=event.kind,
        run_id=event.run_id,
        node=event.node,
        step_id=event.step_id,
        actor=event.actor,
        data=orjson.loads(event.data) if isinstance(event.data, bytes) else event.data,
        message_id=_id(event),
        created_at=event.created_at,
    )


def _is_news(event: Told) -> bool:
    return event.channel != subjects.PUBLIC and event.kind in PUBLIC_KINDS


def _stirs(event: Told) -> bool:
    return event.channel != subjects.PUBLIC and (event.kind in STIRRING or event.kind.endswith(REQUESTED))


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
