"""Plays one run in this process: claims it, commits each of the engine's steps, and tells what happened."""

from __future__ import annotations

import functools
import logging
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from openvibe import answers, budgets, engine
from openvibe.calls import Calls, HangUp
from openvibe.compiler import CompiledWorkflow, compile_workflow
from openvibe.errors import BudgetRefused, RunError, SetupError
from openvibe.events import GATE_OPENED, Event
from openvibe.fields import check_input
from openvibe.graph.saver import RowSaver
from openvibe.hooks import Hooks
from openvibe.host import Change, Effect, Host, Tries
from openvibe.ids import run_id
from openvibe.ledger import Ledger, Overtaken
from openvibe.llm import LLMProvider
from openvibe.outcomes import Completed, Emission, Failed, Outcome, Paused, Progress
from openvibe.protocol import headers
from openvibe.registry import Registry, WorkflowDefinition
from openvibe.runs import ENTRY, Origin, Run, Wait
from openvibe.session import RunInfo, Session
from openvibe.tracing import NoTracer, Tracer

logger = logging.getLogger(__name__)

_OUTSIDE = (Overtaken, sqlite3.Error)


class RecursionTooDeep(RunError):
    """Runs that start runs have come too far."""


@dataclass(frozen=True)
class Scene:
    """What all runs of a runtime share. `host` is the author's own, if there is one; `told` hears of emissions."""

    registry: Registry
    ledger: Ledger
    provider: LLMProvider
    models: Mapping[str, str]
    hooks: Hooks
    host: Host | None
    now: Callable[[], datetime]
    emitted: Callable[[Run, Emission], None]
    ask: Callable[[Run, Wait], None]
    changed: Callable[[], list[str]]
    tracer: Tracer = field(default_factory=NoTracer)
    calls: Calls[str] = field(default_factory=Calls)

    def compiled(self, run: Run) -> CompiledWorkflow:
        """Return a run's workflow; raises `SetupError` if it is not known here."""
        definition = self.registry.workflow(run.operator_id, run.workflow_id)
        if definition is None:
            raise SetupError(f"This runtime does not know {run.operator_id}.{run.workflow_id}; register it first")
        return _compiled(_ById(definition))

    def new(
        self, definition: WorkflowDefinition, input: Mapping[str, Any], *, trigger: str, parent: Run | None = None,
        origin: Origin = ENTRY, asked_by: str = "",
    ) -> Run:  # fmt: skip
        """Return a run that is about to be kept.

        Raises:
            InputError: the input does not fit.
            RecursionTooDeep: it would be one too many of a chain.
        """
        origin = Origin.child_of(parent) if parent else origin
        if origin.depth >= headers.MOST_DEPTH:
            raise RecursionTooDeep(
                f"recursion_depth_exceeded: {definition.operator_id}.{definition.spec.id} would be run number "
                f"{origin.depth + 1} of a chain in which each run starts the next; {headers.MOST_DEPTH} is the most"
            )
        now = self.now()
        limit = definition.spec.max_duration
        return Run(
            id=run_id(now),
            operator_id=definition.operator_id,
            workflow_id=definition.spec.id,
            trigger=trigger,
            input=check_input(definition.input_model, input),
            created_at=now,
            ends_by=now + limit if limit else None,
            parent=parent.id if parent else "",
            asked_by=asked_by,
            depth=origin.depth,
            traceparent=origin.traceparent,
            passed_on=dict(origin.passed_on),
        )


class _ById:
    """A definition as a key; equal only to itself."""

    def __init__(self, definition: WorkflowDefinition) -> None:
        self.definition = definition

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.definition is self.definition

    def __hash__(self) -> int:
        return id(self.definition)


@functools.lru_cache(maxsize=512)
def _compiled(key: _ById) -> CompiledWorkflow:
    return compile_workflow(key.definition)


