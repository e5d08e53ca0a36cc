"""Plays a run: claims it, commits each of the engine's steps as one transaction, and ends it or lets it wait."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from django.db import InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

from openvibe import canonical, engine, outcomes
from openvibe.compiler import CompiledWorkflow
from openvibe.events import Event as Fact
from openvibe.graph.saver import RowSaver
from openvibe.session import Session
from operators import definitions
from operators.models import Node, Run, Wait
from operators.models.checkpoint import DatabaseRows
from operators.models.statements import advance, insert, transaction_in_few_trips
from operators.services import compiled, doorbell, leases, timeline, waits
from operators.services.leases import Claim, ClaimLost
from operators.services.words import Words

logger = logging.getLogger(__name__)

#: No fault of the run's: the claim is gone, or nothing can be said without a database. Then the lease runs out, and the
#: run is played again from its last commit.
OUTSIDE = (ClaimLost, OperationalError, InterfaceError)


def perform(run_id: str) -> None:
    """Play a queued run until it ends, waits, or is handed back. Nothing to claim is no fault: bells ring twice."""
    claim = leases.take(run_id)
    if claim is None:
        return
    with leases.keeper.keeping(claim):
        try:
            _perform(Performance(claim))
        except ClaimLost:
            logger.info("Run %s went on without this worker (epoch %d)", run_id, claim.epoch)
        finally:
            _release()


def _perform(performance: Performance) -> None:
    try:
        performance.play()
    except OUTSIDE:
        raise
    except Exception as error:
        # Played again it would break again, for ever and unseen.
        logger.exception("A run broke outside of its nodes")
        performance.fail(error)


def _release() -> None:
    # A pool gets its connection back while a node plays; SQLite has none to share, and reopening costs more.
    # Inside a caller's transaction it is the caller's.
    if connection.vendor != "sqlite" and not connection.in_atomic_block:
        connection.close()


class Performance:
    """One claim's play."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._run = claim.run
        self._saver = RowSaver(DatabaseRows(), collect=True, fresh=claim.fresh)
        self._words = Words(claim.run)
        self._since = time.monotonic()

    def play(self) -> None:
        """Play to the end, to a wait, or to the next boundary if this process is stopping."""
        workflow = compiled.workflow(self._run.operator.slug, self._run.workflow.slug)
        if workflow is None:
            self._commit(outcomes.Progress(outcome=_undefined(self._run)))
            return
        for progress in self._progress(workflow):
            self._commit(progress)
            if progress.outcome is None and leases.stopping.is_set():
                self._hand_back()
                return

    def fail(self, error: Exception) -> None:
        """End the run because of a fault outside of its nodes; what the last step left uncommitted is dropped."""
        self._saver.collected()
        trace = "".join(traceback.format_exception(error))
        explained = f"OpenVibe could not go on with this run: {error}"
        self._commit(outcomes.Progress(outcome=outcomes.Failed(explained, kind=type(error).__name__, traceback=trace)))

    def record(self, fact: Fact) -> None:
        """Commit a fact at once, in the middle of a step (see `openvibe.session.Observer`)."""
        with transaction.atomic():
            self._change([fact])
        _release()

    def words(self, *, node: str, step_id: str, text: str) -> None:
        """Pass on a model's words (see `openvibe.session.Observer`)."""
        self._words.add(node=node, step_id=step_id, text=text)

    def _progress(self, workflow: CompiledWorkflow) -> Any:
        run = self._run
        chosen = Node.objects.filter(workflow_id=run.workflow_id).exclude(model="").values_list("slug", "model")
        session = Session(definitions.provider(), models=dict(chosen), observer=self)
        interrupts = [] if self._claim.fresh else self._saver.pending_interrupts(run.id)
        # Without a checkpoint the run never came past its start, whatever its epoch.
        begun = not self._claim.fresh and self._saver.get_tuple({"configurable": {"thread_id": run.id}}) is not None
        answers = waits.answers(run.id, interrupts)
        _release()
        return engine.play(
            workflow,
            saver=self._saver,
            thread_id=run.id,
            session=session,
            start=None if begun else run.input,
            answers=answers,
            outside=OUTSIDE,
        )

    def _commit(self, progress: outcomes.Progress) -> None:
        self._words.flush()
        checkpoints, writes = self._saver.collected()
        now = timezone.now()
        facts, opened, changes = _outcome(self._run, progress.outcome, now=now)
        if not (checkpoints or writes or progress.events or facts):
            return
        with transaction_in_few_trips():
            self._change([*progress.events, *facts], grown=_grown(progress), **changes)
            DatabaseRows().save(checkpoints, writes)
            insert(opened)
            if changes.get("status") in (Run.Status.COMPLETED, Run.Status.FAILED):
                waits.cancel_open(self._run.id, now=now)
        _release()

    def _hand_back(self) -> None:
        with transaction.atomic():
            self._change([Fact("run.handed_back")], status=Run.Status.QUEUED, lease_until=None, rung_at=None)
            transaction.on_commit(lambda: doorbell.ring(self._run.id))

    def _change(self, facts: list[Fact], *, grown: Mapping[str, Any] = MappingProxyType({}), **changes: Any) -> None:
        """Change the run under its claim and record what happened; part of the caller's transaction."""
        now, until = timezone.now(), leases.until()
        ran = time.monotonic() - self._since
        last_seq = advance(
            Run,
            where={"id": self._run.id, "epoch": self._claim.epoch, "status": Run.Status.RUNNING},
            put={"lease_until": until, "updated_at": now, **changes},
            add={"last_seq": len(facts), "running_seconds": ran, **grown},
            returning="last_seq",
        )
        if last_seq is None:
            raise ClaimLost(self._run.id)
        self._since += ran
        timeline.record(project_id=self._run.project_id, run_id=self._run.id, last_seq=last_seq, facts=facts, now=now)


def _grown(progress: outcomes.Progress) -> dict[str, Any]:
    figures = progress.figures
    grown = {name: getattr(figures, name) for name in figures.__slots__}
    return {name: amount for name, amount in grown.items() if amount}


def _outcome(
    run: Run, outcome: outcomes.Outcome | None, *, now: datetime
) -> tuple[list[Fact], list[Wait], dict[str, Any]]:
    """Return the events, the new waits and the changes of the run that an outcome means."""
    ended = {"ended_at": now, "lease_until": None}
    match outcome:
        case outcomes.Completed(output):
            fact = Fact("run.completed", data={"output": output})
            return [fact], [], {"status": Run.Status.COMPLETED, "output": output, **ended}
        case outcomes.Failed() as failed:
            told = {"message": failed.error, "kind": failed.kind, "node": failed.node, "traceback": failed.traceback}
            error = canonical.jsonable(told)
            fact = Fact("run.failed", node=failed.node, data=error)
            return [fact], [], {"status": Run.Status.FAILED, "error": error, **ended}
        case outcomes.Paused(gates):
            opened, facts = waits.opening(run, gates, now=now)
            return facts, opened, {"status": Run.Status.WAITING, "lease_until": None}
        case _:
            return [], [], {}


def _undefined(run: Run) -> outcomes.Failed:
    where = f"{run.operator.slug}.{run.workflow.slug}"
    return outcomes.Failed(
        error=f"No worker knows the workflow {where}; is its module in OPENVIBE_OPERATORS?", kind="SetupError"
    )
