"""Somebody's wish that the supervisor ends: Ctrl-C, SIGTERM, or a closed terminal."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# `make`, `timeout` and terminals may deliver one wish twice; nobody presses Ctrl-C twice as fast as this.
SAME_WISH = 0.5


class Stopped(Exception):
    """Raised between two steps of starting when somebody no longer wants it."""


class Stop:
    """Remembers signals; whoever works looks here between two steps."""

    def __init__(self) -> None:
        self.asked = False
        self.hurried = False
        self._asked_at = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hears signals inside the block; a script goes on with its own handlers after it."""
        # nohup ignores the closed terminal on purpose.
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        numbers = (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))
        earlier = {number: signal.signal(number, self._hear) for number in numbers}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def pause(self, seconds: float) -> None:
        self.check()
        time.sleep(seconds)
        self.check()

    def check(self) -> None:
        if self.asked:
            raise Stopped

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._asked_at = True, now
        elif number == signal.SIGINT and now - self._asked_at > SAME_WISH:
            self.hurried = True
