"""A channel as a stream of server-sent events: what was, then what happens, each number once.

A stream holds no thread and no database connection: history is read a part at a time, news comes from the channel's one
watch in this process. A reader that cannot keep up is let go; it comes back with the last number that it has seen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from openvibe.protocol import envelope
from operators.services import watching
from operators.services.filters import Filter, Wire

#: Seconds of silence after which a comment shows that the stream lives, and between two looks at the reader's rights.
HEARTBEAT_SECONDS = 5.0
RIGHTS_SECONDS = 30.0
#: After how many milliseconds a reader that was cut off comes back.
RETRY = 1000
#: How many events may wait for a slow reader.
BACKLOG = 2000


@dataclass(eq=False)
class Follower:
    """One reader: the number that it has heard last, and the events on their way to it."""

    after: int
    cut: bool = False
    _waiting: list[Wire] = field(default_factory=list)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, events: Sequence[Wire]) -> None:
        """Queue the events that it has not heard; a reader that cannot keep up is let go."""
        fresh = [event for event in events if event["seq"] > self.after]
        if len(self._waiting) + len(fresh) > BACKLOG:
            self.cut = True
        elif fresh:
            self._waiting += fresh
            self.after = fresh[-1]["seq"]
        self._woken.set()

    async def next(self, timeout: float) -> list[Wire]:
        """Return everything that waits, or nothing after so many seconds of silence."""
        try:
            async with asyncio.timeout(timeout):
                await self._woken.wait()
        except TimeoutError:
            return []
        self._woken.clear()
        events, self._waiting = self._waiting, []
        return events


class Watch(watching.Watch[Follower]):
    """One channel that readers follow."""

    async def show(self, events: list[Wire]) -> None:
        """Hand events to everybody."""
        for follower in self.members:
            follower.take(events)

    async def attend(self) -> None:
        """Give each newcomer what it has missed, then let it hear the rest with everybody."""
        assert self.seq is not None
        while self.joining:
            follower = self.joining[0]
            missed: list[Wire] = []
            if follower.after < self.seq and not follower.cut:
                seq = self.seq
                read = await watching.read(self.project_id, self.channel, follower.after)
                missed = [event for event in read if event["seq"] <= seq]
                follower.take(missed)
            # It may have left meanwhile, and others are no longer where they were.
            if not missed and follower in self.joining:
                self.joining.remove(follower)
                self.members.add(follower)


hub: watching.Hub[Follower] = watching.Hub(Watch)


def session_named(event: Wire) -> Wire:
    """Return an event with its run as `session_id` too, by which agents of sessions know it."""
    return {**event, "session_id": event["run_id"]}


@dataclass
class Stream:
    """What one reader asked for. `after` is the last number that it has seen; None, or a number that the channel has
    not come to, as of a database that was put back, begins with so many of the `newest` events that are wanted.

    `allowed` tells whether it may still read; it is asked away from the event loop. `record` makes of an event what the
    reader is told.
    """

    project_id: str
    channel: str
    after: int | None
    newest: int
    wanted: Filter
    allowed: Callable[[], bool]
    record: Callable[[Wire], Wire] = session_named

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the stream's parts until the reader is let go."""
        first = await self._first()
        # Whoever reads this line hears of all that happens from now on.
        yield f"retry: {RETRY}\n: connected\n\n".encode()
        async for events in self._history(first):
            yield await self._told(events)
        assert self.after is not None
        follower = Follower(self.after)
        leave = hub.join(self.project_id, self.channel, follower)
        looked = time.monotonic()
        try:
            while not follower.cut:
                events = await follower.next(HEARTBEAT_SECONDS)
                yield await self._told(events)
                if time.monotonic() - looked > RIGHTS_SECONDS:
                    looked = time.monotonic()
                    if not await watching.in_thread(self.allowed):
                        return
        finally:
            leave()

    async def _first(self) -> list[Wire]:
        last = await watching.newest(self.project_id, self.channel, limit=1)
        reached = last[-1]["seq"] if last else 0
        if self.after is not None and self.after <= reached:
            return []
        self.after = reached
        if not self.newest:
            return []
        return await watching.newest(
            self.project_id, self.channel, before=self.after + 1, limit=self.newest, narrow=self.wanted.narrowed
        )

    async def _history(self, first: list[Wire]) -> AsyncIterator[list[Wire]]:
        """Yield what was, at the reader's pace; what happens meanwhile belongs to it."""
        if first:
            yield first
        assert self.after is not None
        while events := await watching.read(self.project_id, self.channel, self.after):
            self.after = events[-1]["seq"]
            yield events

    async def _told(self, events: list[Wire]) -> bytes:
        passing = await self.wanted.passing(events)
        return b"".join(frame(event["seq"], self.record(event)) for event in passing) or b": alive\n\n"


def frame(seq: int, record: Wire) -> bytes:
    """Return what a reader is told of an event as a frame."""
    return b"id: %d\nevent: message\ndata: %s\n\n" % (seq, envelope.dumps(record))
