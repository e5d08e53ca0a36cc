"""Ending asyncio tasks for certain.

Python 3.11's `asyncio.wait_for`, on which the NATS client stands, loses a cancellation that meets a result: the task
goes on as if nobody had cancelled it, and whoever waits for its end waits for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: After how many seconds a task that still runs is cancelled again.
PAUSE = 0.2


async def cancel(tasks: Collection[asyncio.Task[Any]], *, pause: float = PAUSE) -> None:
    """Cancel tasks, again every `pause` seconds, and return when all have ended; what they raise is left to them."""
    cancelled = False
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        try:
            await asyncio.wait(left, timeout=pause)
        except asyncio.CancelledError:
            # Whoever cancels this must not leave those behind whom it cancels.
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns, or raise what it raises.

    Raises:
        TimeoutError: it took longer; it is cancelled and has ended.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        await cancel([task])
    if task.cancelled():
        raise TimeoutError
    return task.result()
