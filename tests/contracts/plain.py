"""A bus as somebody without asyncio would write it: plain functions that block, and handlers that are plain too."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from openvibe.bus import Message
from openvibe.bus.memory import MemoryBus
from openvibe.bus.memory_streams import MemoryPull


class PlainBus:
    """The memory bus on an event loop of its own, in a thread."""

    def __init__(self, request: pytest.FixtureRequest, **options: Any) -> None:
        self._bus = MemoryBus(**options)
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(128))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        request.addfinalizer(self._end)

    def __getattr__(self, name: str) -> Any:
        return self._plain(getattr(self._bus, name))

    def _plain(self, thing: Any) -> Any:
        """Return what the memory bus hands out, without anything that must be awaited."""
        if isinstance(thing, list):
            return [self._plain(each) for each in thing]
        if isinstance(thing, Message):
            return dataclasses.replace(
                thing, acknowledge=self._plain(thing.acknowledge), refuse=self._plain(thing.refuse)
            )
        if isinstance(thing, MemoryPull):
            return _PlainPull(self._plain(thing.fetch))
        if not inspect.iscoroutinefunction(thing):
            return thing

        def act(*args: Any, **options: Any) -> Any:
            given = [self._awaitable(each) for each in args]
            named = {name: self._awaitable(each) for name, each in options.items()}
            return self._plain(asyncio.run_coroutine_threadsafe(thing(*given, **named), self._loop).result())

        return act

    def _awaitable(self, given: Any) -> Any:
        """Return what a caller hands in as the memory bus wants it."""
        if isinstance(given, Mapping):
            return {name: self._awaitable(each) for name, each in given.items()}
        if not callable(given):
            return given
        assert not inspect.iscoroutinefunction(given), "a plain bus is given plain handlers"

        async def handle(message: Any) -> Any:
            return await asyncio.to_thread(given, message)

        return handle

    def _end(self) -> None:
        asyncio.run_coroutine_threadsafe(self._ended(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _ended(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()


@dataclasses.dataclass
class _PlainPull:
    fetch: Callable[..., Any]
