"""A few clients, hence connection pools, for all threads of a process."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from threading import Lock, local
from typing import Generic, Protocol, TypeVar


class Client(Protocol):
    """What holds connections."""

    def close(self) -> None:
        """Close them."""


T = TypeVar("T", bound=Client)


#: How many clients the threads of a process share: what a pool does for one call takes as long as it holds connections.
SHARES = 16


class PerProcess(Generic[T]):
    """Makes a client when a thread first asks for it, and others in a forked process.

    A fork would share its parent's sockets, and both would read each other's answers.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, tuple[Lock, dict[int, T]]] = {}

    def get(self) -> T:
        """Return the client of the calling thread."""
        lock, made = self._own()
        share = _shares.mine()
        with lock:
            if share not in made:
                made[share] = self._make()
            return made[share]

    def close(self) -> None:
        """Close this process's clients; the next `get` makes a new one."""
        lock, made = self._own()
        with lock:
            while made:
                made.popitem()[1].close()

    def _own(self) -> tuple[Lock, dict[int, T]]:
        return self._made.setdefault(os.getpid(), (Lock(), {}))


class _Shares(local):
    """Deals the shares out to threads, one after the other."""

    _dealt = itertools.count()
    _mine: int | None = None

    def mine(self) -> int:
        if self._mine is None:
            self._mine = next(self._dealt) % SHARES
        return self._mine


_shares = _Shares()
