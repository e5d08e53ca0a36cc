"""The shared context of a runtime, as a script reads, writes and watches it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Protocol

from openvibe import canonical
from openvibe.ctx import known_bucket
from openvibe.host import Change

#: How long a reader sleeps at most before it looks for what another process has put, in seconds.
LOOK_SECONDS = 0.5


class Store(Protocol):
    """What keeps the values: a runtime's ledger, or a host such as `MemoryHost`."""

    def value(self, bucket: str, key: str) -> Any:
        """Return a value, or None."""

    def entry(self, bucket: str, key: str) -> Change:
        """Return the latest revision of a value."""

    def first_after(self, bucket: str, key: str, revision: int) -> Change | None:
        """Return the first change of a value after this revision, or None."""

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Return a bucket's keys that begin with `prefix`, sorted."""

    def put(self, values: Mapping[tuple[str, str], Any]) -> None:
        """Keep values: (bucket, key) → value."""

    def await_news(self, seconds: float) -> None:
        """Return when a value has been put, or after so many seconds."""


class RuntimeContext:
    """Values that all operators of a runtime read and write, in five buckets.

    Example:
        >>> runtime.context.put("leads", "ada/score", 7)
        >>> for change in runtime.context.watch("leads", "ada/score", after=0, timeout=timedelta(seconds=5)):
        ...     print(change.revision, change.value)
    """

    def __init__(self, store: Store, changed: Callable[[], None]) -> None:
        self._store, self._changed = store, changed

    def get(self, bucket: str, key: str, default: Any = None) -> Any:
        """Return a value."""
        found = self._store.value(known_bucket(bucket), key)
        return default if found is None else found

    def entry(self, bucket: str, key: str) -> Change:
        """Return a value with its revision, which is 0 if it never was."""
        return self._store.entry(known_bucket(bucket), key)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return a bucket's keys that begin with `prefix`, sorted."""
        return self._store.keys(known_bucket(bucket), prefix)

    def put(self, bucket: str, key: str, value: Any) -> None:
        """Keep a value (any JSON), and play on the runs that have waited for it."""
        self._store.put({(known_bucket(bucket), key): canonical.jsonable(value)})
        self._changed()

    def watch(self, bucket: str, key: str, *, after: int, timeout: timedelta | None = None) -> Iterator[Change]:
        """Yield each change of a value after the revision that was seen (0 for none), and wait for the next one.

        It ends when none has come for `timeout`; without one it never does.
        """
        known_bucket(bucket)
        return self._changes(bucket, key, after, timeout.total_seconds() if timeout is not None else None)

    def _changes(self, bucket: str, key: str, revision: int, seconds: float | None) -> Iterator[Change]:
        since = time.monotonic()
        while True:
            change = self._store.first_after(bucket, key, revision)
            if change is not None:
                revision = change.revision
                yield change
                since = time.monotonic()
                continue
            left = LOOK_SECONDS if seconds is None else since + seconds - time.monotonic()
            if left <= 0:
                return
            self._store.await_news(min(left, LOOK_SECONDS))
