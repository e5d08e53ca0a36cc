"""A server's start and end, where it tells of them: uvicorn does, daphne does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from operators.link import link
from operators.services import announcements

#: How long what was recorded here may take to be announced before the clock is left to do it, in seconds.
ANNOUNCING = 1.0


async def live(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Begin, and at the end announce what is still to be announced and leave the bus."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.to_thread(announcements.settle, ANNOUNCING)
    await link.close()
    await send({"type": "lifespan.shutdown.complete"})
