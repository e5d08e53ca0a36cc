"""One client, hence one connection pool, for all threads of a process."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Client(Protocol):
    """What holds connections."""

    def close(self) -> None:
        """Close them."""


T = TypeVar("T", bound=Client)


class PerProcess(Generic[T]):
    """Makes a client when it is first asked for, and another one in a forked process.

    A fork would share its parent's sockets, and both would read each other's answers.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, tuple[Lock, list[T]]] = {}

    def get(self) -> T:
        """Return this process's own client."""
        lock, made = self._own()
        with lock:
            if not made:
                made.append(self._make())
            return made[0]

    def close(self) -> None:
        """Close this process's client; the next `get` makes a new one."""
        lock, made = self._own()
        with lock:
            while made:
                made.pop().close()

    def _own(self) -> tuple[Lock, list[T]]:
        return self._made.setdefault(os.getpid(), (Lock(), []))
