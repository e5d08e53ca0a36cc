"""A durable JetStream consumer, read by one pull request a batch, and NATS's errors in the bus's words.

The library's own reader waits for each message anew, which costs more than all the rest of reading it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NATSError

from openvibe.bus.protocol import Message
from openvibe.errors import BusError

API = "$JS.API.CONSUMER.MSG.NEXT"
INFO = "$JS.API.CONSUMER.INFO"
STREAM_INFO = "$JS.API.STREAM.INFO"
#: How long the server may take to say how a reader stands, in seconds.
INFO_TIMEOUT = 5.0
#: What the server says where a message would stand: nothing is there, the time is over, the request cannot be held.
NOTHING_NOW = frozenset({"404", "408", "409"})
#: How long after a request's time the server may say that it is over, in seconds.
GRACE = 1.0
#: How long a request rests that the server could not hold, in seconds.
PAUSE = 0.1


class NatsPull:
    """One reader's subscription to its inbox, and what has arrived there."""

    def __init__(self, client: Client, stream: str, durable: str) -> None:
        self._client = client
        self._stream = stream
        self._name = f"{stream}.{durable}"
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        self._arrived: deque[Msg] = deque()
        self._asked = 0
        self._wanted = 0
        self._status = ""
        self._settled = asyncio.Event()

    async def open(self) -> None:
        """Begin to hear."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._hear)

    async def fetch(self, most: int, *, timeout: float) -> Sequence[Message]:
        """See `Pull.fetch`."""
        deadline = time.monotonic() + timeout
        while not self._arrived and (left := deadline - time.monotonic()) > 0:
            with translated("The stream cannot be read"):
                await self._ask(most, left)
            if not self._arrived and self._status == "409":
                await asyncio.sleep(PAUSE)
        return [_pulled(self._arrived.popleft()) for _ in range(min(most, len(self._arrived)))]

    async def paused_until(self) -> str:
        """See `Pull.paused_until`. Fetching does not tell: a paused reader is as silent as an empty stream."""
        with translated("The stream cannot be read"):
            found = await self._answer(f"{INFO}.{self._name}")
        return str(found["config"].get("pause_until", "")) if found.get("paused") else ""

    async def kept_since(self) -> datetime | None:
        """See `Pull.kept_since`. A stream that forgets what was acknowledged tells nothing by that."""
        with translated("The stream cannot be read"):
            found = await self._answer(f"{STREAM_INFO}.{self._stream}")
        if "error" in found:
            raise BusError(f"The stream cannot be read: {found['error'].get('description')}")
        if found["config"]["retention"] != "limits":
            return None
        state = found["state"]
        if state["messages"]:
            return datetime.fromisoformat(state["first_ts"])
        # Older servers do not tell their time.
        return datetime.fromisoformat(found["ts"]) if "ts" in found else datetime.now(UTC)

    async def _answer(self, subject: str) -> Any:
        return orjson.loads((await self._client.request(subject, b"", INFO_TIMEOUT)).data)

    async def close(self) -> None:
        """See `Pull.close`. What arrived too late for its fetch goes back."""
        # A connection that is gone has forgotten the reader already.
        with contextlib.suppress(NATSError):
            if self._subscription is not None:
                await self._subscription.unsubscribe()
            while self._arrived:
                await self._arrived.popleft().nak()

    async def _ask(self, most: int, seconds: float) -> None:
        """Ask for messages, and return when as many have arrived as there are now, or one if there were none."""
        self._asked += 1
        self._wanted, self._status = most, ""
        self._settled.clear()
        # Together these mean: what is there, else wait for the first.
        request = {"batch": most, "expires": int(seconds * 1e9), "no_wait": True}
        await self._client.publish(f"{API}.{self._name}", orjson.dumps(request), reply=f"{self._inbox}.{self._asked}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + GRACE):
                await self._settled.wait()
        if self._status and self._status not in NOTHING_NOW and not self._arrived:
            raise BusError(f"The stream cannot be read: JetStream says {self._status}")

    async def _hear(self, message: Msg) -> None:
        if message.reply:
            self._arrived.append(message)
            if len(self._arrived) >= self._wanted:
                self._settled.set()
        # What names no place for an acknowledgement is no message; an older request's end is no news.
        elif message.subject == f"{self._inbox}.{self._asked}":
            self._status = (message.headers or {}).get("Status", "")
            if self._status != "100":
                self._settled.set()


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

    async def refuse(delay: float = 0.0) -> None:
        with translated(f"{message.subject} was not refused"):
            await message.nak(delay or None)

    deliveries, position = _told(message)
    return Message(
        message.subject, message.data, message.headers or {}, "", acknowledge, refuse, deliveries, position
    )  # fmt: skip


def _told(message: Msg) -> tuple[int, str]:
    """Read off a message's address for acknowledgements how often it was delivered, and where its stream keeps it.

    `$JS.ACK.<stream>.<consumer>.<deliveries>.<number>.<number>.<time>.…`, with a domain and an account before the
    stream on newer servers. A stream that was made anew counts from 1 again, hence the time.
    """
    tokens = message.reply.split(".")
    stream, _, deliveries, number, _, time = tokens[2:8] if len(tokens) == 9 else tokens[4:10]
    return int(deliveries), f"{stream}:{number}:{time}"
