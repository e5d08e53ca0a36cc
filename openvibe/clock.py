"""A thread that does what is due when it is due, for runtimes that let time pass by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

logger = logging.getLogger(__name__)

#: The longest sleep in seconds: another process may put something into the same file.
LONGEST = 5.0


class Clock:
    """Calls `tick` whenever something is due."""

    def __init__(
        self, tick: Callable[[], Any], next_due: Callable[[], datetime | None], now: Callable[[], datetime]
    ) -> None:
        self._tick, self._next_due, self._now = tick, next_due, now
        self._rung = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._keep, name="openvibe-clock", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Look again: something may be due sooner."""
        self._rung.set()

    def stop(self) -> None:
        """End, once the present tick is over."""
        self._stopping.set()
        self._rung.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _keep(self) -> None:
        while not self._stopping.is_set():
            self._rung.clear()
            try:
                self._tick()
                due = self._next_due()
            except Exception:
                logger.exception("The clock missed a tick")
                due = None
            seconds = LONGEST if due is None else (due - self._now()).total_seconds()
            self._rung.wait(min(max(seconds, 0.0), LONGEST))
