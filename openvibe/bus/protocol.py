"""What a message bus offers, whichever server carries the messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from openvibe.errors import BusError, ServiceError
from openvibe.protocol.streams import Stream

#: The largest message, headers included, in bytes: what NATS takes unless configured otherwise.
MOST_BYTES = 1024 * 1024
#: How long a pulled message may stay unacknowledged before it is delivered again, in seconds.
ACK_WAIT = 30.0
#: For how long a stream remembers a `Nats-Msg-Id`, in seconds.
DUPLICATE_WINDOW = 120.0
#: How many revisions of a key are kept.
HISTORY = 16
#: Headers of an answer that tells of an error, as in the NATS service API.
ERROR_HEADER = "Nats-Service-Error"
ERROR_CODE_HEADER = "Nats-Service-Error-Code"


class Refuse(Protocol):
    """Gives a pulled message back."""

    async def __call__(self, delay: float = 0.0) -> None:
        """Let it come again: at once, or after `delay` seconds."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it arrives. `acknowledge` and `refuse` do something only for messages that were pulled.

    `reply` is the subject on which an answer is awaited, or empty. `deliveries` says how often a pulled message has
    been handed out, this time included, and `position` where it stands in its stream: the same each time, and no other
    message's.
    """

    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    reply: str = ""
    acknowledge: Callable[[], Awaitable[None]] | None = None
    refuse: Refuse | None = None
    deliveries: int = 1
    position: str = ""

    @property
    def error(self) -> ServiceError | None:
        """The error that this answer tells of, ready to be raised; None when it is a good answer."""
        if ERROR_HEADER not in self.headers and ERROR_CODE_HEADER not in self.headers:
            return None
        return ServiceError(self.headers.get(ERROR_CODE_HEADER, ""), self.headers.get(ERROR_HEADER, ""))


@dataclass(frozen=True, slots=True)
class Entry:
    """One revision of a kept value. Revisions rise within a bucket, with holes; `created` is in UTC."""

    key: str
    value: bytes
    revision: int
    created: datetime
    deleted: bool = False


Handler = Callable[[Message], Awaitable[None]]
#: Answers a request with bytes. Raising `ServiceError` answers with its code, raising anything else with code 500.
ServeHandler = Callable[[Message], Awaitable[bytes]]
WatchHandler = Callable[[Entry], Awaitable[None]]
Unsubscribe = Callable[[], Awaitable[None]]


class Pull(Protocol):
    """A durable reader of a stream."""

    async def fetch(self, most: int, *, timeout: float) -> Sequence[Message]:
        """Return up to `most` messages, as soon as there is one; an empty sequence after `timeout` seconds."""
        ...

    async def paused_until(self) -> str:
        """Return until when whoever runs the server keeps it from handing anything out; empty if it does not."""
        ...

    async def kept_since(self) -> datetime | None:
        """Return since when the stream has kept everything, by the server's clock; None if nobody can tell.

        What is older has grown too old, was pushed out or purged, or went down with a server that lost its data.
        """
        ...

    async def close(self) -> None:
        """Stop reading; the position stays. What was fetched and not acknowledged comes again some time later."""


class Bus(Protocol):
    """What a message server must offer. Its coroutines belong to the event loop that connected it."""

    @property
    def connected(self) -> bool:
        """Whether messages pass at this moment."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it will never carry a message again: closed by us, or for good by the server."""
        ...

    async def connect(self) -> None:
        """Connect; raises `BusError` if nobody answers."""

    async def close(self) -> None:
        """Send what waits and disconnect. Requests that are being answered are given up."""

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Send to whoever listens now. Raises `BusError` if not connected, or over `MOST_BYTES`."""

    async def store(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Send and wait until a stream keeps it; a repeated `Nats-Msg-Id` is kept once. Raises `BusError` if not."""

    async def store_all(self, messages: Sequence[Message]) -> Sequence[BusError | None]:
        """Send messages in this order, and wait once until streams keep them; return for each why it is not kept.

        None stands where it is. Raises `BusError` if nothing could be sent at all.
        """
        ...

    async def subscribe(self, pattern: str, handler: Handler) -> Unsubscribe:
        """Hear every message on subjects that match (`*` is one token, a last `>` is one or more).

        The handler gets one message after the other; what it raises is logged and ends nothing.
        """
        ...

    async def request(
        self, subject: str, data: bytes, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> Message:
        """Ask whoever serves the subject and return the first answer, which may tell of an `error`.

        Raises:
            NoResponders: nobody serves the subject.
            RequestTimeout: nobody answered within `timeout` seconds.
            BusError: the question could not be sent.
        """
        ...

    async def serve(self, pattern: str, handler: ServeHandler, *, queue: str = "") -> Unsubscribe:
        """Answer requests, many at a time. Of all that serve under the same `queue` one gets each request."""
        ...

    async def serve_service(
        self, name: str, *, version: str, description: str = "", endpoints: Mapping[str, ServeHandler]
    ) -> Unsubscribe:
        """Answer requests on several subjects as one named service, shared by its replicas.

        On NATS it can be discovered (`$SRV.PING`, `$SRV.INFO`, `$SRV.STATS`). Raises `SetupError` if the name is not
        made of letters, digits, `-` and `_`, or `version` is no semantic version.
        """
        ...

    async def ensure(self, streams: Sequence[Stream]) -> None:
        """Create the streams that are missing."""

    async def pull(self, stream: str, *, durable: str, patterns: Sequence[str]) -> Pull:
        """Open the durable reader of that name, from the stream's beginning when it is new."""
        ...

    async def put_kv(self, bucket: str, key: str, value: bytes, *, revision: int | None = None) -> int:
        """Keep a value and return its revision; a bucket that is missing is made.

        With `revision` only if that is the key's last one (that of its deletion included), with 0 only if the key has
        no value; else raises `RevisionConflict`.
        """
        ...

    async def get_kv(self, bucket: str, key: str) -> bytes | None:
        """Return a kept value, or None."""
        ...

    async def entry_kv(self, bucket: str, key: str) -> Entry | None:
        """Return the last revision of a key, which may be its deletion; None if there never was one."""
        ...

    async def delete_kv(self, bucket: str, key: str, *, revision: int | None = None) -> int:
        """Forget a value and return the revision of that, or 0 if there was none; the history stays.

        With `revision` only if that is the key's last one, else raises `RevisionConflict`.
        """
        ...

    async def keys_kv(self, bucket: str, prefix: str = "") -> Sequence[str]:
        """Return the keys that have a value and begin so, sorted."""
        ...

    async def history_kv(self, bucket: str, key: str) -> Sequence[Entry]:
        """Return the last `HISTORY` revisions of a key, deletions included, the oldest first."""
        ...

    async def watch_kv(self, bucket: str, handler: WatchHandler) -> Unsubscribe:
        """Hear every value that the bucket holds, then every change, deletions included, in order.

        After an outage, and where a key changes faster than it is heard, at least its last revision is heard.
        """
        ...


def matches(pattern: str, subject: str) -> bool:
    """Tell whether a subject fits a pattern, by NATS's rules."""
    wanted, given = pattern.split("."), subject.split(".")
    for position, part in enumerate(wanted):
        if part == ">":
            return len(given) > position
        if position >= len(given) or part not in ("*", given[position]):
            return False
    return len(wanted) == len(given)


async def one_by_one(bus: Bus, messages: Sequence[Message]) -> list[BusError | None]:
    """Store messages as `Bus.store_all` does, where a bus has no quicker way."""
    if not bus.connected:
        raise BusError("The bus is away")
    faults: list[BusError | None] = []
    for message in messages:
        try:
            await bus.store(message.subject, message.data, headers=message.headers)
        except BusError as error:
            faults.append(error)
        else:
            faults.append(None)
    return faults
