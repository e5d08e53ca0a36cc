"""A durable JetStream reader, and NATS's errors in the bus's words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from nats.aio.msg import Msg
from nats.errors import Error as NATSError
from nats.js import JetStreamContext

from openvibe.bus.protocol import Message
from openvibe.errors import BusError


class NatsPull:
    """A durable JetStream consumer."""

    def __init__(self, subscription: JetStreamContext.PullSubscription) -> None:
        self._subscription = subscription

    async def fetch(self, most: int, *, timeout: float) -> Sequence[Message]:
        """See `Pull.fetch`."""
        with translated("The stream cannot be read"):
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
def translated(act: str, *, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise NATS's errors as the bus's, saying which act failed; those in `but` stay what they are."""
    try:
        yield
    except but:
        raise
    except (NATSError, TimeoutError, OSError) as error:
        raise BusError(f"{act}: {str(error) or type(error).__name__}") from error


def _pulled(message: Msg) -> Message:
    async def acknowledge() -> None:
        with translated(f"{message.subject} was not acknowledged"):
            await message.ack()

    async def refuse() -> None:
        with translated(f"{message.subject} was not refused"):
            await message.nak()

    return Message(message.subject, message.data, message.headers or {}, "", acknowledge, refuse, _deliveries(message))


def _deliveries(message: Msg) -> int:
    """Read how often a message was delivered off its address for acknowledgements, and nothing else that stands there.

    `$JS.ACK.<stream>.<consumer>.<deliveries>.…`, with a domain and an account before the stream on newer servers.
    """
    tokens = message.reply.split(".", 7)
    return int(tokens[4] if message.reply.count(".") == 8 else tokens[6])
