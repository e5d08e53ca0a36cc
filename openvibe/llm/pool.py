"""One client, hence one connection pool, for all threads of a process."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Makes a thing when it is first asked for, and again in a forked process.

    A fork would share its parent's sockets, and both would read each other's answers.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, tuple[Lock, list[T]]] = {}

    def get(self) -> T:
        """Return this process's own."""
        lock, made = self._made.setdefault(os.getpid(), (Lock(), []))
        with lock:
            if not made:
                made.append(self._make())
        return made[0]
