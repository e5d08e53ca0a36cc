"""Messages between processes, through one protocol whichever server carries them.

`publish` is core messaging: fast, lossy, heard by whoever listens now. `store` puts a message into a stream and returns
once it is kept. `pull` reads a stream as one durable consumer that replicas share.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from openvibe.protocol.streams import Stream


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it arrives. `acknowledge` and `refuse` do something only for messages that were pulled."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    reply: str = ""
    acknowledge: Callable[[], Awaitable[None]] | None = None
    refuse: Callable[[], Awaitable[None]] | None = None


#: The largest message, headers included, in bytes: what NATS takes unless configured otherwise.
MOST_BYTES = 1024 * 1024

Handler = Callable[[Message], Awaitable[None]]
Unsubscribe = Callable[[], Awaitable[None]]


class Pull(Protocol):
    """A durable reader of a stream."""

    async def fetch(self, most: int, *, timeout: float) -> Sequence[Message]:
        """Return up to `most` messages, as soon as there is one; an empty sequence after `timeout` seconds."""

    async def close(self) -> None:
        """Stop reading; the position stays. What was fetched and not acknowledged comes again some time later."""


class Bus(Protocol):
    """What a message server must offer."""

    @property
    def connected(self) -> bool:
        """Whether messages pass at this moment."""

    @property
    def closed(self) -> bool:
        """Whether it will never carry a message again: closed by us, or for good by the server."""

    async def connect(self) -> None:
        """Connect; raises `BusError` if nobody answers."""

    async def close(self) -> None:
        """Send what waits and disconnect."""

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Send to whoever listens now. Raises `BusError` if not connected, or over `MOST_BYTES`."""

    async def store(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Send and wait until a stream keeps it; a repeated `Nats-Msg-Id` is kept once. Raises `BusError` if not."""

    async def subscribe(self, pattern: str, handler: Handler) -> Unsubscribe:
        """Hear every message on subjects that match (`*` is one token, a last `>` is one or more)."""

    async def ensure(self, streams: Sequence[Stream]) -> None:
        """Create the streams that are missing."""

    async def pull(self, stream: str, *, durable: str, patterns: Sequence[str]) -> Pull:
        """Open the durable reader of that name, from the stream's beginning when it is new."""

    async def put_kv(self, bucket: str, key: str, value: bytes) -> int:
        """Keep a value and return its revision."""

    async def get_kv(self, bucket: str, key: str) -> bytes | None:
        """Return a kept value, or None."""


def matches(pattern: str, subject: str) -> bool:
    """Tell whether a subject fits a pattern, by NATS's rules."""
    wanted, given = pattern.split("."), subject.split(".")
    for position, part in enumerate(wanted):
        if part == ">":
            return len(given) > position
        if position >= len(given) or part not in ("*", given[position]):
            return False
    return len(wanted) == len(given)
