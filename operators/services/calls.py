"""Calls of this process's runs to the outside: one thread looks whether the runs are still its own, and hangs up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import close_old_connections, connection

from openvibe.calls import Calls, HangUp
from operators.models import Run
from operators.services.leases import Claim, ClaimLost

logger = logging.getLogger(__name__)

#: How often the thread looks while calls are made, in seconds; it is one query, however many there are.
LOOK = 0.5


class Watched:
    """The calls, and the thread that looks after them while there are any."""

    def __init__(self) -> None:
        self._calls: Calls[tuple[str, int]] = Calls()
        self._begun = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def making(self, claim: Claim, hang_up: HangUp) -> Iterator[None]:
        """Make a call inside the block; it is hung up when the run is cancelled or somebody else's."""
        with self._calls.making((claim.run.id, claim.epoch), hang_up):
            self._begun.set()
            if self._thread is None or not self._thread.is_alive():
                self._start()
            yield

    def _start(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look_for_ever, name="calls", daemon=True)
                self._thread.start()

    def _look_for_ever(self) -> None:
        pause = threading.Event()
        while True:
            self._begun.wait()
            pause.wait(LOOK)
            self._begun.clear()
            made = self._calls.keys()
            if made:
                self._begun.set()
                self._look(made)

    def _look(self, made: list[tuple[str, int]]) -> None:
        try:
            rows = Run.objects.filter(id__in={run_id for run_id, _ in made}).values_list("id", "status", "epoch")
            held = {run_id: epoch if status == Run.Status.RUNNING else None for run_id, status, epoch in rows}
        except Exception:
            # Nobody knows then whose the runs are; the lease decides. The next look may find out.
            logger.exception("Calls could not be looked after")
            close_old_connections()
            return
        if connection.vendor != "sqlite":
            connection.close()
        for run_id, epoch in made:
            # A run that is not to be seen stands in its caller's own transaction.
            if held.get(run_id, epoch) != epoch:
                self._calls.hang_up((run_id, epoch), ClaimLost(run_id))


_watched = Watched()
making = _watched.making
