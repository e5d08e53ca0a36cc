"""The one event loop of a process: synchronous code hands coroutines to it, from any thread."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar, cast

from openvibe.errors import SetupError

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Run a coroutine on the process's loop and return its result; when the wait ends early, so does the coroutine.

    The coroutine sees the caller's context variables. `timeout` is in seconds.

    Raises:
        TimeoutError: it did not end in time.
        SetupError: called on the loop's own thread, which would wait for itself for ever.

    Example:
        >>> loop.run(client.publish("hello"), timeout=5)
    """
    future = submit(coroutine)
    try:
        return future.result(timeout)
    except BaseException:
        future.cancel()
        raise


def submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the process's loop and return its future; cancelling that cancels the coroutine.

    Raises:
        SetupError: called on the loop's own thread, where nobody may wait for a future.
    """
    own = _of_this_process()
    if threading.current_thread() is own.thread:
        coroutine.close()
        raise SetupError(f"{coroutine!r} was handed to the loop on the loop's own thread; await it instead")
    return asyncio.run_coroutine_threadsafe(coroutine, own.loop)


def call(function: Callable[[], Any]) -> None:
    """Call a function on the loop's thread, soon."""
    _of_this_process().loop.call_soon_threadsafe(function)


def aside(thing: T) -> T:
    """Return what may be called from here: on the loop's own thread a stand-in that calls on another thread.

    The loop waits for it, as it would for any plain call.
    """
    # Asked without starting a loop: most processes never need one.
    own = _loops.get(os.getpid())
    return cast(T, _Aside(thing)) if own and threading.current_thread() is own.thread else thing


class _Aside:
    """Calls another object's methods on a thread where no loop runs."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._thing, name)
        return lambda *args, **options: _elsewhere().submit(method, *args, **options).result()


@cache
def _elsewhere() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="openvibe-aside")


class _Loop:
    """A running loop on a daemon thread of the process that made it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="openvibe-loop", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=1)
        if not self.loop.is_running():
            self.loop.close()


#: Loops by process id. A forked process inherits its parent's, whose thread does not exist there: it is kept, because
#: dropping it would complain about a loop that nobody closed, and never used.
_loops: dict[int, _Loop] = {}
_lock = threading.Lock()


def _of_this_process() -> _Loop:
    with _lock:
        pid = os.getpid()
        if pid not in _loops:
            _loops[pid] = _Loop()
        return _loops[pid]


def _renew_lock() -> None:
    # Another thread of the parent may have held the lock in the instant of the fork, and it does not exist here.
    global _lock
    _lock = threading.Lock()


def _stop() -> None:
    if own := _loops.pop(os.getpid(), None):
        own.stop()


os.register_at_fork(after_in_child=_renew_lock)
atexit.register(_stop)
