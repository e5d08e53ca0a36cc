"""Streams inside one process: what is kept, for how long, and who has read how far."""

from __future__ import annotations

import asyncio
import bisect
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from openvibe.bus.protocol import Message, matches
from openvibe.protocol.streams import Stream


@dataclass
class _Kept:
    number: int
    message: Message
    at: float


@dataclass
class Log:
    """One stream's messages, in order, each id once within the window."""

    stream: Stream
    duplicate_window: float
    kept: deque[_Kept] = field(default_factory=deque)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    began: int = field(default_factory=time.time_ns)
    _ids: dict[str, float] = field(default_factory=dict)
    _bytes: int = 0
    _last: int = 0

    def wants(self, subject: str) -> bool:
        """Tell whether this stream keeps messages on the subject."""
        return any(matches(pattern, subject) for pattern in self.stream.subjects)

    def take(self, message: Message) -> None:
        """Keep a message, unless it is somebody else's or known."""
        if not self.wants(message.subject) or self._known(message.headers.get("Nats-Msg-Id")):
            return
        self._last += 1
        self.kept.append(_Kept(self._last, message, time.monotonic()))
        self._bytes += len(message.data)
        self._forget()
        self.grown.set()

    def after(self, number: int) -> Sequence[_Kept]:
        """Return what was kept after the message of that number."""
        self._forget()
        first = bisect.bisect_right(self.kept, number, key=lambda kept: kept.number)
        return [self.kept[place] for place in range(first, len(self.kept))]

    def _known(self, name: str | None) -> bool:
        now = time.monotonic()
        # In order of arrival, hence of age.
        while self._ids and (oldest := next(iter(self._ids))) and now - self._ids[oldest] > self.duplicate_window:
            del self._ids[oldest]
        if not name or name in self._ids:
            return bool(name)
        self._ids[name] = now
        return False

    def _forget(self) -> None:
        oldest = time.monotonic() - self.stream.max_age.total_seconds()
        bound = self.stream.max_bytes if self.stream.max_bytes > 0 else float("inf")
        while self.kept and (self.kept[0].at < oldest or self._bytes > bound):
            self._bytes -= len(self.kept.popleft().message.data)


class Durable:
    """How far the readers of one name are, and what they were given and have not acknowledged."""

    def __init__(self, log: Log, ack_wait: float) -> None:
        self.log = log
        self._ack_wait = ack_wait
        self._read = 0
        self._given: dict[int, tuple[float, int, Message]] = {}

    def take(self, most: int, patterns: Sequence[str]) -> list[Message]:
        """Hand out messages: first those that come again, the oldest first."""
        now = time.monotonic()
        due = sorted(number for number, (at, _, _) in self._given.items() if at <= now)[:most]
        found = [self._handed(number, self._given[number][2]) for number in due]
        for kept in self.log.after(self._read):
            if len(found) >= most:
                break
            self._read = kept.number
            if any(matches(pattern, kept.message.subject) for pattern in patterns):
                found.append(self._handed(kept.number, kept.message))
        return found

    def next_due(self) -> float | None:
        """Return when something comes again, by the monotonic clock."""
        return min((at for at, _, _ in self._given.values()), default=None)

    def _handed(self, number: int, message: Message) -> Message:
        deliveries = self._given[number][1] + 1 if number in self._given else 1
        self._given[number] = (time.monotonic() + self._ack_wait, deliveries, message)

        async def acknowledge() -> None:
            self._given.pop(number, None)

        async def refuse(delay: float = 0.0) -> None:
            if number in self._given:
                self._given[number] = (time.monotonic() + delay, deliveries, message)
                self.log.grown.set()

        return Message(
            message.subject, message.data, message.headers, "", acknowledge, refuse, deliveries,
            f"{self.log.stream.name}:{number}:{self.log.began}",
        )  # fmt: skip


class MemoryPull:
    """A reader of one durable."""

    def __init__(self, durable: Durable, patterns: Sequence[str], require_connection: Callable[[], None]) -> None:
        self._durable = durable
        self._patterns = patterns
        self._require_connection = require_connection

    async def fetch(self, most: int, *, timeout: float) -> Sequence[Message]:
        """See `Pull.fetch`."""
        self._require_connection()
        deadline = time.monotonic() + timeout
        # What grew may be for others, or another reader of this name was quicker.
        while not (found := self._durable.take(most, self._patterns)):
            until = min(deadline, self._durable.next_due() or deadline)
            if time.monotonic() >= deadline:
                return []
            await self._grown(until - time.monotonic())
        return found

    async def paused_until(self) -> str:
        """See `Pull.paused_until`; here nobody can."""
        return ""

    async def kept_since(self) -> datetime | None:
        """See `Pull.kept_since`. Each process has streams of its own, and knows nothing of those of others."""
        return None

    async def close(self) -> None:
        """See `Pull.close`."""

    async def _grown(self, seconds: float) -> None:
        grown = self._durable.log.grown
        grown.clear()
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await grown.wait()
        except TimeoutError:
            return
