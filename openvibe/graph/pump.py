"""Plays an asynchronous graph for a synchronous reader, one part at a time and never ahead of it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from openvibe import loop

#: How long a node may take, in seconds, to notice that it is cancelled.
PATIENCE = 30.0


def parts(stream: Callable[[], AsyncGenerator[Any]]) -> Iterator[Any]:
    """Yield what an asynchronous generator yields. Closing this generator ends that one, and waits for its end.

    It is iterated in one task, because LangGraph's context variables belong to the task that set them.
    """
    given: queue.Queue[tuple[Any, BaseException | None, bool]] = queue.Queue()
    wanted = asyncio.Semaphore(0)

    over = threading.Event()

    async def pump() -> None:
        try:
            await wanted.acquire()
            async with contextlib.aclosing(stream()) as source:
                async for part in source:
                    given.put((part, None, False))
                    await wanted.acquire()
        except BaseException as error:
            given.put((None, error, True))
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            given.put((None, None, True))
        finally:
            over.set()

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
        # What it still writes must not meet a later play.
        over.wait(PATIENCE)
