"""A server of the tests' own, as far as a socket knows it: it takes ASGI messages, at once or when it may."""

from __future__ import annotations

import asyncio
from typing import Any

from agents_ui.sending import Socket


class Server:
    """Takes what a socket passes on. While it is `busy` it takes its time over each message, as at a slow reader."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.cut = False
        self.fault: Exception | None = None
        self._free = asyncio.Event()
        self._free.set()
        self._news = asyncio.Event()

    def socket(self, *, after: int = 0, hints: str = "") -> Socket:
        """Return a socket whose frames this server takes."""
        return Socket(self._take, self._cut, after=after, hints=hints)

    def hold(self) -> None:
        """Take nothing more until it is let go on."""
        self._free.clear()

    def go_on(self) -> None:
        """Take what waits."""
        self._free.set()

    async def takes(self, text: str) -> None:
        """Wait until a frame with this text, or the cut, has come."""
        await self._until(lambda: any(text in frame for frame in self.taken))

    async def is_cut(self) -> None:
        """Wait until the connection is closed."""
        await self._until(lambda: self.cut)

    async def _until(self, true: Any) -> None:
        async with asyncio.timeout(10):
            while not true():
                self._news.clear()
                await self._news.wait()

    async def _take(self, message: dict[str, Any]) -> None:
        assert message["type"] == "websocket.send"
        await self._free.wait()
        if self.fault is not None:
            raise self.fault
        self.taken.append(message["text"])
        self._news.set()

    async def _cut(self) -> None:
        self.cut = True
        self._news.set()
