"""Redis 6.2 or newer, one server: pub/sub for what passes, Redis Streams for what is kept.

It comes back by itself for as long as the process lives. Everything lies under one prefix, so that OpenVibe may share a
server with others; what is kept is as durable as that server's settings (`appendonly yes`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from openvibe.bus import redis_frame, redis_streams, service
from openvibe.bus.address import without_password
from openvibe.bus.mailbox import Mailbox
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
from openvibe.bus.redis_channels import Channels
from openvibe.bus.redis_kv import Buckets
from openvibe.bus.redis_service import Requests
from openvibe.bus.redis_streams import RedisPull
from openvibe.errors import BusError
from openvibe.protocol import keys
from openvibe.protocol.streams import Stream

DEFAULT_URL = "redis://127.0.0.1:6379/0"
#: How long a command may take, in seconds.
COMMAND_TIMEOUT = 5.0
#: How long the first connection may take, in seconds.
CONNECT_TIMEOUT = 3.0
#: How many commands may be under way at a time; more of them wait for one of these.
CONNECTIONS = 8
#: How many readers may wait at a time.
READERS = 1024


class RedisBus:
    """The bus over one Redis server."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "openvibe",
        ack_wait: float = ACK_WAIT,
        duplicate_window: float = DUPLICATE_WINDOW,
    ) -> None:
        self._url = url
        self._prefix = prefix
        self._ack_wait = ack_wait
        self._duplicate_window = duplicate_window
        self._closed = False
        self._live: _Live | None = None

    @property
    def connected(self) -> bool:
        """See `Bus.connected`."""
        return self._live is not None and self._live.channels.connected

    @property
    def closed(self) -> bool:
        """See `Bus.closed`. Redis never refuses a connection for good, so only `close` does this."""
        return self._closed

    async def connect(self) -> None:
        """See `Bus.connect`."""
        live = _Live(self._url, self._prefix, self._answer)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await live.channels.open()
        except (RedisError, OSError, TimeoutError) as error:
            await live.close()
            reason = str(error) or "no answer"
            raise BusError(f"Redis does not answer at {without_password(self._url)}: {reason}") from error
        self._live, self._closed = live, False

    async def close(self) -> None:
        """See `Bus.close`."""
        live, self._live = self._live, None
        self._closed = True
        if live is not None:
            await live.close()

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """See `Bus.publish`. While the server is away messages are refused."""
        await self._send(subject, data, headers, must_keep=False)

    async def store(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """See `Bus.store`."""
        if not await self._send(subject, data, headers, must_keep=True):
            raise BusError(f"No stream keeps {subject!r}")

    async def store_all(self, messages: Sequence[Message]) -> Sequence[BusError | None]:
        """See `Bus.store_all`."""
        return await one_by_one(self, messages)

    async def subscribe(self, pattern: str, handler: Handler) -> Unsubscribe:
        """See `Bus.subscribe`."""
        live = self._opened
        mailbox: Mailbox[Message] = Mailbox(handler, about=pattern)

        def hear(channel: str, frame: bytes) -> None:
            subject = channel.removeprefix(f"{self._prefix}:")
            if matches(pattern, subject):
                mailbox.take(redis_frame.loads(frame, subject))

        wild = redis_frame.wild(pattern)
        channel = f"{self._prefix}:{redis_frame.glob(pattern) if wild else pattern}"
        end = await live.channels.hear(channel, hear, wild=wild)

        async def unsubscribe() -> None:
            mailbox.close()
            await end()

        return unsubscribe

    async def request(
        self, subject: str, data: bytes, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> Message:
        """See `Bus.request`."""
        _check_size(data, subject)
        with _translated(f"Redis did not take a request on {subject}"):
            return await self._present.requests.request(subject, data, timeout=timeout, headers=headers)

    async def serve(self, pattern: str, handler: ServeHandler, *, queue: str = "") -> Unsubscribe:
        """See `Bus.serve`."""
        live = self._present
        with _translated(f"Redis did not take a server of {pattern}"):
            end = await live.requests.serve(live.channels, pattern, handler, queue)

        async def unsubscribe() -> None:
            with contextlib.suppress(RedisError, OSError):
                await end()

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
        """See `Bus.ensure`. One that is there keeps what it holds, and from now on what it is said here to keep, too.

        Sites of several settings or versions share a server: none takes from a stream what another one wants of it.
        """
        live = self._present
        for stream in streams:
            with _translated(f"Stream {stream.name!r} cannot be made"):
                # Nobody else compares it with the table, as is done on NATS.
                await live.ensure(keys=[self._table], args=[stream.name, redis_streams.described(stream)])

    async def pull(self, stream: str, *, durable: str, patterns: Sequence[str]) -> RedisPull:
        """See `Bus.pull`. All readers of one durable name the same patterns."""
        live = self._present
        key = f"{self._prefix}:stream:{stream}"
        with _translated(f"Stream {stream!r} cannot be read as {durable!r}"):
            if not await live.client.execute_command("HEXISTS", self._table, stream):
                raise BusError(f"There is no stream {stream!r}")
            try:
                await live.client.execute_command("XGROUP", "CREATE", key, durable, "0", "MKSTREAM")
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        return RedisPull(
            live.client,
            live.reading,
            key,
            durable,
            patterns=tuple(patterns),
            ack_wait=self._ack_wait,
            translated=_translated,
        )

    async def put_kv(self, bucket: str, key: str, value: bytes, *, revision: int | None = None) -> int:
        """See `Bus.put_kv`."""
        _check_size(value, f"{bucket}/{key}")
        with _translated(f"{bucket}/{key} was not kept"):
            return await self._kept(bucket).put(bucket, key, value, revision=revision)

    async def get_kv(self, bucket: str, key: str) -> bytes | None:
        """See `Bus.get_kv`."""
        entry = await self.entry_kv(bucket, key)
        return entry.value if entry and not entry.deleted else None

    async def entry_kv(self, bucket: str, key: str) -> Entry | None:
        """See `Bus.entry_kv`."""
        with _translated(f"{bucket}/{key} cannot be read"):
            return await self._kept(bucket).entry(bucket, key)

    async def delete_kv(self, bucket: str, key: str, *, revision: int | None = None) -> int:
        """See `Bus.delete_kv`."""
        with _translated(f"{bucket}/{key} was not deleted"):
            return await self._kept(bucket).delete(bucket, key, revision=revision)

    async def keys_kv(self, bucket: str, prefix: str = "") -> Sequence[str]:
        """See `Bus.keys_kv`."""
        with _translated(f"Bucket {bucket!r} cannot be read"):
            return await self._kept(bucket).keys(bucket, prefix)

    async def history_kv(self, bucket: str, key: str) -> Sequence[Entry]:
        """See `Bus.history_kv`."""
        with _translated(f"{bucket}/{key} cannot be read"):
            return await self._kept(bucket).history(bucket, key)

    async def watch_kv(self, bucket: str, handler: WatchHandler) -> Unsubscribe:
        """See `Bus.watch_kv`. After an outage only the last revision of each key is heard."""
        with _translated(f"Bucket {bucket!r} cannot be watched"):
            return await self._kept(bucket).watch(bucket, handler)

    async def _send(self, subject: str, data: bytes, headers: Mapping[str, str] | None, *, must_keep: bool) -> int:
        _check_size(data, subject)
        frame = redis_frame.dumps(data, headers=headers)
        window = int(self._duplicate_window * 1000)
        arguments: list[Any] = [
            self._prefix,
            subject,
            frame,
            (headers or {}).get("Nats-Msg-Id", ""),
            window,
            int(must_keep),
        ]
        with _translated(f"Redis did not take a message on {subject}"):
            return int(await self._present.keep(keys=[self._table], args=arguments))

    async def _answer(self, reply: str, data: bytes, headers: Mapping[str, str]) -> None:
        await self.publish(reply, data, headers=headers)

    def _kept(self, bucket: str) -> Buckets:
        if not keys.bucket(bucket):
            raise BusError(f"A bucket cannot be called {bucket!r}; use letters, digits, '-' and '_'")
        return self._present.buckets

    @property
    def _table(self) -> str:
        return f"{self._prefix}:streams"

    @property
    def _opened(self) -> _Live:
        if self._live is None:
            raise BusError("The bus is not connected; await connect() first")
        return self._live

    @property
    def _present(self) -> _Live:
        if not self._opened.channels.connected:
            raise BusError("Redis is away")
        return self._opened


def bus(*, url: str = DEFAULT_URL, ack_wait: float = ACK_WAIT, duplicate_window: float = DUPLICATE_WINDOW) -> RedisBus:
    """Make the bus; seconds before a pulled message comes again, and for which a message id is remembered."""
    return RedisBus(url, ack_wait=ack_wait, duplicate_window=duplicate_window)


class _Live:
    """What exists from `connect` to `close`."""

    def __init__(
        self, url: str, prefix: str, publish: Callable[[str, bytes, Mapping[str, str]], Awaitable[None]]
    ) -> None:
        # Trying again is the caller's: it would hold up whoever waits behind.
        options = {"retry": Retry(NoBackoff(), 0), "protocol": 2, "socket_timeout": COMMAND_TIMEOUT}
        self.client: Any = Redis.from_pool(
            BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=COMMAND_TIMEOUT, **options)
        )
        # Readers wait, each on a connection of its own; so does whoever listens.
        self.reading = Redis.from_pool(ConnectionPool.from_url(url, max_connections=READERS, **options))
        self.keep = self.client.register_script(redis_streams.KEEP)
        self.ensure = self.client.register_script(redis_streams.ENSURE)
        self.requests = Requests(self.client, prefix, publish)
        self.channels = Channels(self.reading, self.requests.inbox, self.requests.hear)
        self.buckets = Buckets(self.client, self.channels, prefix)
        self.channels.on_return(self.requests.announce)

    async def close(self) -> None:
        await self.requests.tasks.cancel()
        if self.channels.connected:
            with contextlib.suppress(RedisError, OSError):
                await self.requests.leave()
        await self.channels.close()
        for client in (self.client, self.reading):
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()


def _check_size(data: bytes, subject: str) -> None:
    if len(data) > MOST_BYTES:
        raise BusError(f"A message of {len(data)} bytes is too large for {subject!r}")


@contextlib.contextmanager
def _translated(act: str) -> Iterator[None]:
    try:
        yield
    except (RedisError, TimeoutError, OSError) as error:
        raise BusError(f"{act}: {str(error) or type(error).__name__}") from error
