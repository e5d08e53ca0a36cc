"""Plays a run: claims it, commits each of the engine's steps as one transaction, and ends it or lets it wait."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from types import MappingProxyType
from typing import Any

from django.db import InterfaceError, InternalError, OperationalError, transaction
from django.utils import timezone

from openvibe import engine, outcomes
from openvibe.budgets import NOTHING, REFUSED
from openvibe.compiler import CompiledWorkflow
from openvibe.errors import BudgetRefused
from openvibe.events import RUN_COMPLETED, STEP_FINISHED, STEP_STARTED
from openvibe.events import Event as Fact
from openvibe.graph import history
from openvibe.graph.rows import CheckpointRow, MemoryRows, WriteRow
from openvibe.graph.saver import RowSaver
from openvibe.session import RunInfo, Session
from openvibe.visits import Visits
from operators import definitions
from operators.models import Card, Emission, Event, Run, Wait
from operators.models.checkpoint import DatabaseRows, stored
from operators.models.event import EventRow
from operators.models.stroke import Change, Insert, Update, strike
from operators.services import (
    boxes,
    budgets,
    cards,
    compiled,
    consequences,
    context,
    doorbell,
    emissions,
    endings,
    lanes,
    leases,
    limits,
    overrides,
    seats,
    timeline,
    waits,
)
from operators.services.hosting import ClaimHost, release
from operators.services.leases import Claim, ClaimLost
from operators.services.words import Words

logger = logging.getLogger(__name__)

#: The longest pause between two tries of a step for which a run keeps its thread, in seconds.
PATIENCE = 5.0

#: No fault of the run's: the claim is gone, or nothing can be said without a database. Then the lease runs out, and the
#: run is played again from its last commit.
OUTSIDE = (ClaimLost, OperationalError, InterfaceError, InternalError)


def perform(run_id: str) -> None:
    """Play a queued run until it ends, waits, or is handed back. Nothing to claim is no fault: bells ring twice."""
    with lanes.taken():
        if leases.stopping.is_set():
            # Nothing of it was begun yet: whoever stays hears the bell.
            leases.leave(run_id)
            return
        claim = leases.take(run_id, by_writing=True)
        if claim is None:
            return
        with leases.keeper.keeping(claim):
            try:
                _perform(Performance(claim))
            except ClaimLost:
                logger.info("Run %s went on without this worker (epoch %d)", run_id, claim.epoch)
            finally:
                release()


def _perform(performance: Performance) -> None:
    try:
        # In a graph that is not ours nobody knows where a node begins.
        with lanes.left() if performance.foreign else nullcontext():
            performance.play()
    except OUTSIDE:
        raise
    except Exception as error:
        # Played again it would break again, for ever and unseen.
        logger.exception("A run broke outside of its nodes")
        performance.fail(error)


class Performance:
    """One claim's play."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._run = claim.run
        operator = self._run.operator
        self._unplayable: Exception | None = None
        try:
            self._workflow = compiled.workflow(operator.slug, self._run.workflow.slug, operator.source)
        except Exception as error:
            # It ends the run, as whatever breaks it; without this it would be claimed until it had lost all workers.
            self._workflow, self._unplayable = None, error
        if claim.taking and self.foreign:
            # What it does before its first node, nobody knows.
            self._claim = leases.hold(claim)
        self._checkpointed = self._workflow is None or self._workflow.definition.spec.checkpointed
        # What keeps nothing between its steps starts over at every claim.
        self._fresh = claim.fresh or not self._checkpointed
        self._saver = RowSaver(DatabaseRows() if self._checkpointed else MemoryRows(), collect=True, fresh=self._fresh)
        self._overridden = False
        self._words = Words(claim.run)
        self._since = time.monotonic()
        self._ran = self._run.running_seconds

    @property
    def foreign(self) -> bool:
        """Whether the graph is not ours."""
        return self._workflow is not None and self._workflow.foreign

    def play(self) -> None:
        """Play to the end, to a wait, or to the next boundary if this process is stopping."""
        if self._unplayable is not None:
            raise self._unplayable
        if self._workflow is None:
            self._commit(outcomes.Progress(outcome=consequences.undefined(self._run)))
            return
        if self._run.allowance_usd == NOTHING:
            refused = outcomes.Failed(REFUSED, kind=BudgetRefused.__name__)
            self._commit(outcomes.Progress(outcome=refused))
            return
        for progress in self._progress(self._workflow):
            self._commit(self._in_time(progress))
            if progress.outcome is None and leases.stopping.is_set():
                self._hand_back()
                return
            if isinstance(progress.outcome, outcomes.Failed):
                return

    def fail(self, error: Exception) -> None:
        """End the run because of a fault outside of its nodes; what the last step left uncommitted is dropped."""
        self._saver.collected()
        trace = "".join(traceback.format_exception(error))
        explained = f"OpenVibe could not go on with this run: {error}"
        self._commit(outcomes.Progress(outcome=outcomes.Failed(explained, kind=type(error).__name__, traceback=trace)))

    def _progress(self, workflow: CompiledWorkflow) -> Any:
        run, visits = self._run, Visits(starts_over=not self._checkpointed)
        session = Session(
            definitions.provider(),
            models=compiled.models(run, workflow),
            host=ClaimHost(self._claim, self._change, self._words, visits),
            visits=visits,
            run=RunInfo(run.id, run.operator.slug, run.workflow.slug, run.traceparent, run.tracestate),
            outside=OUTSIDE,
            patience=PATIENCE,
            budget=self._more_money if run.allowance_usd is not None or budgets.of(run.operator) else None,
            left=self._left if self._limit is not None else None,
        )
        interrupts = [] if self._fresh else self._saver.pending_interrupts(run.id)
        # Without a checkpoint the run never came past its start, whatever its epoch.
        latest = None if self._fresh else self._saver.get_tuple({"configurable": {"thread_id": run.id}})
        begun, self._overridden = latest is not None, history.amended(latest)
        self._answers = waits.answers(run.id, interrupts)
        session.trace = definitions.tracer().run(
            run.id,
            operator_id=run.operator.slug,
            workflow_id=run.workflow.slug,
            input=None if begun else run.input,
            traceparent=run.traceparent,
            started=self._claim.started_at,
            epoch=self._claim.epoch,
        )
        release()
        return engine.play(
            workflow,
            saver=self._saver,
            thread_id=run.id,
            session=session,
            start=None if begun else run.input,
            answers=self._answers,
        )

    @property
    def _limit(self) -> timedelta | None:
        """How long the run's steps may take; whoever lets it try again gives it that time once more."""
        assert self._workflow is not None
        allowed = self._workflow.definition.spec.timeout
        return allowed * (1 + self._run.retries) if allowed else None

    @property
    def _running(self) -> float:
        """How long they have taken, in seconds."""
        return self._ran + time.monotonic() - self._since

    def _left(self) -> float:
        assert self._limit is not None
        return self._limit.total_seconds() - self._running

    def _more_money(self, node: str, cost: Decimal) -> outcomes.WaitRequest | None:
        found = budgets.question(self._run, node=node, own=self._run.cost_usd + cost)
        release()
        return found

    def _in_time(self, progress: outcomes.Progress) -> outcomes.Progress:
        """End a run whose steps have taken longer than its workflow allows; what this step did is kept.

        What has come to its own end, good or bad, ends as it did.
        """
        limit = self._limit
        if limit is None or self._running <= limit.total_seconds():
            return progress
        if not isinstance(progress.outcome, outcomes.Completed | outcomes.Failed):
            last = next((fact for fact in reversed(progress.events) if fact.kind == STEP_FINISHED), Fact(STEP_FINISHED))
            rest = outcomes.rest(progress.outcome)
            progress.outcome = outcomes.out_of_time(
                self._running, limit, node=last.node, step_id=last.step_id, rest=rest
            )
        return progress

    def _commit(self, progress: outcomes.Progress) -> None:
        self._words.flush()
        with transaction.atomic() if self._spreads(progress) else nullcontext():
            self._write(progress, *self._saver.collected())
        release()

    def _spreads(self, progress: outcomes.Progress) -> bool:
        """Tell whether a commit reaches beyond what one statement can change."""
        match progress.outcome:
            case outcomes.Paused() as paused if self._keeps_waits(paused):
                return True
            case outcomes.Completed() | outcomes.Failed() if self._leaves_waits():
                return True
        return bool(progress.puts)

    def _keeps_waits(self, paused: outcomes.Paused) -> bool:
        """Tell whether a run may pause with waits that are open since an earlier pause.

        Only graphs with branches of their own do, and groups that go on after each answer.
        """
        return self.foreign or any(item.request.rule == outcomes.EACH for item in paused.waits)

    def _leaves_waits(self) -> bool:
        """Tell whether a run may end while others do something for it."""
        if self._workflow is None or self.foreign:
            return True
        return any(node.remote and node.remote.roles for node in self._workflow.definition.spec.nodes)

    def _write(self, progress: outcomes.Progress, checkpoints: list[CheckpointRow], writes: list[WriteRow]) -> None:
        now = timezone.now()
        outcome = self._reopened(self._waitable(progress.outcome))
        facts, opened, changes = consequences.of(self._run, outcome, now=now, overridden=self._overridden)
        again = self._fresh and not self._claim.fresh
        emitted = emissions.new(self._run, progress.emissions, now=now, again=again)
        told = [*self._untold(progress.reopened), *progress.events, *map(emissions.told, emitted), *facts]
        if not (self._claim.taking or checkpoints or writes or told or progress.puts or changes):
            return
        kept = stored(checkpoints, writes) if self._checkpointed else []
        ended = "ended_at" in changes
        asked = [wait for wait in opened if wait.version == 1]
        # Who is played for the first time has never waited.
        closes = ended and not self._claim.fresh
        leaves = closes and self._leaves_waits()
        updates = [waits.closing(self._run.id, now=now)] if closes and not leaves else []
        self._change(
            told,
            inserts=[*kept, Insert(Wait, asked), Insert(Emission, emitted)],
            updates=[*updates, *(overrides.again(wait) for wait in opened if wait.version > 1)],
            grown=_grown(progress),
            **self._headway(progress),
            **changes,
        )
        if progress.puts:
            author = f"{self._run.operator.slug}.{self._run.workflow.slug}"
            context.put_all(self._run.project_id, progress.puts, author=author, now=now)
        if leaves:
            endings.call_off(self._run.id, operator=self._run.operator, now=now)
        if ended:
            endings.follow(self._run.id, key=self._run.key, operator=self._run.operator)
        elif changes.get("status") == Run.Status.WAITING:
            limits.freed(self._run.operator)
        self._ring(opened, emitted, changes)

    def _headway(self, progress: outcomes.Progress) -> dict[str, Any]:
        # What has finished a step makes headway, however many workers it has lost; but not what begins anew each time.
        return {"losses": 0} if self._checkpointed and progress.figures.nodes_executed else {}

    def _ring(self, opened: list[Wait], emitted: list[Emission], changes: Mapping[str, Any]) -> None:
        for emission in emitted:
            transaction.on_commit(partial(doorbell.deliver, emission.id, self._run.operator))
        for wait in opened:
            if wait.kind != Wait.Kind.TIMER:
                transaction.on_commit(partial(doorbell.ask, wait.id, self._run.operator))
        if changes.get("status") == Run.Status.QUEUED:
            transaction.on_commit(partial(doorbell.ring, self._run.id, self._run.operator))

    def _untold(self, reopened: list[Fact]) -> list[Fact]:
        """Return the beginnings of steps that the timeline does not tell yet: those after a rest."""
        if not reopened:
            return []
        steps = [fact.step_id for fact in reopened]
        rows = Event.objects.filter(run_id=self._run.id, kind=STEP_STARTED, step_id__in=steps)
        known = set(rows.values_list("step_id", flat=True))
        return [fact for fact in reopened if fact.step_id not in known]

    def _waitable(self, outcome: outcomes.Outcome | None) -> outcomes.Outcome | None:
        if self._checkpointed or not isinstance(outcome, outcomes.Paused):
            return outcome
        where = ", ".join(wait.request.node for wait in outcome.waits)
        told = f"The workflow cannot wait at {where}, because it keeps nothing meanwhile; leave checkpointed=False out"
        return outcomes.Failed(told, kind="SetupError")

    def _reopened(self, outcome: outcomes.Outcome | None) -> outcomes.Outcome | consequences.Requeued | None:
        """Leave out waits that are open since an earlier pause."""
        if not isinstance(outcome, outcomes.Paused) or not self._keeps_waits(outcome):
            return outcome
        # With the run's row in hand nobody answers meanwhile.
        Run.objects.select_for_update(no_key=True).values("id").get(id=self._run.id)
        opened, answered = seats.reopening(self._run, outcome.waits, given=self._answers)
        return consequences.Requeued(opened) if answered else outcomes.Paused(opened)

    def _hand_back(self) -> None:
        self._change([Fact("run.handed_back")], status=Run.Status.QUEUED, lease_until=None, rung_at=None)
        doorbell.ring(self._run.id, self._run.operator)

    def _change(
        self,
        facts: list[Fact],
        *,
        inserts: Sequence[Insert] = (),
        updates: Sequence[Update] = (),
        grown: Mapping[str, Any] = MappingProxyType({}),
        **changes: Any,
    ) -> None:
        """Change the run under its claim, and write what goes with it: on PostgreSQL in one statement.

        The first change takes the run, where that was left to it.
        """
        now = timezone.now()
        taking = self._claim.taking
        told = [taking.fact, *facts] if taking else facts
        large: list[Card] = []
        rows = timeline.rows(project_id=self._run.project_id, run_id=self._run.id, facts=told, now=now, into=large)
        ran = time.monotonic() - self._since
        held = {"id": self._run.id, "epoch": self._claim.epoch, "status": Run.Status.RUNNING}
        put = {"lease_until": leases.until(), "updated_at": now, "told": False, **changes}
        change = Change(
            Run,
            where=taking.where if taking else held,
            put={**taking.put, **put} if taking else put,
            add={"last_seq": len(rows), "running_seconds": ran, **grown},
            counter="last_seq",
            inserts=[Insert(Event, rows, numbered="seq"), cards.rows(large), *inserts, *self._delivered(rows, now=now)],
            updates=updates,
        )
        if strike(change) is None:
            raise ClaimLost(self._run.id)
        if taking:
            self._claim = leases.taken(self._run, taking, rows)
        self._since += ran
        self._ran += ran
        timeline.announce(rows)

    def _delivered(self, rows: list[EventRow], *, now: datetime) -> list[Insert]:
        """Return the rows of what the run has delivered, if the last of these events says that it has completed."""
        if not rows or rows[-1].kind != RUN_COMPLETED:
            return []
        told = rows[-1].data
        assert self._workflow is not None
        assert isinstance(told, dict)
        agents = any(node.kind == "agent" for node in self._workflow.definition.spec.nodes)
        said = boxes.said(self._run.id, rows) if agents else []
        return boxes.delivery(self._run, told["output"], said, now=now)


def _grown(progress: outcomes.Progress) -> dict[str, Any]:
    figures = progress.figures
    grown = {name: getattr(figures, name) for name in figures.__slots__}
    return {name: amount for name, amount in grown.items() if amount}
