"""Keeps pages live: one bus subscription per watched channel and process, bytes rendered once, handed to every socket.

History comes from the database first, then news by `seq`; a hole is read again. While the bus is away the database is
polled, and the pages say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from asgiref.sync import sync_to_async
from django.db import connection

from agents_ui import rendering
from openvibe.bus import Bus, Handler, Message, Unsubscribe
from openvibe.errors import BusError
from openvibe.events import GATE_OPENED, STEP_FAILED, STEP_FINISHED, STEP_STARTED
from openvibe.protocol import envelope, subjects
from operators.link import link
from operators.models import Event
from operators.services import timeline

logger = logging.getLogger(__name__)

State = Literal["live", "catching-up", "offline"]
#: How often a watch looks whether the bus is there, in seconds; without it, how often it reads the database.
LOOK_SECONDS = 1.0
#: How often a live watch makes sure that it missed nothing: core messages may get lost.
RECHECK_SECONDS = 15.0
#: The most events that a page catches up with; one that is further behind loads anew.
CATCH_UP = 500
#: How far back a new watch looks for steps that are still running, in events.
RUNNING_STEPS = 50
#: How many steps may speak before their start is known; more of them are no steps of this run.
EARLY_STEPS = 16
#: How many frames may wait for a slow socket before it is cut off; it comes back and catches up.
BACKLOG = 500


@dataclass(eq=False)
class Socket:
    """One browser's connection: what its page holds already, and the frames on their way to it."""

    after: int
    hints: str = ""
    frames: asyncio.Queue[str | None] = field(default_factory=lambda: asyncio.Queue(BACKLOG))

    def send(self, frame: str) -> None:
        """Queue a frame; a socket that cannot keep up is cut off."""
        if not frame:
            return
        try:
            self.frames.put_nowait(frame)
        except asyncio.QueueFull:
            self.cut()

    def cut(self) -> None:
        """Tell the socket to close, whatever waits for it."""
        while not self.frames.empty():
            self.frames.get_nowait()
        self.frames.put_nowait(None)

    async def next(self) -> str | None:
        """Return everything that waits as one frame; None when the socket is to be closed."""
        frames = [await self.frames.get()]
        while not self.frames.empty():
            frames.append(self.frames.get_nowait())
        return None if None in frames else "".join(frame for frame in frames if frame)


