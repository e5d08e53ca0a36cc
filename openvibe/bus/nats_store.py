"""Messages that JetStream keeps, sent together: one inbox hears its word on each, and nobody waits in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NATSError

from openvibe.bus.protocol import Message
from openvibe.errors import BusError

#: How the server begins to say that no stream hears a subject.
NOBODY = "503"


@dataclass(eq=False)
class _Batch:
    """What the server has said so far; a message of which it has said nothing is not kept."""

    faults: list[BusError | None]
    open: set[int]
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self, place: int, fault: BusError | None) -> None:
        if place in self.open:
            self.faults[place] = fault
            self.open.discard(place)
            if not self.open:
                self.settled.set()


class Batches:
    """The messages of one connection that are sent together."""

    def __init__(self, client: Client, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._inbox = client.new_inbox()
        self._sent = 0
        self._batches: dict[str, _Batch] = {}

    async def open(self) -> None:
        """Begin to hear."""
        await self._client.subscribe(f"{self._inbox}.>", cb=self._hear)

    async def store(self, messages: Sequence[Message]) -> list[BusError | None]:
        """See `Bus.store_all`."""
        self._sent += 1
        name = str(self._sent)
        silence = [BusError(f"No stream kept a message on {each.subject}: no answer") for each in messages]
        batch = self._batches[name] = _Batch([*silence], set(range(len(messages))))
        try:
            for place, message in enumerate(messages):
                try:
                    await self._client.publish(
                        message.subject,
                        message.data,
                        reply=f"{self._inbox}.{name}.{place}",
                        headers=dict(message.headers) or None,
                    )
                except NATSError as error:
                    batch.close(place, BusError(f"NATS did not take a message on {message.subject}: {error}"))
            if messages:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._timeout):
                        await batch.settled.wait()
        finally:
            del self._batches[name]
        return batch.faults

    async def _hear(self, message: Msg) -> None:
        _, name, place = message.subject.rsplit(".", 2)
        batch = self._batches.get(name)
        if batch is None:
            return
        if (message.headers or {}).get("Status") == NOBODY:
            batch.close(int(place), BusError("No stream keeps it"))
            return
        with contextlib.suppress(orjson.JSONDecodeError):
            answer = orjson.loads(message.data)
            # Whoever listens to a subject may answer as well, and keeps nothing.
            if isinstance(answer, dict) and answer.keys() & {"stream", "error"}:
                batch.close(int(place), _fault(answer))


def _fault(answer: Mapping[str, Any]) -> BusError | None:
    """Return why a message is not kept, or None."""
    return BusError(f"No stream kept it: {answer['error'].get('description')}") if "error" in answer else None
