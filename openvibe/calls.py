"""The calls to the outside that runs are making just now, so that whoever ends a run can hang up."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: Ends what a step waits for, at once; the reason is raised where it waits.
HangUp = Callable[[Exception], object]


class Calls(Generic[K]):
    """Calls in the making, by the key of whose they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[K, list[HangUp]] = defaultdict(list)

    @contextmanager
    def making(self, key: K, hang_up: HangUp) -> Iterator[None]:
        """Make a call inside the block."""
        with self._lock:
            self._made[key].append(hang_up)
        try:
            yield
        finally:
            with self._lock:
                self._made[key].remove(hang_up)
                if not self._made[key]:
                    del self._made[key]

    def keys(self) -> list[K]:
        """Return whose calls are being made."""
        with self._lock:
            return list(self._made)

    def hang_up(self, key: K, reason: Exception) -> None:
        """End all calls of this key; `reason` is raised where they wait."""
        with self._lock:
            found = list(self._made.get(key, ()))
        for hang_up in found:
            hang_up(reason)
