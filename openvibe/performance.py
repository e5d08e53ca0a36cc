"""Plays one run in this process: claims it, commits each of the engine's steps, and tells what happened."""

from __future__ import annotations

import logging
import sqlite3
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from openvibe import answers, budgets, engine
from openvibe.compiler import CompiledWorkflow
from openvibe.errors import BudgetRefused, RunError, SetupError
from openvibe.events import GATE_OPENED, Event
from openvibe.graph.saver import RowSaver
from openvibe.ledger import Overtaken
from openvibe.outcomes import Completed, Emission, Failed, Outcome, Paused, Progress, out_of_time
from openvibe.protocol import headers
from openvibe.registry import WorkflowDefinition
from openvibe.runs import Run, Wait
from openvibe.scene import RunHost, Scene
from openvibe.session import RunInfo, Session

logger = logging.getLogger(__name__)

_OUTSIDE = (Overtaken, sqlite3.Error)


def play(scene: Scene, run_id: str) -> list[str]:
    """Play a queued run until it ends or waits; return the runs that are to be played now."""
    run = scene.ledger.take(run_id, now=scene.now())
    return Performance(scene, run).play() if run else []


class Performance:
    """One claim's play."""

    def __init__(self, scene: Scene, run: Run) -> None:
        self._scene = scene
        self._run = run
        self._visits = scene.visits(run)
        self._host = RunHost(scene, run, self._visits)
        self._saver = RowSaver(scene.ledger.rows, collect=True)
        self._since = time.monotonic()
        self._next: list[str] = []
        self._elsewhere: list[Wait] = []

    def play(self) -> list[str]:
        """Play to the end or to a wait."""
        self._tell("run.started" if self._run.epoch == 1 else "run.resumed", data={"input": self._run.input})
        try:
            if self._run.allowance_usd == budgets.NOTHING:
                raise BudgetRefused(budgets.REFUSED)
            for progress in self._parts(self._scene.compiled(self._run)):
                self._commit(progress)
        except Overtaken:
            logger.info("Run %s went on without this player", self._run.id)
        except Exception as error:
            # Left as it is, it would stand as running for ever.
            explained = isinstance(error, (RunError, SetupError))
            trace = "" if explained else "".join(traceback.format_exception(error))
            self._saver.collected()
            self._commit(Progress(outcome=Failed(str(error), kind=type(error).__name__, traceback=trace)))
        return self._next

    def _parts(self, workflow: CompiledWorkflow) -> Iterator[Progress]:
        run, spec = self._run, workflow.definition.spec
        models = {
            node.id: self._scene.models[node.model.model]
            for node in spec.nodes
            if node.model and node.model.model in self._scene.models
        }
        session = Session(
            self._scene.provider,
            models=models,
            host=self._host,
            run=RunInfo(run.id, run.operator_id, run.workflow_id, run.trace, run.passed_on.get(headers.TRACESTATE, "")),
            outside=_OUTSIDE,
            visits=self._visits,
            budget=budgets.asking(run, self._scene.registry, self._scene.ledger.runs, now=self._scene.now),
            left=(lambda: limit.total_seconds() - self._running) if (limit := spec.timeout) else None,
        )
        begun = self._saver.get_tuple({"configurable": {"thread_id": run.id}}) is not None
        given = answers.for_graph(run, self._saver.pending_interrupts(run.id)) if begun else {}
        start = None if begun else run.input
        session.trace = self._scene.tracer.run(
            run.id,
            operator_id=run.operator_id,
            workflow_id=run.workflow_id,
            input=start,
            traceparent=run.trace,
            started=run.created_at,
        )
        parts = engine.play(
            workflow, saver=self._saver, thread_id=run.id, session=session, start=start, answers=given or None
        )
        for progress in parts:
            late = self._late(workflow.definition)
            if progress.outcome is None and late:
                progress.outcome = late
            yield progress
            if late:
                return

    def _late(self, definition: WorkflowDefinition) -> Failed | None:
        ran, limit = self._running, definition.spec.timeout
        if limit and ran > limit.total_seconds():
            return out_of_time(ran, limit)
        if self._run.ends_by and self._scene.now() >= self._run.ends_by:
            return too_long(definition)
        return None

    @property
    def _running(self) -> float:
        """How long the run's steps have taken, in seconds."""
        return self._run.metrics.running_seconds + time.monotonic() - self._since

    def _commit(self, progress: Progress) -> None:
        run, now = self._run, self._scene.now()
        run.metrics.add(progress.figures)
        ran = time.monotonic() - self._since
        run.metrics.running_seconds, self._since = run.metrics.running_seconds + ran, self._since + ran
        run.measure(now=now)
        # What starts over has emitted some of it before.
        emissions = [emission for emission in progress.emissions if emission.source not in run.emitted]
        started = [child for emission in emissions for child in self._listeners(emission)]
        facts, asked = self._ended(progress.outcome, now=now)
        started += asked
        keeps = self._keeps(progress.outcome)
        checkpoints, writes = self._saver.collected() if keeps else ([], [])
        self._note(emissions, kept=keeps)
        puts = {} if self._host.keeps else progress.puts
        self._scene.ledger.commit(run, checkpoints=checkpoints, writes=writes, puts=puts, started=started)
        if self._host.keeps and progress.puts:
            self._host.keeps(progress.puts)
        if progress.puts:
            self._next += self._scene.changed()
        self._next += [child.id for child in started]
        for event in (*progress.reopened, *progress.events, *facts):
            took = event.data.get("duration_seconds", 0.0)
            self._tell(event.kind, node=event.node, duration=took, data=event.data)
        for emission in emissions:
            told = {"name": emission.name, "payload": emission.payload}
            self._tell("event.emitted", data=told)
            self._scene.emitted(run, emission)
        for wait in self._elsewhere:
            self._scene.ask(run, wait)
            self._next.append(run.id)
        self._elsewhere.clear()

    def _note(self, emissions: Sequence[Emission], *, kept: bool) -> None:
        """Note what a play that starts over is to know; part of the run's commit."""
        if self._visits.starts_over:
            self._run.emitted += [emission.source for emission in emissions]
            # Whoever goes on from a checkpoint counts on from there.
            self._run.visits = self._visits.steps if kept else self._run.visits

    def _keeps(self, outcome: Outcome | None) -> bool:
        """Tell whether the checkpoints are worth keeping: without `checkpointed`, only those of a pause are."""
        definition = self._scene.registry.workflow(self._run.operator_id, self._run.workflow_id)
        return definition is None or definition.spec.checkpointed or isinstance(outcome, Paused)

    def _ended(self, outcome: Outcome | None, *, now: datetime) -> tuple[list[Event], list[Run]]:
        """Change the run as the outcome says; return what is to be told, and the runs that are asked."""
        run = self._run
        match outcome:
            case Completed(output):
                run.output = output
                run.end("completed", now=now)
                return [Event("run.completed", data={**self._took(), "output": output})], []
            case Failed() as failed:
                fail(run, failed, now=now)
                return [Event("run.failed", node=failed.node, data={**self._took(), "error": run.error})], []
            case Paused(waits):
                version = self._scene.compiled(run).definition.spec.version
                fresh = [
                    answers.opened(run, wait, version=version, now=now) for wait in run.taken_along(waits, now=now)
                ]
                run.waits += fresh
                self._elsewhere += [wait for wait in fresh if wait.kind == "change"]
                run.status = "waiting"
                asked = [child for wait in fresh if wait.kind == "reply" for child in self._asked(wait)]
                told = [
                    Event(_opening(wait), node=wait.node, step_id=wait.step_id, data=_shown(wait)) for wait in fresh
                ]
                return [*told, Event("run.waiting")], asked
            case _:
                return [], []

    def _took(self) -> dict[str, Any]:
        return {"duration_seconds": self._run.metrics.duration_seconds}

    def _listeners(self, emission: Emission) -> Iterator[Run]:
        for definition, given in self._scene.registry.listeners(emission.name, emission.payload):
            try:
                yield self._scene.new(definition, given, trigger=f"event:{emission.name}", parent=self._run)
            except RunError as error:
                where = f"{definition.operator_id}.{definition.spec.id}"
                logger.warning("Event %s of run %s started no %s: %s", emission.name, self._run.id, where, error)
                told = {"event": emission.name, "workflow": where, "error": str(error)}
                self._tell("run.refused", data=told)

    def _asked(self, wait: Wait) -> Iterator[Run]:
        operator, capability = wait.payload["operator"], wait.payload["capability"]
        definition = self._scene.registry.server(operator, capability)
        if definition is None:
            self._elsewhere.append(wait)
            return
        given = wait.payload["payload"]
        trigger = f"request:{capability}"
        try:
            yield self._scene.new(definition, given, trigger=trigger, parent=self._run, asked_by=wait.id)
        except RunError as error:
            # An answer like any other: the asking node decides what a refusal means.
            wait.status, wait.closed_at, wait.error = "resolved", self._scene.now(), str(error)
            if self._run.settled(wait, now=self._scene.now()):
                self._run.status = "queued"
                self._next.append(self._run.id)

    def _tell(self, kind: str, *, node: str = "", duration: float = 0.0, data: Mapping[str, Any] | None = None) -> None:
        self._scene.hooks.tell(self._run, kind, at=self._scene.now(), node=node, duration=duration, data=data)


def fail(run: Run, failed: Failed, *, now: datetime) -> None:
    """Note that a run cannot go on."""
    run.error, run.error_kind, run.failed_node = failed.error, failed.kind, failed.node
    run.traceback = failed.traceback
    run.end("failed", now=now)


def too_long(definition: WorkflowDefinition | None) -> Failed:
    """Return the end of a run whose days are over."""
    limit = definition.spec.max_duration if definition else "its time"
    return Failed(f"The run did not end within {limit}, the longest that it may take", kind="RunOutlived")


def _opening(wait: Wait) -> str:
    return GATE_OPENED if wait.kind == "approval" else "wait.opened"


def _shown(wait: Wait) -> dict[str, Any]:
    deadline = wait.deadline.isoformat() if wait.deadline else None
    return {
        "wait_id": wait.id,
        "kind": wait.kind,
        "prompt": wait.prompt,
        "payload": wait.payload,
        "decisions": wait.decisions,
        "deadline": deadline,
    }
