"""Keeps the sessions' logs: what the database holds of a session, and its file does not yet, is written behind it.

One process a folder does it, whoever gets the folder's lock; when it dies, the next one goes on from where each file
ends.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection
from django.utils import timezone

from openvibe.protocol import subjects
from operators.models import Event, Node, Run
from operators.services import session_records, timeline
from operators.services.session_log import SessionLog

logger = logging.getLogger(__name__)

#: Seconds between two looks for new events, and between two looks at all sessions of the last days.
PERIOD, LONG_PERIOD = 1.0, 3600.0
#: So many events before the newest one that was seen may still be on their way into the database.
MARGIN = 2000
#: Events that are written at a time.
PART = 500


def of(run: Run) -> SessionLog | None:
    """Return a session's log, or None where none is kept."""
    folder: Path | None = settings.OPENVIBE.session_log
    if folder is None:
        return None
    path = folder / run.project_id / f"{subjects.token(run.id)}.jsonl"
    return SessionLog(path, settings.OPENVIBE.session_log_mib * 1024 * 1024)


def write_until(ended: threading.Event) -> None:
    """Keep the logs until told to stop."""
    folder: Path | None = settings.OPENVIBE.session_log
    if folder is None:
        return
    keeper = Keeper(folder)
    while not ended.is_set():
        try:
            keeper.look()
        except Exception:
            # The disk is full, or the database away: what is not written now is written later.
            logger.exception("The sessions' logs could not be written")
            close_old_connections()
        if connection.vendor != "sqlite":
            connection.close()
        ended.wait(PERIOD)
    keeper.close()


@dataclass
class Keeper:
    """Who writes the logs of one folder, if nobody else does."""

    folder: Path
    _lock: int | None = None
    _seen: int = 0
    _long_look_at: float | None = None
    _written: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        """Write what is new; nothing if another process keeps this folder."""
        if not self._locked():
            return
        workflows = list(Node.objects.filter(kind="remote").values_list("workflow_id", flat=True).distinct())
        if not workflows:
            return
        newest = Event.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        runs = Run.objects.filter(workflow__in=workflows, archived_at=None)
        if self._long_look_at is None or time.monotonic() - self._long_look_at > LONG_PERIOD:
            self._long_look_at = time.monotonic()
            old = timezone.now() - timedelta(days=settings.OPENVIBE.session_log_days)
            self._forget(old)
            runs = runs.filter(updated_at__gte=old)
        else:
            fresh = Event.objects.filter(pk__gt=self._seen - MARGIN, run__workflow__in=workflows)
            runs = runs.filter(pk__in=fresh.values("run_id"))
        self._written = {run.id: self._kept(run) for run in runs.only("id", "project_id", "last_seq")}
        self._seen = newest

    def close(self) -> None:
        """Let another process do it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _kept(self, run: Run) -> int:
        """Bring a session's file up to date and return its newest record's number, or -1 if that cannot be done."""
        log = of(run)
        assert log is not None
        try:
            return self._added(log, run)
        except DatabaseError:
            raise
        except Exception as error:
            # One file, or event, that cannot be written, or read, must not hold the others up.
            logger.error("The log of session %s could not be written: %s: %s", run.id, type(error).__name__, error)
            return -1

    def _added(self, log: SessionLog, run: Run) -> int:
        written = self._written.get(run.id, -1)
        written = log.last() if written < 0 else written
        while written < run.last_seq:
            events = timeline.read(run.project_id, subjects.thread(run.id), after=written, limit=PART)
            if not events:
                break
            log.append([session_records.of(event.wire()) for event in events])
            written = events[-1].seq
        return written

    def _forget(self, old: datetime) -> None:
        for path in self.folder.glob("*/*.jsonl*"):
            if path.stat().st_mtime < old.timestamp():
                path.unlink(missing_ok=True)

    def _locked(self) -> bool:
        if self._lock is not None:
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True
