"""Somebody's wish that the supervisor ends: Ctrl-C, SIGTERM, or a closed terminal."""

from __future__ import annotations

import signal
import time
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

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)
        # nohup ignores the closed terminal on purpose.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._hear)

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
