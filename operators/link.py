"""This process's one connection to the bus, lent to synchronous code.

In the web process it lives on the server's own event loop (`adopt`), elsewhere on a thread of its own. It is made when
first needed, and an absent server never holds anybody up: what could not be sent stays in the database, unannounced.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from django.conf import settings

from openvibe import bus as buses
from openvibe.bus import Bus, Message
from openvibe.bus.logged import logged
from openvibe.errors import BusError

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Seconds between two attempts to make the first connection.
CONNECT_PAUSE = 0.5
#: How many messages that may get lost wait for a bus that is away; the oldest are lost first.
MOST_CAST = 10_000


class Link:
    """One bus, one event loop, any number of threads."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bus: Bus | None = None
        self._starting = threading.Lock()
        self._connecting: asyncio.Lock | None = None
        self._refused_at = 0.0
        self._cast: deque[tuple[str, bytes]] = deque(maxlen=MOST_CAST)
        self._casting = False

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Live on this loop from now on, unless there is one already."""
        with self._starting:
            if self._loop is None:
                self._loop = loop

    def use(self, bus: Bus | None) -> None:
        """Send over this bus from now on, such as `MemoryBus` where no server is wanted; None connects anew."""
        self._bus, self._refused_at = bus, 0.0

    async def close(self) -> None:
        """Disconnect; only on the link's loop. Whoever needs the bus next connects anew."""
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.close()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the link's loop; the calling thread may wait for the future or forget it."""
        return asyncio.run_coroutine_threadsafe(work, self._running_loop())

    async def bus(self) -> Bus:
        """Return the connected bus; only for coroutines on the link's loop. Raises `BusError` if nobody answers."""
        if self._bus is not None and not self._bus.closed:
            return self._bus
        self._connecting = self._connecting or asyncio.Lock()
        async with self._connecting:
            if self._bus is None or self._bus.closed:
                self._bus = await self._connected()
        return self._bus

    @property
    def connected(self) -> bool:
        """Whether messages pass at this moment."""
        return self._bus is not None and self._bus.connected

    def reach(self, timeout: float) -> bool:
        """Connect if need be, and tell whether messages pass; for threads that may wait up to `timeout` seconds."""
        if not self.connected:
            try:
                self.submit(self.bus()).result(timeout)
            except (BusError, TimeoutError):
                return False
        return self.connected

    async def store(self, subject: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Send a message that a stream keeps. Raises `BusError` if it was not kept."""
        await (await self.bus()).store(subject, data, headers=headers)

    async def store_all(self, messages: Sequence[Message]) -> Sequence[BusError | None]:
        """Send messages that streams keep, and return for each why it is not kept, or None."""
        return await (await self.bus()).store_all(messages)

    async def publish(self, subject: str, data: bytes) -> None:
        """Send a message that may get lost."""
        try:
            await (await self.bus()).publish(subject, data)
        except BusError as error:
            logger.debug("Not sent: %s", error)

    def cast(self, subject: str, data: bytes) -> None:
        """Send a message that may get lost, from any thread; what many threads cast at a moment goes on one errand."""
        self._cast.append((subject, data))
        if not self._casting:
            self._casting = True
            self.submit(self._send_cast())

    async def _send_cast(self) -> None:
        # First, so that whoever casts while the last one is sent makes an errand anew.
        self._casting = False
        while self._cast:
            await self.publish(*self._cast.popleft())

    async def _connected(self) -> Bus:
        if time.monotonic() - self._refused_at < CONNECT_PAUSE:
            raise BusError("The bus did not answer a moment ago")
        bus = buses.bus(settings.BUS, **_options())
        try:
            await bus.connect()
        except BusError:
            self._refused_at = time.monotonic()
            raise
        return logged(bus, settings.OPENVIBE.server)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="nats-link", daemon=True).start()
            return self._loop


def _options() -> dict[str, Any]:
    chosen = settings.OPENVIBE
    known: dict[str, dict[str, Any]] = {
        "nats": {
            "url": settings.NATS_URL,
            "credentials": chosen.nats_credentials,
            "certificates": chosen.nats_certificates,
            "replicas": chosen.nats_replicas,
            "inflight": chosen.pull_inflight,
            "patience": chosen.nats_patience,
        },
        "redis": {"url": settings.REDIS_URL},
    }
    return known.get(settings.BUS, {})


link = Link()
