"""The bus inside one process, for tests and scripts. It keeps the contract of the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from openvibe.bus import MOST_BYTES, Handler, Message, Unsubscribe, matches
from openvibe.errors import BusError
from openvibe.protocol.streams import Stream


class MemoryBus:
    """Subjects, streams and buckets in dictionaries."""

    def __init__(self) -> None:
        self.connected = False
        self.closed = False
        self._handlers: list[tuple[str, Handler]] = []
        self._streams: dict[str, _Log] = {}
        self._pulls: dict[tuple[str, str], MemoryPull] = {}
        self._buckets: dict[tuple[str, str], tuple[int, bytes]] = {}

    async def connect(self) -> None:
        """See `Bus.connect`."""
        self.connected, self.closed = True, False

    async def close(self) -> None:
        """See `Bus.close`."""
        self.connected, self.closed = False, True
        self._handlers.clear()

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """See `Bus.publish`. Handlers run before it returns."""
        self._require_connection()
        if len(data) > MOST_BYTES:
            raise BusError(f"A message of {len(data)} bytes is too large for {subject!r}")
        message = Message(subject, data, dict(headers or {}))
        # A stream hears core messages too, as in NATS.
        for log in self._streams.values():
            log.take(message)
        for pattern, handler in list(self._handlers):
            if matches(pattern, subject):
                await handler(message)

    async def store(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """See `Bus.store`."""
        if not any(log.wants(subject) for log in self._streams.values()):
            raise BusError(f"No stream keeps {subject!r}")
        await self.publish(subject, data, headers=headers)

    async def subscribe(self, pattern: str, handler: Handler) -> Unsubscribe:
        """See `Bus.subscribe`."""
        self._require_connection()
        entry = (pattern, handler)
        self._handlers.append(entry)

        async def unsubscribe() -> None:
            if entry in self._handlers:
                self._handlers.remove(entry)

        return unsubscribe

    async def ensure(self, streams: Sequence[Stream]) -> None:
        """See `Bus.ensure`."""
        self._require_connection()
        for stream in streams:
            self._streams.setdefault(stream.name, _Log(stream.subjects))

    async def pull(self, stream: str, *, durable: str, patterns: Sequence[str]) -> MemoryPull:
        """See `Bus.pull`."""
        self._require_connection()
        if stream not in self._streams:
            raise BusError(f"There is no stream {stream!r}")
        return self._pulls.setdefault((stream, durable), MemoryPull(self._streams[stream], tuple(patterns)))

    async def put_kv(self, bucket: str, key: str, value: bytes) -> int:
        """See `Bus.put_kv`."""
        self._require_connection()
        revision = self._buckets.get((bucket, key), (0, b""))[0] + 1
        self._buckets[bucket, key] = (revision, value)
        return revision

    async def get_kv(self, bucket: str, key: str) -> bytes | None:
        """See `Bus.get_kv`."""
        self._require_connection()
        entry = self._buckets.get((bucket, key))
        return entry[1] if entry else None

    def _require_connection(self) -> None:
        if not self.connected:
            raise BusError("The memory bus is not connected; await connect() first")


class _Log:
    """One stream's messages, in order, each id once."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._ids: set[str] = set()
        self.messages: list[Message] = []
        self.grown = asyncio.Event()

    def wants(self, subject: str) -> bool:
        return any(matches(pattern, subject) for pattern in self._patterns)

    def take(self, message: Message) -> None:
        name = message.headers.get("Nats-Msg-Id")
        if not self.wants(message.subject) or name in self._ids:
            return
        if name:
            self._ids.add(name)
        self.messages.append(message)
        self.grown.set()


class MemoryPull:
    """A durable reader of one stream; what was refused comes again."""

    def __init__(self, log: _Log, patterns: Sequence[str]) -> None:
        self._log = log
        self._patterns = patterns
        self._next = 0
        self._again: list[Message] = []

    async def fetch(self, most: int, *, timeout: float) -> Sequence[Message]:
        """See `Pull.fetch`."""
        try:
            async with asyncio.timeout(timeout):
                # What grew may be for others, or another reader of this name was quicker.
                while not (found := self._take(most)):
                    self._log.grown.clear()
                    await self._log.grown.wait()
        except TimeoutError:
            return []
        return found

    async def close(self) -> None:
        """See `Pull.close`."""

    def _take(self, most: int) -> list[Message]:
        found, self._again = self._again[:most], self._again[most:]
        while len(found) < most and self._next < len(self._log.messages):
            message = self._log.messages[self._next]
            self._next += 1
            if any(matches(pattern, message.subject) for pattern in self._patterns):
                found.append(message)
        return [self._pulled(message) for message in found]

    def _pulled(self, message: Message) -> Message:
        async def acknowledge() -> None:
            return None

        async def refuse() -> None:
            self._again.append(message)
            self._log.grown.set()

        return Message(message.subject, message.data, message.headers, "", acknowledge, refuse)
