"""Plays an asynchronous graph for a synchronous reader, one part at a time and never ahead of it."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from openvibe import loop


def parts(stream: Callable[[], AsyncIterator[Any]]) -> Iterator[Any]:
    """Yield what an asynchronous iterator yields. Closing this generator ends that one.

    It is iterated in one task, because LangGraph's context variables belong to the task that set them.
    """
    given: queue.Queue[tuple[Any, BaseException | None, bool]] = queue.Queue()
    wanted = asyncio.Semaphore(0)

    async def pump() -> None:
        try:
            await wanted.acquire()
            async for part in stream():
                given.put((part, None, False))
                await wanted.acquire()
        except BaseException as error:
            given.put((None, error, True))
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            given.put((None, None, True))

    task = loop.submit(pump())
    try:
        while True:
            loop.call(wanted.release)
            part, error, ended = given.get()
            if error is not None:
                raise error
            if ended:
                return
            yield part
    finally:
        task.cancel()
