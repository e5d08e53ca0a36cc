"""Threads of steps whose time was up: nobody can stop them, so that a process with a few of them ends in order."""

from __future__ import annotations

import logging
import threading

from django.conf import settings

logger = logging.getLogger(__name__)


class Strays:
    """This process's strays; `enough` is set when there are as many as a process may hold."""

    def __init__(self) -> None:
        self.enough = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def add(self, thread: threading.Thread) -> None:
        """Count a thread for as long as it lives."""
        with self._lock:
            self._threads = [each for each in (*self._threads, thread) if each.is_alive()]
            count = len(self._threads)
        most = settings.OPENVIBE.most_strays
        logger.warning("The time of %s is up and it does not end: stray %d of %d", thread.name, count, most)
        if count >= most:
            self.enough.set()


strays = Strays()