@dataclass(frozen=True)
class RunHost:
    """What surrounds one run: the author's host where there is one, else the ledger."""

    scene: Scene
    run: Run

    def record(self, event: Event) -> None:
        """Tell a fact at once."""
        if self.scene.host is not None:
            self.scene.host.record(event)
        self.scene.hooks.tell(self.run, event.kind, at=self.now(), node=event.node, data=event.data)

    def tries(self, step_id: str) -> Tries:
        """Return how many tries of a step had failed when the run paused before the next one."""
        pauses = [wait for wait in self.run.waits if wait.interrupt_id.startswith(f"{engine.BACKOFF}{step_id}/")]
        return Tries(**pauses[-1].payload["tries"]) if pauses else Tries()

    def words(self, *, node: str, step_id: str, text: str) -> None:
        """Pass on a model's words."""
        if self.scene.host is not None:
            self.scene.host.words(node=node, step_id=step_id, text=text)
        self.scene.hooks.tell(self.run, "words", at=self.now(), node=node, data={"text": text})

    @contextmanager
    def calling(self, hang_up: HangUp) -> Iterator[None]:
        """Let somebody hang up who knows that the run is not ours any more."""
        theirs = self.scene.host.calling(hang_up) if self.scene.host is not None else nullcontext()
        with theirs, self.scene.calls.making(self.run.id, hang_up):
            yield

    def abandoned(self, thread: threading.Thread) -> None:
        """Tell the author's host."""
        if self.scene.host is not None:
            self.scene.host.abandoned(thread)

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return self.scene.now()

    def value(self, bucket: str, key: str) -> Any:
        """Return a value of the shared context, or None."""
        return (self.scene.host or self.scene.ledger).value(bucket, key)

    def entry(self, bucket: str, key: str) -> Change:
        """Return the latest revision of a value of the shared context."""
        return (self.scene.host or self.scene.ledger).entry(bucket, key)

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Return a bucket's keys that begin with `prefix`, sorted."""
        return (self.scene.host or self.scene.ledger).keys(bucket, prefix)

    def effect(self, *, node: str, step_id: str, key: str) -> Effect:
        """Look an effect up."""
        if self.scene.host is not None:
            return self.scene.host.effect(node=node, step_id=step_id, key=key)
        return self.scene.ledger.effect(self.run.id, step_id, key)

    def settle(self, *, node: str, step_id: str, key: str, state: str, result: Any = None) -> None:
        """Note how an attempt came out."""
        if self.scene.host is not None:
            self.scene.host.settle(node=node, step_id=step_id, key=key, state=state, result=result)
        else:
            self.scene.ledger.settle(self.run.id, step_id, key, state=state, result=result)

    @property
    def keeps(self) -> Callable[[Mapping[tuple[str, str], Any]], None] | None:
        """How the author's host keeps values of the shared context; None where the ledger does."""
        return getattr(self.scene.host, "put", None)


def play(scene: Scene, run_id: str) -> list[str]:
    """Play a queued run until it ends or waits; return the runs that are to be played now."""
    run = scene.ledger.take(run_id, now=scene.now())
    return Performance(scene, run).play() if run else []


class Performance:
    """One claim's play."""

    def __init__(self, scene: Scene, run: Run) -> None:
        self._scene = scene
        self._run = run
        self._host = RunHost(scene, run)
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
            budget=budgets.asking(run, self._scene.registry, self._scene.ledger.runs, now=self._scene.now),
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
        ran, limit = self._run.metrics.running_seconds + time.monotonic() - self._since, definition.spec.timeout
        if limit and ran > limit.total_seconds():
            return Failed(f"The run took {ran:.1f} s of running time; its timeout is {limit}", kind="RunTimeout")
        if self._run.ends_by and self._scene.now() >= self._run.ends_by:
            return too_long(definition)
        return None

    def _commit(self, progress: Progress) -> None:
        run, now = self._run, self._scene.now()
        run.metrics.add(progress.figures)
        ran = time.monotonic() - self._since
        run.metrics.running_seconds, self._since = run.metrics.running_seconds + ran, self._since + ran
        run.measure(now=now)
        started = [child for emission in progress.emissions for child in self._listeners(emission)]
        facts, asked = self._ended(progress.outcome, now=now)
        started += asked
        keeps = self._keeps(progress.outcome)
        checkpoints, writes = self._saver.collected() if keeps else ([], [])
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
        for emission in progress.emissions:
            told = {"name": emission.name, "payload": emission.payload}
            self._tell("event.emitted", data=told)
            self._scene.emitted(run, emission)
        for wait in self._elsewhere:
            self._scene.ask(run, wait)
            self._next.append(run.id)
        self._elsewhere.clear()

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
    return Failed(f"The run did not end within {limit}, the longest that it may take", kind="RunTimeout")


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
