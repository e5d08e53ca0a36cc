"""A bus whose methods are plain functions, made one that can be awaited. Each call runs in a thread."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

from openvibe.bus.protocol import (
    Bus,
    Entry,
    Handler,
    Message,
    Pull,
    ServeHandler,
    Unsubscribe,
    WatchHandler,
    one_by_one,
)
from openvibe.errors import BusError, SetupError
from openvibe.protocol.streams import Stream

T = TypeVar("T")

#: How many calls may wait in threads at a time; every reader of a stream waits in one.
MOST_THREADS = 128
_METHODS = [name for name, member in vars(Bus).items() if inspect.iscoroutinefunction(member)]


def is_ready(thing: Any) -> bool:
    """Tell whether everything that a bus offers is there and can be awaited."""
    return all(inspect.iscoroutinefunction(getattr(thing, name, None)) for name in _METHODS)


class Adapter:
    """A bus over an object that offers some of a bus's methods, as plain functions or coroutines.

    The plain ones are given handlers that are plain functions, to be called from any thread but the event loop's.
    """

    def __init__(self, thing: Any) -> None:
        if not callable(getattr(thing, "publish", None)):
            raise SetupError(f"{thing!r} is no bus: it has no method 'publish'")
        self._thing = thing
        self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="bus")
        self._closed = False

    @property
    def connected(self) -> bool:
        """See `Bus.connected`."""
        return bool(getattr(self._thing, "connected", not self.closed))

    @property
    def closed(self) -> bool:
        """See `Bus.closed`."""
        return bool(getattr(self._thing, "closed", self._closed))

    async def connect(self) -> None:
        """See `Bus.connect`."""
        if hasattr(self._thing, "connect"):
            await self._call("connect")
        self._closed = False

    async def close(self) -> None:
        """See `Bus.close`."""
        if hasattr(self._thing, "close"):
            await self._call("close")
        self._closed = True

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """See `Bus.publish`."""
        await self._call("publish", subject, data, headers=headers)

    async def store(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """See `Bus.store`."""
        await self._call("store", subject, data, headers=headers)

    async def store_all(self, messages: Sequence[Message]) -> Sequence[BusError | None]:
        """See `Bus.store_all`. What knows no such method is given one message after the other."""
        if not hasattr(self._thing, "store_all"):
            return await one_by_one(self, messages)
        faults: Sequence[BusError | None] = await self._call("store_all", messages)
        return faults

    async def subscribe(self, pattern: str, handler: Handler) -> Unsubscribe:
        """See `Bus.subscribe`."""
        return self._ending(await self._call("subscribe", pattern, self._given("subscribe", handler)))

    async def request(
        self, subject: str, data: bytes, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> Message:
        """See `Bus.request`."""
        answer: Message = await self._call("request", subject, data, timeout=timeout, headers=headers)
        return answer

    async def serve(self, pattern: str, handler: ServeHandler, *, queue: str = "") -> Unsubscribe:
        """See `Bus.serve`."""
        return self._ending(await self._call("serve", pattern, self._given("serve", handler), queue=queue))

    async def serve_service(
        self, name: str, *, version: str, description: str = "", endpoints: Mapping[str, ServeHandler]
    ) -> Unsubscribe:
        """See `Bus.serve_service`."""
        given = {subject: self._given("serve_service", handler) for subject, handler in endpoints.items()}
        return self._ending(
            await self._call("serve_service", name, version=version, description=description, endpoints=given)
        )

    async def ensure(self, streams: Sequence[Stream]) -> None:
        """See `Bus.ensure`."""
        await self._call("ensure", streams)

    async def pull(self, stream: str, *, durable: str, patterns: Sequence[str]) -> Pull:
        """See `Bus.pull`."""
        return _AdaptedPull(await self._call("pull", stream, durable=durable, patterns=patterns), self._run)

    async def put_kv(self, bucket: str, key: str, value: bytes, *, revision: int | None = None) -> int:
        """See `Bus.put_kv`."""
        return int(await self._call("put_kv", bucket, key, value, revision=revision))

    async def get_kv(self, bucket: str, key: str) -> bytes | None:
        """See `Bus.get_kv`."""
        value: bytes | None = await self._call("get_kv", bucket, key)
        return value

    async def entry_kv(self, bucket: str, key: str) -> Entry | None:
        """See `Bus.entry_kv`."""
        entry: Entry | None = await self._call("entry_kv", bucket, key)
        return entry

    async def delete_kv(self, bucket: str, key: str, *, revision: int | None = None) -> int:
        """See `Bus.delete_kv`."""
        return int(await self._call("delete_kv", bucket, key, revision=revision))

    async def keys_kv(self, bucket: str, prefix: str = "") -> Sequence[str]:
        """See `Bus.keys_kv`."""
        keys: Sequence[str] = await self._call("keys_kv", bucket, prefix)
        return keys

    async def history_kv(self, bucket: str, key: str) -> Sequence[Entry]:
        """See `Bus.history_kv`."""
        entries: Sequence[Entry] = await self._call("history_kv", bucket, key)
        return entries

    async def watch_kv(self, bucket: str, handler: WatchHandler) -> Unsubscribe:
        """See `Bus.watch_kv`."""
        return self._ending(await self._call("watch_kv", bucket, self._given("watch_kv", handler)))

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        act = getattr(self._thing, name, None)
        if act is None:
            raise BusError(f"The bus {type(self._thing).__name__} has no method {name!r}")
        return await self._run(act, *args, **options)

    async def _run(self, act: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if inspect.iscoroutinefunction(act):
            return await act(*args, **options)
        call = functools.partial(act, *args, **options)
        # Its own threads: whoever publishes may wait for handlers, which publish too.
        result = await asyncio.get_running_loop().run_in_executor(self._threads, call)
        return await result if inspect.isawaitable(result) else result

    def _given(self, name: str, handler: Callable[[Any], Awaitable[T]]) -> Callable[[Any], Any]:
        """Return the handler in the form that this method of the object calls."""
        if inspect.iscoroutinefunction(getattr(self._thing, name, None)):
            return handler
        loop = asyncio.get_running_loop()

        async def handle(message: Any) -> T:
            return await handler(message)

        return lambda message: asyncio.run_coroutine_threadsafe(handle(message), loop).result()

    def _ending(self, end: Any) -> Unsubscribe:
        async def unsubscribe() -> None:
            if end is not None:
                await self._run(end)

        return unsubscribe


class _AdaptedPull:
    """A reader whose methods, and whose messages' methods, may be plain functions."""

    def __init__(self, pull: Any, run: Callable[..., Awaitable[Any]]) -> None:
        self._pull = pull
        self._run = run

    async def fetch(self, most: int, *, timeout: float) -> Sequence[Message]:
        return [self._adapted(message) for message in await self._run(self._pull.fetch, most, timeout=timeout)]

    async def paused_until(self) -> str:
        return str(await self._run(self._pull.paused_until)) if hasattr(self._pull, "paused_until") else ""

    async def kept_since(self) -> datetime | None:
        found: datetime | None = None
        if hasattr(self._pull, "kept_since"):
            found = await self._run(self._pull.kept_since)
        return found

    async def close(self) -> None:
        if hasattr(self._pull, "close"):
            await self._run(self._pull.close)

    def _adapted(self, message: Message) -> Message:
        return dataclasses.replace(
            message, acknowledge=self._awaitable(message.acknowledge), refuse=self._awaitable(message.refuse)
        )

    def _awaitable(self, act: Callable[..., Any] | None) -> Any:
        return functools.partial(self._run, act) if act is not None else None
