"""The line on which a try waits for somebody outside, such as a model: from elsewhere it can be hung up at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Line:
    """One try's line. Once it was hung up it stays so: every later call on it is refused with the same reason."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closes: list[Callable[[], object]] = []
        self._talks = 0
        self._reason: Exception | None = None

    def hang_up(self, reason: Exception) -> bool:
        """End what is being waited for, and let `reason` be raised there; tell whether somebody was on the line."""
        with self._lock:
            self._reason = self._reason or reason
            # Under the lock, so that nothing is closed that its waiter has given back already.
            for close in self._closes:
                close()
            return self._talks > 0

    def check(self) -> None:
        """Raise the reason for which the line was hung up, if it was."""
        if self._reason is not None:
            raise self._reason

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Make it the line of everything that waits inside the block; what fails there after it was hung up is that."""
        with self._lock:
            self.check()
            self._talks += 1
        before = _current.set(self)
        try:
            yield
        except Exception as error:
            if self._reason is None or error is self._reason:
                raise
            raise self._reason from error
        finally:
            _current.reset(before)
            with self._lock:
                self._talks -= 1

    @contextmanager
    def held(self, close: Callable[[], object]) -> Iterator[None]:
        """Wait inside the block for something that ends, in whatever way, when somebody else calls `close`."""
        with self._lock:
            self.check()
            self._closes.append(close)
        try:
            yield
        finally:
            with self._lock:
                self._closes.remove(close)


_current: ContextVar[Line] = ContextVar("openvibe_line")


def current() -> Line:
    """Return the line of whoever calls; outside of every try it is one that nobody hangs up."""
    return _current.get(None) or Line()