class Watch:
    """One channel that somebody looks at. All its work is done by one task, in order."""

    def __init__(self, project_id: str, channel: str) -> None:
        self._project_id = project_id
        self._channel = channel
        self._sockets: set[Socket] = set()
        self._joining: list[Socket] = []
        self._events: list[dict[str, Any]] = []
        self._words: dict[str, list[str]] = {}
        self._seq: int | None = None
        self._speaking: set[str] = set()
        self._state: State = "catching-up"
        self._bus: Bus | None = None
        self._subscriptions: list[Unsubscribe] = []
        self._checked_at = 0.0
        self._woken = asyncio.Event()
        self._ended = False
        self._task = asyncio.create_task(self._work())

    def join(self, socket: Socket) -> None:
        """Let a socket hear the channel from now on, after what it missed."""
        self._joining.append(socket)
        self._woken.set()

    def leave(self, socket: Socket) -> bool:
        """Let a socket go; True when nobody is left."""
        self._sockets.discard(socket)
        if socket in self._joining:
            self._joining.remove(socket)
        return not self._sockets and not self._joining

    async def close(self) -> None:
        """Stop hearing the channel."""
        # Its task is asked and not cancelled, which in the middle of subscribing would leave a subscription behind.
        self._ended = True
        self._woken.set()
        await self._task

    async def _work(self) -> None:
        try:
            while not self._ended:
                self._woken.clear()
                await self._look()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), LOOK_SECONDS)
        finally:
            await self._unsubscribe()

    async def _look(self) -> None:
        try:
            await self._listen()
            await self._settle()
        except Exception:
            # One fault must not end a channel's life; the next look goes on from the last number that was shown.
            logger.exception("Watching %s failed", self._channel)
            self._checked_at = 0.0

    async def _listen(self) -> None:
        """Subscribe when the bus is there, and know whether it is."""
        try:
            await self._subscribe(await link.bus())
        except BusError as error:
            logger.debug("Not subscribed: %s", error)
        state: State = "live" if len(self._subscriptions) == len(self._heard) and link.connected else "offline"
        if state != self._state:
            # What was said while the bus was away is read from the database, before the page calls itself live.
            self._checked_at = 0.0
            await self._catch_up()
            # Once more after a look: what was said while a returning server heard of our subscriptions again.
            self._checked_at = time.monotonic() - RECHECK_SECONDS + LOOK_SECONDS
            self._state = state
            _send(self._sockets, rendering.state(state))

    async def _subscribe(self, bus: Bus) -> None:
        if bus is not self._bus:
            self._bus, self._subscriptions = bus, []
        for pattern, hear in self._heard[len(self._subscriptions) :]:
            self._subscriptions.append(await bus.subscribe(pattern, hear))

    async def _unsubscribe(self) -> None:
        for unsubscribe in self._subscriptions:
            try:
                await unsubscribe()
            except BusError as error:
                logger.debug("Unsubscribing failed: %s", error)

    @property
    def _heard(self) -> list[tuple[str, Handler]]:
        return [
            (subjects.recorded(self._project_id, self._channel), self._hear_events),
            (subjects.words(self._project_id, self._channel), self._hear_words),
        ]

    async def _settle(self) -> None:
        """Do what waits: news, words, joins, and now and then a look into the database."""
        events, self._events = self._events, []
        if self._seq is None or self._state != "live" or time.monotonic() - self._checked_at > RECHECK_SECONDS:
            await self._catch_up()
        await self._push(events)
        self._speak()
        await self._welcome()

    async def _hear_events(self, message: Message) -> None:
        try:
            body = envelope.loads(message.data)
            self._events += body["payload"]["events"]
        except (envelope.Malformed, KeyError, TypeError) as error:
            logger.warning("An announcement on %s cannot be read: %s", message.subject, error)
        self._woken.set()

    async def _hear_words(self, message: Message) -> None:
        try:
            body = envelope.loads(message.data)
            self._words.setdefault(str(body["step_id"]), []).append(str(body["content"]))
        except (envelope.Malformed, KeyError):
            return
        self._woken.set()

    async def _push(self, events: list[dict[str, Any]]) -> None:
        """Show news. What is not the very next number makes the database the source."""
        assert self._seq is not None
        fresh = sorted({event["seq"]: event for event in events if event["seq"] > self._seq}.items())
        if not fresh:
            return
        if [seq for seq, _ in fresh] != list(range(self._seq + 1, self._seq + 1 + len(fresh))):
            await self._catch_up()
            return
        await self._show([event for _, event in fresh])

    def _speak(self) -> None:
        """Show a model's words. Those of a step that no page shows yet wait until its start is shown."""
        ready = {step: parts for step, parts in self._words.items() if step in self._speaking}
        early = {step: parts for step, parts in self._words.items() if step not in self._speaking}
        self._words = early if len(early) <= EARLY_STEPS else {}
        _send(self._fragments(), "".join(rendering.words(step, "".join(parts)) for step, parts in ready.items()))

    def _notice(self, events: list[dict[str, Any]]) -> None:
        """Know which steps are running: only they have a place for words on the page."""
        for event in events:
            if event["type"] == STEP_STARTED:
                self._speaking.add(event["step_id"])
            elif event["type"] in (STEP_FINISHED, STEP_FAILED, GATE_OPENED):
                self._speaking.discard(event["step_id"])
                self._words.pop(event["step_id"], None)

    async def _catch_up(self) -> None:
        self._checked_at = time.monotonic()
        if self._seq is None:
            events = await _newest(self._project_id, self._channel)
            self._notice(events)
            self._seq = events[-1]["seq"] if events else 0
            return
        while events := await _read(self._project_id, self._channel, self._seq):
            await self._show(events)

    async def _show(self, events: list[dict[str, Any]]) -> None:
        self._notice(events)
        html = await self._rendered(events) if self._fragments() else ""
        for socket in self._sockets:
            socket.send(_hint(socket.hints) if socket.hints else html)
        self._seq = events[-1]["seq"]

    async def _rendered(self, events: list[dict[str, Any]]) -> str:
        html = await _in_thread(rendering.pushed, self._project_id, self._channel, events)
        return f'{html}<template data-seq="{events[-1]["seq"]}"></template>'

    async def _welcome(self) -> None:
        """Give each new socket what its page has missed, then let it hear the rest with everybody."""
        assert self._seq is not None
        missed: dict[int, str] = {}
        while self._joining:
            socket = self._joining[0]
            if not socket.hints and socket.after < self._seq and socket.after not in missed:
                missed[socket.after] = await self._missed(socket.after)
                # It may have left meanwhile, and others are no longer where they were.
                continue
            self._joining.remove(socket)
            self._sockets.add(socket)
            socket.send(rendering.state(self._state))
            if socket.hints:
                socket.send(_hint(socket.hints) if socket.after else "")
            else:
                socket.send(missed.get(socket.after, ""))

    async def _missed(self, after: int) -> str:
        if self._seq is not None and self._seq - after > CATCH_UP:
            return _hint("reload")
        events = await _read(self._project_id, self._channel, after)
        # What came since the last number that everybody knows is told to everybody, not to the newcomer alone.
        known = [event for event in events if self._seq is not None and event["seq"] <= self._seq]
        return await self._rendered(known) if known else ""

    def _fragments(self) -> list[Socket]:
        return [socket for socket in self._sockets if not socket.hints]


