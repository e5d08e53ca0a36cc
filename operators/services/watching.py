"""Follows channels for whoever looks: one bus subscription per watched channel and process.

History comes from the database first, then news by `seq`; a hole is read again. While the bus is away the database is
polled. What is done with the news, and for whom, a subclass of `Watch` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, TypeVar

from asgiref.sync import sync_to_async
from django.db import connection

from openvibe.bus import Bus, Handler, Message, Unsubscribe
from openvibe.errors import BusError
from openvibe.protocol import envelope, subjects
from operators.link import link
from operators.models import Event
from operators.services import timeline

logger = logging.getLogger(__name__)
Member = TypeVar("Member")

State = Literal["live", "catching-up", "offline"]
#: How often a watch looks whether the bus is there, in seconds; without it, how often it reads the database.
LOOK_SECONDS = 1.0
#: How often a live watch makes sure that it missed nothing: core messages may get lost.
RECHECK_SECONDS = 15.0
#: The most events that are read at a time.
CATCH_UP = 500
#: How many of its newest events a new watch is shown, to know what is going on.
NEWEST = 50


class Watch(Generic[Member]):
    """One channel that somebody looks at. All its work is done by one task, in order.

    Its members hear the news; those that join wait until `attend` lets them in.
    """

    def __init__(self, project_id: str, channel: str) -> None:
        self.project_id = project_id
        self.channel = channel
        self.members: set[Member] = set()
        self.joining: list[Member] = []
        self.seq: int | None = None
        self.state: State = "catching-up"
        self._events: list[dict[str, Any]] = []
        self._bus: Bus | None = None
        self._subscriptions: list[Unsubscribe] = []
        self._checked_at = 0.0
        self._woken = asyncio.Event()
        self._ended = False
        self._task = asyncio.create_task(self._work())

    def join(self, member: Member) -> None:
        """Let somebody hear the channel from now on, after what it missed."""
        self.joining.append(member)
        self.wake()

    def leave(self, member: Member) -> bool:
        """Let somebody go; True when nobody is left."""
        self.members.discard(member)
        if member in self.joining:
            self.joining.remove(member)
        return not self.members and not self.joining

    def wake(self) -> None:
        """Look at once."""
        self._woken.set()

    async def close(self) -> None:
        """Stop hearing the channel."""
        # Its task is asked and not cancelled, which in the middle of subscribing would leave a subscription behind.
        self._ended = True
        self.wake()
        await self._task

    @property
    def heard(self) -> list[tuple[str, Handler]]:
        """The subjects that the watch hears, each with what is done at a message."""
        return [(subjects.recorded(self.project_id, self.channel), self._hear_events)]

    def begin(self, events: list[dict[str, Any]]) -> None:
        """Take in the newest events, which nobody is told of, when the watch begins."""

    async def show(self, events: list[dict[str, Any]]) -> None:
        """Tell the members of the next events."""
        raise NotImplementedError

    async def attend(self) -> None:
        """Let in who has joined; called after the news."""
        raise NotImplementedError

    def tell(self, state: State) -> None:
        """Tell the members whether the channel is live."""

    async def _work(self) -> None:
        try:
            while not self._ended:
                self._woken.clear()
                await self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._woken.wait()
        finally:
            await self._unsubscribe()

    async def _look(self) -> None:
        try:
            await self._listen()
            await self._settle()
        except Exception:
            # One fault must not end a channel's life; the next look goes on from the last number that was shown.
            logger.exception("Watching %s failed", self.channel)
            self._checked_at = 0.0

    async def _listen(self) -> None:
        """Subscribe when the bus is there, and know whether it is."""
        try:
            await self._subscribe(await link.bus())
        except BusError as error:
            logger.debug("Not subscribed: %s", error)
        state: State = "live" if len(self._subscriptions) == len(self.heard) and link.connected else "offline"
        if state != self.state:
            # What was said while the bus was away is read from the database, before the channel is called live.
            self._checked_at = 0.0
            await self._catch_up()
            # Once more after a look: what was said while a returning server heard of our subscriptions again.
            self._checked_at = time.monotonic() - RECHECK_SECONDS + LOOK_SECONDS
            self.state = state
            self.tell(state)

    async def _subscribe(self, bus: Bus) -> None:
        if bus is not self._bus:
            self._bus, self._subscriptions = bus, []
        for pattern, hear in self.heard[len(self._subscriptions) :]:
            self._subscriptions.append(await bus.subscribe(pattern, hear))

    async def _unsubscribe(self) -> None:
        for unsubscribe in self._subscriptions:
            try:
                await unsubscribe()
            except BusError as error:
                logger.debug("Unsubscribing failed: %s", error)

    async def _settle(self) -> None:
        """Do what waits: news, newcomers, and now and then a look into the database."""
        events, self._events = self._events, []
        if self.seq is None or self.state != "live" or time.monotonic() - self._checked_at > RECHECK_SECONDS:
            await self._catch_up()
        await self._push(events)
        await self.attend()

    async def _hear_events(self, message: Message) -> None:
        try:
            body = envelope.loads(message.data)
            self._events += body["payload"]["events"]
        except (envelope.Malformed, KeyError, TypeError) as error:
            logger.warning("An announcement on %s cannot be read: %s", message.subject, error)
        self.wake()

    async def _push(self, events: list[dict[str, Any]]) -> None:
        """Show news. What is not the very next number makes the database the source."""
        assert self.seq is not None
        fresh = sorted({event["seq"]: event for event in events if event["seq"] > self.seq}.items())
        if not fresh:
            return
        if [seq for seq, _ in fresh] != list(range(self.seq + 1, self.seq + 1 + len(fresh))):
            await self._catch_up()
            return
        await self._show([event for _, event in fresh])

    async def _catch_up(self) -> None:
        self._checked_at = time.monotonic()
        if self.seq is None:
            events = await newest(self.project_id, self.channel, limit=NEWEST)
            self.begin(events)
            self.seq = events[-1]["seq"] if events else 0
            return
        while events := await read(self.project_id, self.channel, self.seq):
            await self._show(events)

    async def _show(self, events: list[dict[str, Any]]) -> None:
        await self.show(events)
        self.seq = events[-1]["seq"]


class Hub(Generic[Member]):
    """All watches of one kind in this process."""

    def __init__(self, make: Callable[[str, str], Watch[Member]]) -> None:
        self._make = make
        self._watches: dict[tuple[str, str], Watch[Member]] = {}

    def join(self, project_id: str, channel: str, member: Member) -> Callable[[], None]:
        """Let somebody hear a channel; the returned function ends that."""
        watch = self._watches.get((project_id, channel))
        if watch is None:
            watch = self._watches[project_id, channel] = self._make(project_id, channel)
        watch.join(member)

        def leave() -> None:
            if watch.leave(member) and self._watches.get((project_id, channel)) is watch:
                del self._watches[project_id, channel]
                _closing.add(task := asyncio.create_task(watch.close()))
                task.add_done_callback(_closing.discard)

        return leave


# The event loop holds tasks weakly; these must live until they are done.
_closing: set[asyncio.Task[None]] = set()


async def newest(project_id: str, channel: str, **options: Any) -> list[dict[str, Any]]:
    """Return a channel's newest events in their wire form, in order; see `timeline.newest` for the options."""
    return _wires(await in_thread(timeline.newest, project_id, channel, **options))


async def read(project_id: str, channel: str, after: int) -> list[dict[str, Any]]:
    """Return the events that follow number `after` in their wire form, in order, at most `CATCH_UP`."""
    return _wires(await in_thread(timeline.read, project_id, channel, after=after, limit=CATCH_UP))


def _wires(events: Iterable[Event]) -> list[dict[str, Any]]:
    return [{**event.wire(), "timestamp": event.created_at.isoformat()} for event in events]


async def in_thread(act: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call what asks the database, away from the event loop."""

    def perform() -> Any:
        try:
            return act(*args, **options)
        finally:
            # These threads come and go; a connection left in one would be nobody's.
            connection.close()

    return await sync_to_async(perform, thread_sensitive=False)()
