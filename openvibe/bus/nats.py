"""NATS with JetStream. One connection a process; it comes back by itself for as long as the process lives."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Mapping, Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NATSError
from nats.errors import NoRespondersError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig, StreamSource
from nats.js.errors import NotFoundError

from openvibe import cancelling
from openvibe.bus import nats_service, service
from openvibe.bus.nats_access import Access, NatsClient
from openvibe.bus.nats_kv import Buckets
from openvibe.bus.nats_pull import NatsPull, translated
from openvibe.bus.nats_service import received
from openvibe.bus.nats_store import Batches
from openvibe.bus.protocol import (
    ACK_WAIT,
    DUPLICATE_WINDOW,
    Entry,
    Handler,
    Message,
    ServeHandler,
    Unsubscribe,
    WatchHandler,
)
from openvibe.errors import BusError, NoResponders, RequestTimeout, SetupError
from openvibe.protocol import keys
from openvibe.protocol.streams import Stream

logger = logging.getLogger(__name__)

#: How long JetStream may take to say that it keeps a message, in seconds.
ACK_TIMEOUT = 5.0
DEFAULT_URL = "nats://127.0.0.1:4222"
RECONNECT_PAUSE = 0.25
#: How often a silent server is asked whether it is there, in seconds; two unanswered questions mean that it is not.
PING_PAUSE = 2
#: How long a server may take to answer that it knows of a subscription, in seconds.
FLUSH_TIMEOUT = 2
#: How long the first connection may take, in seconds.
CONNECT_TIMEOUT = 3.0
#: How many messages a durable reader may hold that it has not acknowledged.
INFLIGHT = 1000


class NatsBus:
    """The bus over one NATS connection. Its coroutines belong to the event loop that connected it."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "openvibe",
        ack_wait: float = ACK_WAIT,
        duplicate_window: float = DUPLICATE_WINDOW,
        replicas: int = 1,
        inflight: int = INFLIGHT,
        patience: float = CONNECT_TIMEOUT,
        credentials: str = "",
        certificates: str = "",
    ) -> None:
        self._inflight = inflight
        self._patience = patience
        self._access = Access(url, credentials, certificates)
        self._name = name
        self._replicas = replicas
        self._ack_wait = ack_wait
        self._duplicate_window = duplicate_window
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._buckets: Buckets | None = None
        self._batches: Batches | None = None
        self._serving = service.Tasks()
        self._served: list[Unsubscribe] = []

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
        faults: list[Exception] = []
        try:
            # The client would try the first connection for ever; whoever asked wants to know.
            self._client = await cancelling.within(self._patience, self._dialled(faults))
        except SetupError as error:
            raise BusError(f"NATS cannot be reached at {self._access.shown}: {error}") from error
        except Exception as error:
            # The library stumbles in any way over a server of another kind.
            reason = self._access.explained(faults[-1] if faults else error)
            raise BusError(f"NATS does not answer at {self._access.shown}: {reason}") from error
        self._jetstream = self._client.jetstream(timeout=ACK_TIMEOUT)
        self._buckets = Buckets(self._jetstream, self._replicas, emptied=not self._access.credentials)
        self._batches = Batches(self._client, ACK_TIMEOUT)
        with translated(f"NATS does not answer at {self._access.shown}"):
            await self._batches.open()

    async def _dialled(self, faults: list[Exception]) -> Client:
        async def fault(error: Exception) -> None:
            # A refusal tells more than the broken pipe that follows from it.
            if not faults or isinstance(error, (NATSError, ssl.SSLError)):
                faults[:] = [error]
            await _log_error(error)

        client = NatsClient()
        try:
            await client.connect(
                **self._access.options(),
                name=self._name,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_PAUSE,  # type: ignore[arg-type]  # it sleeps for fractions as well
                connect_timeout=5,
                ping_interval=PING_PAUSE,
                max_outstanding_pings=2,
                error_cb=fault,
            )
        except BaseException:
            # It does not hang up by itself, also not when nobody waits any longer.
            with contextlib.suppress(Exception):
                await client.close()
            raise
        return client

    async def close(self) -> None:
        """See `Bus.close`."""
        await self._serve_no_more()
        if self._buckets is not None:
            await self._buckets.close()
        if self._client is not None and not self._client.is_closed:
            # What waits for a server that is away is lost with the connection.
            with contextlib.suppress(OSError):
                await self._client.close()

    async def _serve_no_more(self) -> None:
        served, self._served = self._served, []
        if self.connected:
            for end in served:
                await end()
            # Else the server goes on handing requests to a connection that is about to end.
            with contextlib.suppress(NATSError, TimeoutError):
                await self._live.flush(FLUSH_TIMEOUT)
        await self._serving.cancel()

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """See `Bus.publish`. While the server is away messages wait in memory, up to the client's bound."""
        with translated(f"NATS did not take a message on {subject}"):
            await self._live.publish(subject, data, headers=dict(headers) if headers else None)

    async def store(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """See `Bus.store`."""
        with translated(f"No stream kept a message on {subject}"):
            await self._stream.publish(subject, data, headers=dict(headers) if headers else None)

    async def store_all(self, messages: Sequence[Message]) -> Sequence[BusError | None]:
        """See `Bus.store_all`."""
        if self._batches is None or not self.connected:
            raise BusError("NATS is away" if self._batches else "The bus is not connected; await connect() first")
        return await self._batches.store(messages)

    async def subscribe(self, pattern: str, handler: Handler) -> Unsubscribe:
        """See `Bus.subscribe`."""

        async def receive(message: Msg) -> None:
            await handler(received(message))

        with translated(f"NATS did not take a subscription to {pattern}"):
            subscription = await self._live.subscribe(pattern, cb=receive)
        await self._heard()

        async def unsubscribe() -> None:
            # Whoever is unsubscribed already, or with a connection that is closed, has what was asked for.
            with contextlib.suppress(NATSError):
                await subscription.unsubscribe()

        return unsubscribe

    async def ensure(self, streams: Sequence[Stream]) -> None:
        """See `Bus.ensure`."""
        for stream in streams:
            with translated(f"Stream {stream.name!r} cannot be made"):
                await self._ensure(stream)

    async def _ensure(self, stream: Stream) -> None:
        try:
            await self._stream.stream_info(stream.name)
        except NotFoundError:
            await self._stream.add_stream(
                StreamConfig(
                    name=stream.name,
                    subjects=list(stream.subjects) or None,
                    sources=[StreamSource(one.stream, filter_subject=one.pattern) for one in stream.sources] or None,
                    max_age=stream.max_age.total_seconds(),
                    max_bytes=stream.max_bytes,
                    max_consumers=stream.max_consumers,
                    num_replicas=stream.replicas,
                    # The server refuses a window that is longer than what it covers.
                    duplicate_window=min(self._duplicate_window, stream.max_age.total_seconds()),
                )
            )

    async def pull(self, stream: str, *, durable: str, patterns: Sequence[str]) -> NatsPull:
        """See `Bus.pull`."""
        config = ConsumerConfig(
            durable_name=durable,
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.ALL,
            ack_wait=self._ack_wait,
            max_ack_pending=self._inflight,
            filter_subjects=list(patterns),
        )
        with translated(f"Stream {stream!r} cannot be read as {durable!r}"):
            await self._stream.add_consumer(stream, config)
            pull = NatsPull(self._live, stream, durable)
            await pull.open()
        return pull

    async def request(
        self, subject: str, data: bytes, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> Message:
        """See `Bus.request`."""
        try:
            with translated(f"NATS did not take a request on {subject}", but=(NoRespondersError, TimeoutError)):
                return received(
                    await self._present.request(subject, data, timeout, headers=dict(headers or {}) or None)
                )
        except NoRespondersError as error:
            raise NoResponders(f"Nobody serves {subject!r}") from error
        except TimeoutError as error:
            raise RequestTimeout(f"Nobody answered on {subject!r} within {timeout} s") from error

    async def serve(self, pattern: str, handler: ServeHandler, *, queue: str = "") -> Unsubscribe:
        """See `Bus.serve`."""
        with translated(f"NATS did not take a subscription to {pattern}"):
            ending = await nats_service.serve(self._live, pattern, handler, queue, self._serving)
        await self._heard()
        self._served.append(ending)
        return ending

    async def serve_service(
        self, name: str, *, version: str, description: str = "", endpoints: Mapping[str, ServeHandler]
    ) -> Unsubscribe:
        """See `Bus.serve_service`."""
        service.check(name, version)
        with translated(f"NATS did not take service {name!r}"):
            ending = await nats_service.serve_service(
                self._present,
                name,
                version=version,
                description=description,
                endpoints=endpoints,
                tasks=self._serving,
            )
        await self._heard()
        self._served.append(ending)
        return ending

    async def put_kv(self, bucket: str, key: str, value: bytes, *, revision: int | None = None) -> int:
        """See `Bus.put_kv`."""
        with translated(f"{bucket}/{key} was not kept"):
            return await self._kept(bucket).put(bucket, key, value, revision=revision)

    async def get_kv(self, bucket: str, key: str) -> bytes | None:
        """See `Bus.get_kv`."""
        entry = await self.entry_kv(bucket, key)
        return entry.value if entry and not entry.deleted else None

    async def entry_kv(self, bucket: str, key: str) -> Entry | None:
        """See `Bus.entry_kv`."""
        with translated(f"{bucket}/{key} cannot be read"):
            return await self._kept(bucket).entry(bucket, key)

    async def delete_kv(self, bucket: str, key: str, *, revision: int | None = None) -> int:
        """See `Bus.delete_kv`."""
        with translated(f"{bucket}/{key} was not deleted"):
            return await self._kept(bucket).delete(bucket, key, revision=revision)

    async def keys_kv(self, bucket: str, prefix: str = "") -> Sequence[str]:
        """See `Bus.keys_kv`."""
        with translated(f"Bucket {bucket!r} cannot be read"):
            return await self._kept(bucket).keys(bucket, prefix)

    async def history_kv(self, bucket: str, key: str) -> Sequence[Entry]:
        """See `Bus.history_kv`."""
        with translated(f"{bucket}/{key} cannot be read"):
            return await self._kept(bucket).history(bucket, key)

    async def watch_kv(self, bucket: str, handler: WatchHandler) -> Unsubscribe:
        """See `Bus.watch_kv`."""
        with translated(f"Bucket {bucket!r} cannot be watched"):
            return await self._kept(bucket).watch(bucket, handler)

    def _kept(self, bucket: str) -> Buckets:
        if not keys.bucket(bucket):
            raise BusError(f"A bucket cannot be called {bucket!r}; use letters, digits, '-' and '_'")
        if self._buckets is None or not self.connected:
            raise BusError("NATS is away" if self._buckets else "The bus is not connected; await connect() first")
        return self._buckets

    async def _heard(self) -> None:
        """Wait until the server knows of the last subscription; what is said before that would be missed."""
        if self.connected:
            # Only an answer shows it. The client's first question may overtake the subscription, which still waits to
            # be written; the second cannot.
            with contextlib.suppress(NATSError, TimeoutError):
                await self._live.flush(FLUSH_TIMEOUT)
                await self._live.flush(FLUSH_TIMEOUT)

    @property
    def _live(self) -> Client:
        if self._client is None:
            raise BusError("The bus is not connected; await connect() first")
        return self._client

    @property
    def _present(self) -> Client:
        if self._client is not None and not self.connected:
            # Waiting would only end in the same error, and hold up whoever waits behind this one.
            raise BusError("NATS is away")
        return self._live

    @property
    def _stream(self) -> JetStreamContext:
        if self._jetstream is None:
            raise BusError("The bus is not connected; await connect() first")
        if not self.connected:
            raise BusError("NATS is away")
        return self._jetstream


def bus(
    *,
    url: str = DEFAULT_URL,
    ack_wait: float = ACK_WAIT,
    duplicate_window: float = DUPLICATE_WINDOW,
    replicas: int = 1,
    inflight: int = INFLIGHT,
    patience: float = CONNECT_TIMEOUT,
    credentials: str = "",
    certificates: str = "",
) -> NatsBus:
    """Make the bus.

    `url` may name several servers of a cluster, separated by commas, which keeps `replicas` copies of each bucket.
    `ack_wait` is after how many seconds a pulled message comes again, `duplicate_window` for how many a message's id is
    remembered, `patience` how many connecting may take. A durable reader holds at most `inflight` messages that are not
    acknowledged. `credentials` and `certificates` are as `nats_access.Access` takes them.
    """
    return NatsBus(
        url,
        ack_wait=ack_wait,
        duplicate_window=duplicate_window,
        replicas=replicas,
        inflight=inflight,
        patience=patience,
        credentials=credentials,
        certificates=certificates,
    )


async def _log_error(error: Exception) -> None:
    logger.info("NATS: %s", error or type(error).__name__)
