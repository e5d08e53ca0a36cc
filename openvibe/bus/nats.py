"""NATS with JetStream. One connection a process; it comes back by itself for as long as the process lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NATSError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, NotFoundError

from openvibe.bus import Handler, Message, Unsubscribe
from openvibe.errors import BusError
from openvibe.protocol.streams import Stream

logger = logging.getLogger(__name__)

#: How long JetStream may take to say that it keeps a message, in seconds.
ACK_TIMEOUT = 5.0
#: How long a pulled message may stay unacknowledged before another replica gets it, in seconds.
ACK_WAIT = 30.0
RECONNECT_PAUSE = 0.25
#: How often a silent server is asked whether it is there, in seconds; two unanswered questions mean that it is not.
PING_PAUSE = 2
#: How long a server may take to answer that it knows of a subscription, in seconds.
FLUSH_TIMEOUT = 2
#: How long the first connection may take, in seconds.
CONNECT_TIMEOUT = 3.0


class NatsBus:
    """The bus over one NATS connection. Its coroutines belong to the event loop that connected it."""

    def __init__(self, url: str, *, name: str = "openvibe") -> None:
        self._url = url
        self._name = name
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None

    @property
    def connected(self) -> bool:
        """See `Bus.connected`."""
        return self._client is not None and self._client.is_connected

    @property
    def closed(self) -> bool:
        """See `Bus.closed`. The client gives up, for good, when the server refuses it by name."""
        return self._client is not None and self._client.is_closed

    async def connect(self) -> None:
        """See `Bus.connect`."""
        try:
            # The client would try the first connection for ever; whoever asked wants to know.
            self._client = await asyncio.wait_for(self._dialled(), CONNECT_TIMEOUT)
        except (OSError, NATSError, TimeoutError) as error:
            reason = str(error) or "no answer"
            raise BusError(f"NATS does not answer at {_without_password(self._url)}: {reason}") from error
        self._jetstream = self._client.jetstream(timeout=ACK_TIMEOUT)

    async def _dialled(self) -> Client:
        client = _Client()
        await client.connect(
            self._url,
            name=self._name,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_PAUSE,  # type: ignore[arg-type]  # it sleeps for fractions as well
            connect_timeout=5,
            ping_interval=PING_PAUSE,
            max_outstanding_pings=2,
            error_cb=_log_error,
        )
        return client

    async def close(self) -> None:
        """See `Bus.close`."""
        if self._client is not None and not self._client.is_closed:
            # What waits for a server that is away is lost with the connection.
            with contextlib.suppress(OSError):
                await self._client.close()

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """See `Bus.publish`. While the server is away messages wait in memory, up to the client's bound."""
        with _translated(f"NATS did not take a message on {subject}"):
            await self._live.publish(subject, data, headers=dict(headers) if headers else None)

    async def store(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """See `Bus.store`."""
        with _translated(f"No stream kept a message on {subject}"):
            await self._stream.publish(subject, data, headers=dict(headers) if headers else None)

    async def subscribe(self, pattern: str, handler: Handler) -> Unsubscribe:
        """See `Bus.subscribe`."""

        async def receive(message: Msg) -> None:
            await handler(_core(message))

        with _translated(f"NATS did not take a subscription to {pattern}"):
            subscription = await self._live.subscribe(pattern, cb=receive)
        if self.connected:
            # Only an answer shows that the server knows of it; what is said before that would be missed. The client's
            # first question may overtake the subscription, which still waits to be written; the second cannot.
            with contextlib.suppress(NATSError, TimeoutError):
                await self._live.flush(FLUSH_TIMEOUT)
                await self._live.flush(FLUSH_TIMEOUT)

        async def unsubscribe() -> None:
            # Whoever is unsubscribed already, or with a connection that is closed, has what was asked for.
            with contextlib.suppress(NATSError):
                await subscription.unsubscribe()

        return unsubscribe

    async def ensure(self, streams: Sequence[Stream]) -> None:
        """See `Bus.ensure`."""
        for stream in streams:
            with _translated(f"Stream {stream.name!r} cannot be made"):
                await self._ensure(stream)

    async def _ensure(self, stream: Stream) -> None:
        try:
            await self._stream.stream_info(stream.name)
        except NotFoundError:
            await self._stream.add_stream(
                StreamConfig(
                    name=stream.name,
                    subjects=list(stream.subjects),
                    max_age=stream.max_age.total_seconds(),
                    max_bytes=stream.max_bytes,
                )
            )

    async def pull(self, stream: str, *, durable: str, patterns: Sequence[str]) -> NatsPull:
        """See `Bus.pull`."""
        config = ConsumerConfig(
            durable_name=durable,
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.ALL,
            ack_wait=ACK_WAIT,
            filter_subjects=list(patterns),
        )
        with _translated(f"Stream {stream!r} cannot be read as {durable!r}"):
            await self._stream.add_consumer(stream, config)
            subscription = await self._stream.pull_subscribe_bind(consumer=durable, stream=stream)
        return NatsPull(subscription)

    async def put_kv(self, bucket: str, key: str, value: bytes) -> int:
        """See `Bus.put_kv`; the bucket is made when it is missing."""
        with _translated(f"{bucket}/{key} was not kept"):
            try:
                store = await self._stream.key_value(bucket)
            except BucketNotFoundError:
                store = await self._stream.create_key_value(bucket=bucket, history=16)
            return await store.put(key, value)

    async def get_kv(self, bucket: str, key: str) -> bytes | None:
        """See `Bus.get_kv`."""
        with _translated(f"{bucket}/{key} cannot be read"):
            try:
                return (await (await self._stream.key_value(bucket)).get(key)).value or b""
            except (BucketNotFoundError, KeyNotFoundError):
                return None

    @property
    def _live(self) -> Client:
        if self._client is None:
            raise BusError("The bus is not connected; await connect() first")
        return self._client

    @property
    def _stream(self) -> JetStreamContext:
        if self._jetstream is None:
            raise BusError("The bus is not connected; await connect() first")
        if not self.connected:
            # Waiting would only end in the same error, and hold up whoever waits behind this one.
            raise BusError("NATS is away")
        return self._jetstream


class _Client(Client):
    """The library's client, deaf to nobody: its own one stops reading at a subject that is no UTF-8."""

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        subject, reply = (text.decode(errors="replace").encode() for text in (subject, reply))
        message: Msg = super()._build_message(sid, subject, reply, data, headers)
        return message


class NatsPull:
    """A durable JetStream consumer."""

    def __init__(self, subscription: JetStreamContext.PullSubscription) -> None:
        self._subscription = subscription

    async def fetch(self, most: int, *, timeout: float) -> Sequence[Message]:
        """See `Pull.fetch`."""
        with _translated("The stream cannot be read"):
            try:
                found = await self._subscription.fetch(most, timeout=timeout)
            except TimeoutError:
                return []
        return [_pulled(message) for message in found]

    async def close(self) -> None:
        """See `Pull.close`."""
        # A connection that is gone has forgotten the reader already.
        with contextlib.suppress(NATSError):
            await self._subscription.unsubscribe()


@contextlib.contextmanager
def _translated(act: str) -> Iterator[None]:
    try:
        yield
    except (NATSError, TimeoutError, OSError) as error:
        raise BusError(f"{act}: {str(error) or type(error).__name__}") from error


def _core(message: Msg) -> Message:
    return Message(message.subject, message.data, message.headers or {}, message.reply)


def _pulled(message: Msg) -> Message:
    return Message(message.subject, message.data, message.headers or {}, "", message.ack, message.nak)


async def _log_error(error: Exception) -> None:
    logger.info("NATS: %s", error or type(error).__name__)


def _without_password(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
