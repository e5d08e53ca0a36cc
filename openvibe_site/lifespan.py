"""A server's start and end, where it tells of them: uvicorn of both, daphne, by its reactor, of its end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from operators.link import link
from operators.services import announcements

#: How long what was recorded here may take to be announced before the clock is left to do it, in seconds.
ANNOUNCING = 1.0
#: How long other work on the loop may take to end once it is cancelled, in seconds.
ENDING = 1.0


async def live(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Begin, and end in order."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await _end()
    await send({"type": "lifespan.shutdown.complete"})


def end_with_daphne() -> None:
    """End in order before daphne's reactor does, if it is daphne that serves."""
    if "daphne.server" not in sys.modules:
        return
    # Whoever imports it first chooses the reactor, and daphne has.
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    def ending() -> Deferred[None]:
        return Deferred.fromFuture(asyncio.ensure_future(_end_all()))

    # Its stubs forget that a phase is named before what happens in it.
    reactor.addSystemEventTrigger("before", "shutdown", ending)  # type: ignore[arg-type]


async def _end() -> None:
    """Announce what is still to be announced and leave the bus."""
    await asyncio.to_thread(announcements.settle, ANNOUNCING)
    await link.close()


async def _end_all() -> None:
    """End, and with it all other work on the loop: daphne would leave it to an interpreter that takes itself apart."""
    try:
        await _end()
    finally:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=ENDING)
