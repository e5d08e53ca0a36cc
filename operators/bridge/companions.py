"""Tasks that live and end together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from openvibe import cancelling

logger = logging.getLogger(__name__)
Work = Callable[[], Coroutine[Any, Any, None]]

#: How long a work rests that broke off, in seconds.
PAUSE = 0.5


async def lasting(name: str, work: Work) -> None:
    """Do a work to its end; whenever it breaks off, by whatever, that is told, and it begins anew."""
    while True:
        try:
            return await work()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody wants this to end: what it waited for was cancelled.
            logger.warning("%s broke off, since what it waited for was cancelled; it begins anew", name)
        except Exception:
            logger.exception("%s broke off; it begins anew", name)
        await asyncio.sleep(PAUSE)


async def beside(*works: Coroutine[Any, Any, None]) -> None:
    """Run these until one ends, then cancel the others; what that one raised is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        await cancelling.cancel(tasks)
