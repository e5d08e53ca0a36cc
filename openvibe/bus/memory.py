"""The bus inside one process, for tests and scripts. It keeps the contract of the real ones."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from openvibe.bus import service
from openvibe.bus.mailbox import Mailbox
from openvibe.bus.memory_kv import Bucket
from openvibe.bus.memory_streams import Durable, Log, MemoryPull
from openvibe.bus.protocol import (
    ACK_WAIT,
    DUPLICATE_WINDOW,
    MOST_BYTES,
    Entry,
    Handler,
    Message,
    ServeHandler,
    Unsubscribe,
    WatchHandler,
    matches,
    one_by_one,
)
from openvibe.errors import BusError, NoResponders, RequestTimeout
from openvibe.protocol import keys
from openvibe.protocol.streams import Stream

#: How long publishing waits for the handlers, in seconds; one that is quick has run before `publish` returns.
PATIENCE = 0.1
#: What the subjects begin with on which answers are awaited.
_INBOX = "_INBOX."


@dataclass(eq=False, frozen=True)
class _Server:
    pattern: str
    queue: str
    handler: ServeHandler


class MemoryBus:
    """Subjects, streams, buckets and services in dictionaries. What is kept outlives `close`, and ends with it."""

    def __init__(self, *, ack_wait: float = ACK_WAIT, duplicate_window: float = DUPLICATE_WINDOW) -> None:
        self.connected = False
        self.closed = False
        self._ack_wait = ack_wait
        self._duplicate_window = duplicate_window
        self._handlers: list[tuple[str, Mailbox[Message]]] = []
        self._servers: list[_Server] = []
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._serving = service.Tasks()
        self._streams: dict[str, Log] = {}
        self._durables: dict[tuple[str, str], Durable] = {}
        self._buckets: dict[str, Bucket] = defaultdict(Bucket)

    async def connect(self) -> None:
        """See `Bus.connect`."""
        self.connected, self.closed = True, False

    async def close(self) -> None:
        """See `Bus.close`."""
        self.connected, self.closed = False, True
        for bucket in self._buckets.values():
            bucket.watchers.clear()
        self._handlers.clear()
        self._servers.clear()
        await self._serving.cancel()

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """See `Bus.publish`. It waits for the handlers, but not long for a slow one."""
        self._require_connection(len(data))
        message = Message(subject, data, dict(headers or {}))
        if (answered := self._answers.get(subject)) is not None and not answered.done():
            answered.set_result(message)
        # A stream hears core messages too, as in NATS.
        for log in self._streams.values():
            log.take(message)
        await _patiently(self._deliver(message))

    async def store(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """See `Bus.store`."""
        self._require_connection()
        if not any(log.wants(subject) for log in self._streams.values()):
            raise BusError(f"No stream keeps {subject!r}")
        await self.publish(subject, data, headers=headers)

    async def store_all(self, messages: Sequence[Message]) -> Sequence[BusError | None]:
        """See `Bus.store_all`."""
        return await one_by_one(self, messages)

    async def subscribe(self, pattern: str, handler: Handler) -> Unsubscribe:
        """See `Bus.subscribe`."""
        self._require_connection()
        entry = (pattern, Mailbox(handler, about=pattern))
        self._handlers.append(entry)

        async def unsubscribe() -> None:
            entry[1].close()
            if entry in self._handlers:
                self._handlers.remove(entry)

        return unsubscribe

    async def request(
        self, subject: str, data: bytes, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> Message:
        """See `Bus.request`."""
        self._require_connection(len(data))
        inbox = f"{_INBOX}{secrets.token_hex(8)}"
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[inbox] = answer
        try:
            message = Message(subject, data, dict(headers or {}), inbox)
            servers = self._chosen(subject)
            for server in servers:
                self._serving.start(self._answer(server, message))
            heard = [mailbox for pattern, mailbox in self._handlers if matches(pattern, subject)]
            if not servers and not heard:
                raise NoResponders(f"Nobody serves {subject!r}")
            self._deliver(message)
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError as error:
            raise RequestTimeout(f"Nobody answered on {subject!r} within {timeout} s") from error
        finally:
            del self._answers[inbox]

    async def serve(self, pattern: str, handler: ServeHandler, *, queue: str = "") -> Unsubscribe:
        """See `Bus.serve`."""
        self._require_connection()
        server = _Server(pattern, queue, handler)
        self._servers.append(server)

        async def unsubscribe() -> None:
            if server in self._servers:
                self._servers.remove(server)

        return unsubscribe

    async def serve_service(
        self, name: str, *, version: str, description: str = "", endpoints: Mapping[str, ServeHandler]
    ) -> Unsubscribe:
        """See `Bus.serve_service`; nobody can discover it."""
        service.check(name, version)
        return service.together(
            [await self.serve(subject, each, queue=service.SERVICE_QUEUE) for subject, each in endpoints.items()]
        )

    async def ensure(self, streams: Sequence[Stream]) -> None:
        """See `Bus.ensure`."""
        self._require_connection()
        for stream in streams:
            self._streams.setdefault(stream.name, Log(stream, self._duplicate_window))

    async def pull(self, stream: str, *, durable: str, patterns: Sequence[str]) -> MemoryPull:
        """See `Bus.pull`."""
        self._require_connection()
        if stream not in self._streams:
            raise BusError(f"There is no stream {stream!r}")
        reader = self._durables.setdefault((stream, durable), Durable(self._streams[stream], self._ack_wait))
        return MemoryPull(reader, tuple(patterns), self._require_connection)

    async def put_kv(self, bucket: str, key: str, value: bytes, *, revision: int | None = None) -> int:
        """See `Bus.put_kv`."""
        self._require_connection(len(value))
        kept = self._bucket(bucket)
        kept.expect(key, revision)
        return await _told(kept, kept.change(key, value))

    async def get_kv(self, bucket: str, key: str) -> bytes | None:
        """See `Bus.get_kv`."""
        entry = await self.entry_kv(bucket, key)
        return entry.value if entry and not entry.deleted else None

    async def entry_kv(self, bucket: str, key: str) -> Entry | None:
        """See `Bus.entry_kv`."""
        return self._bucket(bucket).last(key)

    async def delete_kv(self, bucket: str, key: str, *, revision: int | None = None) -> int:
        """See `Bus.delete_kv`."""
        kept = self._bucket(bucket)
        kept.expect(key, revision)
        last = kept.last(key)
        return await _told(kept, kept.change(key, b"", deleted=True)) if last and not last.deleted else 0

    async def keys_kv(self, bucket: str, prefix: str = "") -> Sequence[str]:
        """See `Bus.keys_kv`."""
        return [key for key in self._bucket(bucket).living() if key.startswith(prefix)]

    async def history_kv(self, bucket: str, key: str) -> Sequence[Entry]:
        """See `Bus.history_kv`."""
        return list(self._bucket(bucket).histories.get(key, ()))

    async def watch_kv(self, bucket: str, handler: WatchHandler) -> Unsubscribe:
        """See `Bus.watch_kv`."""
        kept = self._bucket(bucket)
        watcher = kept.watch(handler, about=f"Bucket {bucket}")

        async def unsubscribe() -> None:
            watcher.close()
            if watcher in kept.watchers:
                kept.watchers.remove(watcher)

        return unsubscribe

    def _deliver(self, message: Message) -> list[asyncio.Task[None] | None]:
        return [mailbox.take(message) for pattern, mailbox in self._handlers if matches(pattern, message.subject)]

    def _chosen(self, subject: str) -> list[_Server]:
        """Return those who get a request: one of each queue, and everybody who has none."""
        fitting = sorted((each for each in self._servers if matches(each.pattern, subject)), key=lambda one: one.queue)
        queues = [(queue, list(members)) for queue, members in itertools.groupby(fitting, lambda one: one.queue)]
        return [one for queue, members in queues for one in (random.sample(members, 1) if queue else members)]

    async def _answer(self, server: _Server, message: Message) -> None:
        data, headers = await service.answer(server.handler, message)
        await self.publish(message.reply, data, headers=headers)

    def _bucket(self, name: str) -> Bucket:
        self._require_connection()
        if not keys.bucket(name):
            raise BusError(f"A bucket cannot be called {name!r}; use letters, digits, '-' and '_'")
        return self._buckets[name]

    def _require_connection(self, size: int = 0) -> None:
        if not self.connected:
            raise BusError("The memory bus is not connected; await connect() first")
        if size > MOST_BYTES:
            raise BusError(f"A message of {size} bytes is too large")


def bus(*, url: str = "", ack_wait: float = ACK_WAIT, duplicate_window: float = DUPLICATE_WINDOW) -> MemoryBus:
    """Make the bus; `url` is not looked at."""
    return MemoryBus(ack_wait=ack_wait, duplicate_window=duplicate_window)


async def _told(bucket: Bucket, entry: Entry) -> int:
    await _patiently([watcher.take(entry) for watcher in bucket.watchers])
    return entry.revision


async def _patiently(tasks: Iterable[asyncio.Task[None] | None]) -> None:
    started = [task for task in tasks if task is not None]
    if started:
        await asyncio.wait(started, timeout=PATIENCE)
