"""Keeps pages live: what watchers of a channel see is rendered once and handed to every socket.

While the bus is away the database is polled, and the pages say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from agents_ui import rendering
from agents_ui.sending import Socket
from openvibe.bus import Handler, Message
from openvibe.events import GATE_OPENED, STEP_FAILED, STEP_FINISHED, STEP_STARTED
from openvibe.protocol import envelope, subjects
from operators.services import watching
from operators.services.watching import CATCH_UP, State

#: How many steps may speak before their start is known; more of them are no steps of this run.
EARLY_STEPS = 16
#: How many words of such a step wait; the oldest go first.
EARLY_WORDS = 1000
#: After how many bytes of their data events are rendered as a frame of their own.
PORTION = 64 * 1024


class Watch(watching.Watch[Socket]):
    """One channel that pages look at. Its words are those of models at their work."""

    def __init__(self, project_id: str, channel: str) -> None:
        self._words: dict[str, list[str]] = {}
        self._speaking: set[str] = set()
        super().__init__(project_id, channel)

    @property
    def heard(self) -> list[tuple[str, Handler]]:
        """Events, and the words that pass by."""
        return [*super().heard, (subjects.words(self.project_id, self.channel), self._hear_words)]

    def begin(self, events: list[dict[str, Any]]) -> None:
        """Know which steps are running: only they have a place for words on the page."""
        for event in events:
            if event["type"] == STEP_STARTED:
                self._speaking.add(event["step_id"])
            elif event["type"] in (STEP_FINISHED, STEP_FAILED, GATE_OPENED):
                self._speaking.discard(event["step_id"])
                self._words.pop(event["step_id"], None)

    async def show(self, events: list[dict[str, Any]]) -> None:
        """Render events once, for everybody."""
        self.begin(events)
        for socket in self.members:
            socket.send(_hint(socket.hints) if socket.hints else "")
        for part in _portions(events):
            html = await self._rendered(part) if self._fragments() else ""
            _send(self._fragments(), html)
            # Whatever fails from here on, this part is not shown again.
            self.seq = part[-1]["seq"]

    def tell(self, state: State) -> None:
        """Show whether the page is live."""
        _send(self.members, rendering.state(state))

    async def attend(self) -> None:
        """Show words; give each new socket what its page has missed, then let it hear the rest with everybody."""
        self._speak()
        assert self.seq is not None
        missed: dict[int, list[str]] = {}
        while self.joining:
            socket = self.joining[0]
            if not socket.hints and socket.after < self.seq and socket.after not in missed:
                missed[socket.after] = await self._missed(socket.after)
                # It may have left meanwhile, and others are no longer where they were.
                continue
            self.joining.remove(socket)
            self.members.add(socket)
            socket.send(rendering.state(self.state))
            if socket.hints:
                socket.send(_hint(socket.hints) if socket.after else "")
            else:
                for frame in missed.get(socket.after, ()):
                    socket.send(frame)

    async def _hear_words(self, message: Message) -> None:
        if message.subject == subjects.stirred(self.project_id):
            # No event of this channel; only who shows a list looks again.
            for socket in self.members:
                socket.send(_hint(socket.hints) if socket.hints else "")
            return
        try:
            body = envelope.loads(message.data)
            if body.get("chunk_type", "content") != "content":
                # Where words begin and end, the page knows from the events.
                return
            step, said = str(body["step_id"]), self._words.setdefault(str(body["step_id"]), [])
            said.append(str(body["content"]))
            if step not in self._speaking:
                # They may wait for ever: a step of a runtime elsewhere has no place on the page.
                del said[:-EARLY_WORDS]
        except (envelope.Malformed, KeyError):
            return
        self.wake()

    def _speak(self) -> None:
        """Show a model's words. Those of a step that no page shows yet wait until its start is shown."""
        ready = {step: parts for step, parts in self._words.items() if step in self._speaking}
        early = {step: parts for step, parts in self._words.items() if step not in self._speaking}
        self._words = early if len(early) <= EARLY_STEPS else {}
        _send(self._fragments(), "".join(rendering.words(step, "".join(parts)) for step, parts in ready.items()))

    async def _rendered(self, events: list[dict[str, Any]]) -> str:
        draw = partial(rendering.pushed, self.project_id, self.channel, events)
        html = draw() if rendering.brief(self.channel, events) else await watching.in_thread(draw)
        return f'{html}<template data-seq="{events[-1]["seq"]}"></template>'

    async def _missed(self, after: int) -> list[str]:
        if self.seq is not None and self.seq - after > CATCH_UP:
            return [_hint("reload")]
        events = await watching.read(self.project_id, self.channel, after)
        # What came since the last number that everybody knows is told to everybody, not to the newcomer alone.
        known = [event for event in events if self.seq is not None and event["seq"] <= self.seq]
        return [await self._rendered(part) for part in _portions(known)]

    def _fragments(self) -> list[Socket]:
        return [socket for socket in self.members if not socket.hints]


class Hub(watching.Hub[Socket]):
    """All watches of this process's pages."""

    def __init__(self) -> None:
        super().__init__(Watch)


hub = Hub()


def _send(sockets: Iterable[Socket], frame: str) -> None:
    for socket in list(sockets):
        socket.send(frame)


def _portions(events: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Part events where they become too much for one frame."""
    part: list[dict[str, Any]] = []
    size = 0
    for event in events:
        part.append(event)
        size += len(envelope.dumps(event["data"]))
        if size > PORTION:
            yield part
            part, size = [], 0
    if part:
        yield part


def _hint(name: str) -> str:
    return f'<template data-dispatch="{name}"></template>'
