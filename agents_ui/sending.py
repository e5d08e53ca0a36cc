"""Sends frames to a browser: at once where its server takes them, later and several as one where it does not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import coroutine
from typing import Any

logger = logging.getLogger(__name__)

#: How many frames may wait for a slow socket before it is cut off; it comes back and catches up.
BACKLOG = 500
#: The most characters of several frames that go out as one: daphne sends no more than 1 MiB.
LONGEST = 256 * 1024


class Socket:
    """One browser's connection: what its page holds already, and the frames on their way to it.

    `pass_on` hands the server an ASGI message; `cut` closes the connection of a page that misses frames.
    """

    def __init__(
        self,
        pass_on: Callable[[dict[str, Any]], Coroutine[Any, Any, None]],
        cut: Callable[[], Awaitable[None]],
        *,
        after: int,
        hints: str = "",
    ) -> None:
        self.after = after
        self.hints = hints
        self._pass_on = pass_on
        self._cut = cut
        self._frames: list[str] = []
        self._sending: asyncio.Task[None] | None = None
        self._ended = False

    def send(self, frame: str) -> None:
        """Send a frame after those that wait; a socket that cannot keep up is cut off."""
        if not frame or self._ended:
            return
        if self._sending is None:
            rest = _begin(self._pass_on({"type": "websocket.send", "text": frame}))
            if rest is not None:
                self._sending = asyncio.create_task(self._send_on(rest))
        elif len(self._frames) < BACKLOG:
            self._frames.append(frame)
        else:
            self._ended = True

    def leave(self) -> None:
        """Send no more."""
        self._ended = True
        if self._sending is not None:
            self._sending.cancel()

    async def _send_on(self, rest: Awaitable[None]) -> None:
        """Wait until a frame is sent, and send those that come meanwhile."""
        try:
            await rest
            while self._frames and not self._ended:
                await self._pass_on({"type": "websocket.send", "text": self._next()})
            if not self._ended:
                return
        except OSError:
            # Whoever has left needs no word of it.
            self._ended = True
            return
        except Exception:
            # A page that hears no more must not say that it is live; it comes back and catches up.
            logger.exception("A frame could not be sent")
            self._ended = True
        finally:
            self._sending = None
        self._frames.clear()
        await self._cut()

    def _next(self) -> str:
        """Take what waits as one frame, or the first of it where that would be too much."""
        number = size = 0
        while number < len(self._frames) and (not number or size + len(self._frames[number]) <= LONGEST):
            size += len(self._frames[number])
            number += 1
        taken = "".join(self._frames[:number])
        del self._frames[:number]
        return taken


def _begin(work: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Do work at once until it has to wait for something; return what is left of it then, if there is any.

    Hundreds of sockets are sent each frame, and hardly one makes its server wait: a task for each, and the event loop's
    turn that wakes it, would cost more than the sending. (Python 3.12 has eager tasks for this.)
    """
    try:
        awaited = work.send(None)
    except StopIteration:
        return None
    except Exception as error:
        return _failed(error)
    return _resumed(work, awaited)


async def _failed(error: Exception) -> None:
    raise error


@coroutine
def _resumed(work: Coroutine[Any, Any, None], awaited: Any) -> Generator[Any, Any, None]:
    """Wait for what the work was waiting for, and let it go on."""
    try:
        yield awaited
    except BaseException:
        work.close()
        raise
    yield from work
