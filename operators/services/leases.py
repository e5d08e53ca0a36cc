"""A worker's claims on runs: taken by a conditional update, kept alive by one thread, given up when told to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection, transaction
from django.db.models import F, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from openvibe.events import Event as Fact
from operators.models import Run
from operators.services import timeline

logger = logging.getLogger(__name__)

#: Set when this process is about to end: every run is handed back at its next boundary.
stopping = threading.Event()


class ClaimLost(Exception):
    """Somebody else holds the run now, or it has ended; whatever this worker still does changes nothing."""


@dataclass(frozen=True)
class Claim:
    """The right to write for one run. `fresh` says that the run has never been played."""

    run: Run
    epoch: int

    @property
    def fresh(self) -> bool:
        """Whether this is the run's first claim."""
        return self.epoch == 1


def until() -> datetime:
    """Return when a lease that is renewed now runs out."""
    return timezone.now() + timedelta(seconds=settings.OPENVIBE.lease_seconds)


def take(run_id: str) -> Claim | None:
    """Claim a queued run, or return None because there is nothing to claim."""
    now = timezone.now()
    with transaction.atomic():
        changed = Run.objects.filter(id=run_id, status=Run.Status.QUEUED).change(
            "epoch",
            "last_seq",
            status=Run.Status.RUNNING,
            epoch=F("epoch") + 1,
            lease_until=until(),
            started_at=Coalesce(F("started_at"), Value(now)),
            last_seq=F("last_seq") + 1,
            updated_at=now,
        )
        if changed is None:
            return None
        epoch, last_seq = changed
        run = Run.objects.select_related("operator", "workflow").get(id=run_id)
        timeline.record(
            project_id=run.project_id,
            run_id=run_id,
            last_seq=last_seq,
            facts=[_begun(run, epoch)],
            now=now,
        )
    return Claim(run, epoch)


def _begun(run: Run, epoch: int) -> Fact:
    if epoch > 1:
        return Fact("run.resumed", data={"epoch": epoch})
    return Fact(
        "run.started",
        data={
            "operator": run.operator.slug,
            "operator_name": run.operator.name,
            "workflow": run.workflow.slug,
            "workflow_name": run.workflow.name,
        },
    )


class Keeper:
    """Renews the leases of everything that this process plays, from one thread."""

    def __init__(self) -> None:
        self._claims: dict[str, int] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keeping(self, claim: Claim) -> Iterator[None]:
        """Keep a claim alive for as long as the block runs."""
        with self._lock:
            self._claims[claim.run.id] = claim.epoch
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._renew_for_ever, name="leases", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                if self._claims.get(claim.run.id) == claim.epoch:
                    del self._claims[claim.run.id]

    def _renew_for_ever(self) -> None:
        pause = threading.Event()
        while not pause.wait(settings.OPENVIBE.lease_seconds / 3):
            try:
                self._renew()
            except DatabaseError:
                # A lease that cannot be renewed runs out, and its run is played elsewhere: safe, only slower.
                logger.exception("Leases could not be renewed")
                close_old_connections()

    def _renew(self) -> None:
        with self._lock:
            claims = dict(self._claims)
        for run_id, epoch in claims.items():
            Run.objects.claimed(run_id, epoch).update(lease_until=until())
        if connection.vendor != "sqlite":
            connection.close()


keeper = Keeper()