class Hub:
    """All watches of this process."""

    def __init__(self) -> None:
        self._watches: dict[tuple[str, str], Watch] = {}

    def join(self, project_id: str, channel: str, socket: Socket) -> Callable[[], None]:
        """Let a socket hear a channel; the returned function ends that."""
        watch = self._watches.get((project_id, channel))
        if watch is None:
            watch = self._watches[project_id, channel] = Watch(project_id, channel)
        watch.join(socket)

        def leave() -> None:
            if watch.leave(socket) and self._watches.get((project_id, channel)) is watch:
                del self._watches[project_id, channel]
                _closing.add(task := asyncio.create_task(watch.close()))
                task.add_done_callback(_closing.discard)

        return leave


hub = Hub()
# The event loop holds tasks weakly; these must live until they are done.
_closing: set[asyncio.Task[None]] = set()


def _send(sockets: Iterable[Socket], frame: str) -> None:
    for socket in list(sockets):
        socket.send(frame)


def _hint(name: str) -> str:
    return f'<template data-dispatch="{name}"></template>'


async def _newest(project_id: str, channel: str) -> list[dict[str, Any]]:
    return _wires(await _in_thread(timeline.newest, project_id, channel, limit=RUNNING_STEPS))


async def _read(project_id: str, channel: str, after: int) -> list[dict[str, Any]]:
    return _wires(await _in_thread(timeline.read, project_id, channel, after=after, limit=CATCH_UP))


def _wires(events: Iterable[Event]) -> list[dict[str, Any]]:
    return [{**event.wire(), "timestamp": event.created_at.isoformat()} for event in events]


async def _in_thread(act: Callable[..., Any], *args: Any, **options: Any) -> Any:
    def perform() -> Any:
        try:
            return act(*args, **options)
        finally:
            # These threads come and go; a connection left in one would be nobody's.
            connection.close()

    return await sync_to_async(perform, thread_sensitive=False)()
