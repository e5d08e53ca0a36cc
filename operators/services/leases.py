"""A worker's claims on runs: taken by a conditional update, kept alive by one thread, given up when told to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Any

from django.conf import settings
from django.db import close_old_connections, connection, transaction
from django.utils import timezone

from openvibe.events import Event as Fact
from operators.models import Event, Run
from operators.models.event import EventRow
from operators.models.lookup import look_up
from operators.models.renewals import renew
from operators.models.stroke import Change, Insert, strike
from operators.services import announcements, doorbell, limits, serving, timeline, turns

logger = logging.getLogger(__name__)

#: Set when this process is about to end: every run is handed back at its next boundary.
stopping = threading.Event()


class ClaimLost(Exception):
    """Somebody else holds the run now, or it has ended; whatever this worker still does changes nothing."""


@dataclass(frozen=True)
class Taking:
    """How a run is taken: under which condition, what changes then, and what the timeline tells of it."""

    where: Mapping[str, Any]
    put: Mapping[str, Any]
    fact: Fact


@dataclass(frozen=True)
class Claim:
    """The right to write for one run. `fresh` says that the run has never been played.

    With a `taking` it is none yet: the first write under it takes the run, too, or finds that somebody was faster.
    """

    run: Run
    epoch: int
    taking: Taking | None = None

    @property
    def fresh(self) -> bool:
        """Whether this is the first claim of a run that has no checkpoints yet; a fork begins with its source's."""
        return self.epoch == 1 and not self.run.forked_at

    @property
    def started_at(self) -> datetime:
        """When the run's first play began, as every later one will find it."""
        began: datetime | None = self.taking.put["started_at"] if self.taking else self.run.started_at
        assert began is not None
        return began


def until() -> datetime:
    """Return when a lease that is renewed now runs out."""
    return timezone.now() + timedelta(seconds=settings.OPENVIBE.lease_seconds)


def take(run_id: str, *, by_writing: bool = False) -> Claim | None:
    """Claim a queued run, or return None because there is nothing to claim.

    Where a limit makes runs wait it is the run whose turn it is: any bell is good for one of them. A run whose operator
    this process does not hold stays queued, for a worker that does. If it may be taken `by_writing`, a run that
    begins at its start is left to the first write under its claim: one transaction less.
    """
    run = _queued(run_id)
    if run is None:
        return None
    if not serving.holds(run.operator):
        logger.info("Run %s stays queued: this worker does not hold %s", run_id, run.operator.slug)
        return None
    found = limits.queue(run.operator)
    if found is not None:
        return _in_turn(run, found)
    new = Claim(run, epoch=run.epoch + 1, taking=_taking(run))
    # What was rung for again may have killed whoever began it, and that is counted by claims.
    return new if by_writing and new.fresh and not run.rings else _claimed(run)


def leave(run_id: str) -> None:
    """Let another worker hear of a run that this one does not take."""
    run = _queued(run_id)
    if run is not None:
        doorbell.ring(run.id, run.operator)


def hold(claim: Claim) -> Claim:
    """Take a run at once after all. Raises `ClaimLost` if somebody was faster."""
    if (held := _claimed(claim.run)) is None:
        raise ClaimLost(claim.run.id)
    return held


def _queued(run_id: str) -> Run | None:
    return look_up(Run, "operator", "operator__project", "workflow", id=run_id, status=Run.Status.QUEUED)


def _taking(run: Run) -> Taking:
    now = timezone.now()
    return Taking(
        where={"id": run.id, "status": Run.Status.QUEUED, "epoch": run.epoch},
        put={
            "status": Run.Status.RUNNING,
            "epoch": run.epoch + 1,
            "lease_until": until(),
            "started_at": run.started_at or now,
            "updated_at": now,
            "told": False,
        },
        fact=_begun(run, run.epoch + 1),
    )


def _claimed(run: Run) -> Claim | None:
    """Take this very run, if nobody else was faster."""
    taking = _taking(run)
    facts = timeline.rows(project_id=run.project_id, run_id=run.id, facts=[taking.fact], now=taking.put["updated_at"])
    change = Change(
        Run,
        where=taking.where,
        put=taking.put,
        add={"last_seq": len(facts)},
        counter="last_seq",
        inserts=[Insert(Event, facts, numbered="seq")],
    )
    if strike(change) is None:
        return None
    claim = taken(run, taking, facts)
    timeline.announce(facts)
    return claim


def taken(run: Run, taking: Taking, told: Sequence[EventRow]) -> Claim:
    """Note that a run has been taken, as the first of these events tells; return the claim on it."""
    for name, value in taking.put.items():
        setattr(run, name, value)
    turns.meet(run, seq=told[0].seq - 1, epoch=run.epoch)
    return Claim(run, run.epoch)


@transaction.atomic
def _in_turn(run: Run, queue: limits.Queue) -> Claim | None:
    """Claim the next run of the queue in which this one stands, if there is a free slot."""
    queue.hold()
    following = queue.turns().values_list("id", flat=True).first()
    chosen = _queued(following) if following else None
    if chosen is None:
        return None
    if not serving.holds(chosen.operator):
        # Its turn comes first, and its own workers are to hear of it.
        transaction.on_commit(partial(doorbell.ring, chosen.id, chosen.operator))
        return None
    claim = _claimed(chosen)
    if claim and claim.run.id != run.id:
        # This bell was good for another run; if there is a slot for one more, somebody must hear of it.
        limits.freed(run.operator)
    return claim


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
        self._claims: list[Claim] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keeping(self, claim: Claim) -> Iterator[None]:
        """Keep a claim alive for as long as the block runs."""
        with self._lock:
            self._claims.append(claim)
            announcements.announcer.playing = len(self._claims)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._renew_for_ever, name="leases", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                # Of two threads that heard of the same new run the slower one leaves, and the other keeps its lease.
                self._claims.remove(claim)
                announcements.announcer.playing = len(self._claims)

    def _renew_for_ever(self) -> None:
        pause = threading.Event()
        while not pause.wait(settings.OPENVIBE.lease_seconds / 3):
            try:
                self._renew()
            except Exception:
                # A lease that cannot be renewed runs out, and its run is played elsewhere: safe, only slower. Without
                # this thread that would come of all of them, whatever its fault was.
                logger.exception("Leases could not be renewed")
                close_old_connections()

    def _renew(self) -> None:
        with self._lock:
            claims = {claim.run.id: claim.epoch for claim in sorted(self._claims, key=attrgetter("epoch"))}
        renew(claims, until=until())
        if connection.vendor != "sqlite":
            connection.close()


keeper = Keeper()
