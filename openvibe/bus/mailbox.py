"""One subscription's messages, handed to its handler one after the other without holding up anybody else."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: How many messages may wait for a slow handler before newer ones are dropped.
MOST_WAITING = 65536


class Mailbox(Generic[T]):
    """What waits for one handler, in order. What the handler raises is logged and ends nothing."""

    def __init__(self, handler: Callable[[T], Awaitable[None]], *, about: str) -> None:
        self._handler = handler
        self._about = about
        self._waiting: deque[T] = deque()
        self._task: asyncio.Task[None] | None = None
        self._fewer = asyncio.Event()

    def take(self, message: T) -> asyncio.Task[None] | None:
        """Queue a message. If nothing was being handled, return the task that handles it now."""
        if len(self._waiting) >= MOST_WAITING:
            logger.warning("%s: the handler is too slow, a message is dropped", self._about)
            return None
        self._waiting.append(message)
        if self._task is not None and not self._task.done():
            return None
        self._task = asyncio.create_task(self._work())
        return self._task

    async def room(self, most: int) -> None:
        """Return when at most so many messages wait; for whoever can leave the others where they are until then."""
        while len(self._waiting) > most:
            self._fewer.clear()
            await self._fewer.wait()

    def close(self) -> None:
        """Forget what waits; what is being handled is handled to its end."""
        self._waiting.clear()
        self._fewer.set()

    async def _work(self) -> None:
        while self._waiting:
            message = self._waiting.popleft()
            self._fewer.set()
            try:
                await self._handler(message)
            except Exception:
                logger.exception("%s: the handler failed", self._about)
