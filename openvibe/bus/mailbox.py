"""One subscription's messages, handed to its handler one after the other without holding up anybody else."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: How many messages may wait for a slow handler before newer ones are dropped, or older ones of the same key.
MOST_WAITING = 65536


class Mailbox(Generic[T]):
    """What waits for one handler, in order. What the handler raises is logged and ends nothing.

    With `key` the last message of each key is never dropped: when too many wait, the older ones of the same keys go.
    """

    def __init__(
        self, handler: Callable[[T], Awaitable[None]], *, about: str, key: Callable[[T], Hashable] | None = None
    ) -> None:
        self._handler = handler
        self._about = about
        self._key = key
        self._most = MOST_WAITING
        self._dropped = 0
        self._waiting: deque[T] = deque()
        self._task: asyncio.Task[None] | None = None
        self._fewer = asyncio.Event()

    def take(self, message: T) -> asyncio.Task[None] | None:
        """Queue a message. If nothing was being handled, return the task that handles it now."""
        if len(self._waiting) >= self._most:
            if self._key is None:
                self._drop()
                return None
            self._thin(self._key)
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

    def _drop(self) -> None:
        if not self._dropped:
            logger.warning("%s: the handler is too slow, messages are dropped from now on", self._about)
        self._dropped += 1

    def _thin(self, key: Callable[[T], Hashable]) -> None:
        latest: dict[Hashable, T] = {}
        for message in reversed(self._waiting):
            latest.setdefault(key(message), message)
        self._waiting = deque(reversed(latest.values()))
        # Where that many keys wait, thinning at each message would take all the time there is.
        self._most = max(MOST_WAITING, 2 * len(latest))

    async def _work(self) -> None:
        while self._waiting:
            message = self._waiting.popleft()
            self._fewer.set()
            try:
                await self._handler(message)
            except Exception:
                logger.exception("%s: the handler failed", self._about)
        if self._dropped:
            logger.warning("%s: %d messages were dropped; the handler has caught up", self._about, self._dropped)
            self._dropped = 0
