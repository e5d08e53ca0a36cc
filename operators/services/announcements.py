"""Tells the bus what the database already holds: a thread of its own that nobody who writes has to wait for.

A run's events go out as one message on its thread. Those that everybody should know of are repeated, with numbers of
their own, on the project's `public` channel, and what gates ask on the channels of those who may answer. When the bus
has taken them, `announced_seq` says so; what it did not take is told again by the clock.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from django.db import close_old_connections, connection

from openvibe.protocol import subjects
from operators.link import link
from operators.models import Channel, marks
from operators.models.event import EventRow, Told
from operators.models.lookup import look_up
from operators.services import channels, personal, recorded, turns

logger = logging.getLogger(__name__)

#: What the general channel tells of every run.
PUBLIC_KINDS = frozenset(
    {
        "run.started",
        "gate.opened",
        "gate.decided",
        "gate.expired",
        "gate.escalated",
        "gate.overridden",
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
#: become one message, and the news of several runs one errand.
GATHER_PAUSE = 0.05
#: How many runs that are being played count as a crowd.
CROWD = 4
#: How often a number after a gap is tried again before the clock is left to announce it anew.
MARK_TRIES = 5
#: How many batches may be on their way to the bus before the next one waits for the oldest.
MOST_FLIGHTS = 32


@dataclass(frozen=True, order=True)
class Taken:
    """Events of one channel that the bus has taken. `run_id` is empty where no run numbers it."""

    project_id: str
    channel: str
    run_id: str
    first: int
    last: int
    tries: int = 0


@dataclass
class Announcer:
    """The thread, what it has been told, what is on its way to the bus, and what the bus has taken."""

    _told: queue.Queue[Sequence[Told]] = field(default_factory=queue.Queue)
    _starting: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None
    _flights: deque[recorded.Flight] = field(default_factory=deque)
    _taken: list[Taken] = field(default_factory=list)
    _hurried: threading.Event = field(default_factory=threading.Event)
    #: Of which runs the last news were, and when they set out.
    _last: frozenset[str | None] = frozenset()
    _left_at: float = 0.0
    #: How many runs this process plays at the moment.
    playing: int = 0

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
            while self._told.unfinished_tasks or self._flights or self._taken:
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
                self._land(patiently=hurried)
                if self._taken and (hurried or time.monotonic() - marked_at > MARK_PAUSE):
                    marked_at = time.monotonic()
                    self._mark()
            except Exception:
                # The clock announces again whatever this thread could not; it must outlive any single fault.
                logger.exception("Announcing failed")
                close_old_connections()
            if not (self._taken or self._flights) and connection.vendor != "sqlite":
                # The next news may be long in coming; a pool gets its connection back.
                connection.close()
            for _ in told:
                self._told.task_done()

    def _next(self) -> list[Sequence[Told]]:
        try:
            told = [self._told.get(timeout=MARK_PAUSE if self._taken or self._flights else None)]
        except queue.Empty:
            return []
        if self._crowded(told[0]) and not self._hurried.is_set():
            self._hurried.wait(GATHER_PAUSE)
        while not self._told.empty():
            told.append(self._told.get())
        self._last, self._left_at = frozenset(events[0].run_id for events in told if events), time.monotonic()
        return told

    def _crowded(self, news: Sequence[Told]) -> bool:
        """Tell whether more news is likely to come at once: many runs are played, or others were told of just now."""
        if self.playing or not news:
            return self.playing >= CROWD
        return time.monotonic() - self._left_at < GATHER_PAUSE and news[0].run_id not in self._last

    def _announce(self, batch: list[Told]) -> None:
        """Send it off; nobody waits for the bus's word, which comes while the next batch is under way."""
        if not batch:
            return
        news = [event for event in batch if _is_news(event)]
        parts = _unbroken(batch)
        flights = list(recorded.send(zip(parts, turns.messages(parts), strict=True)))
        # If one of these fails, nobody marks what is on its way, and the clock announces all of it again.
        if news:
            flights += recorded.send((events, ()) for events in _unbroken(publicly(news)))
            flights += recorded.send((events, ()) for events in _unbroken(personal.repeated(news)))
        self._flights += flights
        for project in {event.project_id for event in batch if _stirs(event)}:
            link.cast(subjects.stirred(project), b"{}")

    def _land(self, *, patiently: bool) -> None:
        """Hear what the bus says of what is on its way: of all of it, or of no more than what it has said."""
        while self._flights and (patiently or len(self._flights) > MOST_FLIGHTS or self._flights[0].over):
            for events in self._flights.popleft().arrived():
                first, last = events[0], events[-1]
                run = (last.run_id or "") if subjects.is_thread(last.channel) else ""
                self._taken.append(Taken(last.project_id, last.channel, run, first.seq, last.seq))

    def _mark(self) -> None:
        """Write down what the bus has taken. What follows a gap waits: another process may be filling it."""
        taken, self._taken = _joined(sorted(self._taken)), []
        runs = marks.mark((item.run_id, item.first, item.last) for item in taken if item.run_id)
        parts: dict[tuple[str, str], list[Taken]] = defaultdict(list)
        for item in taken:
            if not item.run_id:
                parts[_place(item)].append(item)
        reached = {place: _raised(*place, of_channel) for place, of_channel in parts.items()}
        self._taken += [
            replace(item, tries=item.tries + 1)
            for item in taken
            if not (item.run_id in runs if item.run_id else item.last <= reached[_place(item)])
            and item.tries < MARK_TRIES
        ]


def _raised(project_id: str, name: str, parts: Sequence[Taken]) -> int:
    """Raise a channel's announced number over those of these parts that follow it without a gap; return how far."""
    channel = look_up(Channel, project_id=project_id, name=name)
    if channel is None:
        return 0
    reached = channel.announced_seq
    for part in parts:
        if part.first <= reached + 1:
            reached = max(reached, part.last)
    if reached > channel.announced_seq:
        # Whoever has raised it meanwhile had what lies between.
        still = Channel.objects.filter(
            pk=channel.pk, announced_seq__gte=channel.announced_seq, announced_seq__lt=reached
        )
        still.update(announced_seq=reached)
    return reached


def _joined(taken: list[Taken]) -> list[Taken]:
    """Join what follows one another without a gap, so that each channel is marked once; `taken` is sorted."""
    joined: list[Taken] = []
    for item in taken:
        before = joined[-1] if joined else None
        if before and _place(before) == _place(item) and before.last + 1 >= item.first:
            last, tries = max(before.last, item.last), max(before.tries, item.tries)
            joined[-1] = replace(before, last=last, tries=tries)
        else:
            joined.append(item)
    return joined


def _place(item: Taken) -> tuple[str, str]:
    return item.project_id, item.channel


announcer = Announcer()
tell = announcer.tell
settle = announcer.settle


def publicly(news: Sequence[Told]) -> list[EventRow]:
    """Repeat a run's events on the public channels of their projects, each once."""
    repeated: list[EventRow] = []
    for project_id, events in channels.by_project(news).items():
        copies = [channels.copy(event, subjects.PUBLIC) for event in events]
        repeated += channels.repeat(project_id, subjects.PUBLIC, copies)
    return repeated


def _is_news(event: Told) -> bool:
    return subjects.is_thread(event.channel) and event.kind in PUBLIC_KINDS


def _stirs(event: Told) -> bool:
    return subjects.is_thread(event.channel) and (event.kind in STIRRING or event.kind.endswith(REQUESTED))


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
