# long: the one door through which a script does everything, with the docstrings that users read
"""Operators in a script: registered, started, answered and watched in this process, with no server.

A run is played on the caller's thread until it ends or waits, and so are the runs that it starts.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar

from openvibe import config, configuration, loop
from openvibe import scheduler as schedulers
from openvibe.clock import Clock
from openvibe.errors import RunError, SetupError
from openvibe.hooks import Hooks
from openvibe.host import Host
from openvibe.ledger import ledger
from openvibe.player import Player
from openvibe.registry import OperatorDefinition, Registry, WorkflowDefinition, define
from openvibe.runs import Run
from openvibe.scheduler.none import NoScheduler
from openvibe.sharing import RuntimeContext

F = TypeVar("F", bound=Callable[..., Any])


class OperatorRuntime:
    """Plays operators in this process.

    `llm` is a provider or its name, `bus` a bus or its name, `scheduler` what fires cron triggers (`none`: only
    `advance` does), `checkpointer` where runs are kept: `memory`, or `sqlite:///runs.db`, from which another process
    goes on. What is not given is as `configure` says. `host` lends its clock, shared context and effects in the
    ledger's place.

    Example:
        >>> runtime = OperatorRuntime(llm="simulated")
        >>> runtime.register(Hello)
        >>> runtime.activate("hello", "greet").output["greeting"]

    Raises:
        SetupError: something named is not known or cannot be made.
    """

    def __init__(
        self,
        *,
        llm: Any = None,
        bus: Any = None,
        scheduler: Any = None,
        checkpointer: Any = None,
        host: Host | None = None,
    ) -> None:
        chosen = configuration.current()
        self._registry = Registry()
        self._hooks = Hooks()
        self._host = host
        self._offset = timedelta()
        self._documents: dict[str, config.Document] = {}
        self._handlers: dict[tuple[str, str, str], Callable[..., Any]] = {}
        self._ledger = ledger(chosen.checkpointer if checkpointer is None else checkpointer)
        self._player = Player(
            registry=self._registry, ledger=self._ledger, hooks=self._hooks, provider=chosen.provider(llm),
            chosen=chosen, bus=bus, host=host, now=self.now,
        )  # fmt: skip
        named = chosen.scheduler if scheduler is None else scheduler
        self._scheduler = schedulers.scheduler(named) if isinstance(named, str) else named
        self._clock = Clock(self.tick, self._next_due, self.now)
        if not isinstance(self._scheduler, NoScheduler):
            _done(self._scheduler.start())
            self._clock.start()

    def register(self, cls: type) -> OperatorDefinition:
        """Add an operator class.

        Raises:
            SetupError: the definition has a mistake, or its id is taken; nothing is registered then.
        """
        return self.add(define(cls))

    def add(self, definition: OperatorDefinition) -> OperatorDefinition:
        """Add an operator that is defined already. Raises `SetupError` if its id is taken."""
        self._registry.add(definition)
        self._schedule(definition)
        return definition

    def register_from_class(self, cls: type) -> OperatorDefinition:
        """Add an operator class; another name of `register`."""
        return self.register(cls)

    def load(self, path: str | os.PathLike[str]) -> list[OperatorDefinition]:
        """Add the operators of a YAML file, all of them or none.

        Logic nodes take their code from `logic_handlers.py` beside the file, or from `handler`.

        Raises:
            SetupError: the file has a mistake; the message names its place.
        """
        document = config.read(path)
        definitions = self._registry.add_all(document.definitions(self._handlers, complete=False))
        for definition in definitions:
            self._documents[definition.spec.id] = document
            self._schedule(definition)
        return definitions

    def handler(self, operator: str, workflow: str, node: str) -> Callable[[F], F]:
        """Return a decorator that makes a function `(state)` or `(state, ctx)` the code of a node loaded from YAML.

        Raises:
            SetupError: no such node was loaded, or the function does not fit it.
        """

        def take(function: F) -> F:
            document = self._documents.get(operator)
            if document is None:
                raise SetupError(f"No operator {operator!r} was loaded from YAML; load its file first")
            handlers: dict[tuple[str, str, str], Callable[..., Any]] = {**self._handlers}
            handlers[operator, workflow, node] = function
            document.check_handler(operator, workflow, node)
            [changed] = [
                item for item in document.definitions(handlers, complete=False) if item.spec.id == operator
            ]  # fmt: skip
            self._registry.remove(operator)
            self._registry.add(changed)
            self._handlers = handlers
            return function

        return take

    def on(self, kind: str) -> Callable[[F], F]:
        """Return a decorator that lets a function, plain or async, hear of every event of a kind.

        Among the kinds are `run.started`, `run.completed`, `run.failed`, `node.finished`, `node.error`, `gate.opened`
        and `event.emitted`; `*` hears everything. The function gets a `HookEvent` with `run_id`, `operator_id`,
        `workflow_id`, `node_id`, `duration` in seconds, and `data`. What it raises is logged and breaks no run.

        Raises:
            SetupError: there is no such kind.
        """
        return self._hooks.on(kind)

    def list_operators(self) -> list[dict[str, Any]]:
        """Return what is registered, as plain data."""
        return [
            {
                "id": item.spec.id,
                "name": item.spec.name,
                "description": item.spec.description,
                "owner": item.spec.owner,
                "workflows": [
                    {"id": flow.id, "name": flow.name, "trigger": flow.trigger.text, "trigger_id": flow.trigger.id}
                    for flow in item.spec.workflows
                ],
            }
            for item in self._registry
        ]

    def activate(self, operator: str, trigger: str, input: Mapping[str, Any] | None = None) -> Run:
        """Start a run, play it until it ends or waits, and return it as it stands then.

        `trigger` is a trigger's id or a workflow's; any workflow can be started by hand.

        Raises:
            RunError: there is no such operator or workflow.
            InputError: the input does not fit; nothing is started.
        """
        definition = self._definition(operator, trigger)
        return self._rung(self._player.start(self._player.scene.new(definition, input or {}, trigger="on_demand")))

    async def activate_async(self, operator: str, trigger: str, input: Mapping[str, Any] | None = None) -> Run:
        """Do as `activate` does, on a thread of its own."""
        return await asyncio.to_thread(self.activate, operator, trigger, input)

    def resume(
        self, run_id: str, decision: str, notes: str = "", values: Mapping[str, Any] | None = None,
        wait_id: str | None = None, *, by: str = "",
    ) -> Run:  # fmt: skip
        """Decide at a gate, play on, and return the run as it stands then. The same decision again changes nothing.

        `values` are edited fields. `by` is who decides; of several approvers each counts once. `wait_id` may be left
        out where the run stands at one gate only, and where `by` names one of the approvers.

        Raises:
            InputError: the decision does not fit; the gate stays open.
            RunError: the run stands at no such gate, or another decision was first.
        """
        fresh = self._player.decide(run_id, wait_id, decision=decision, notes=notes, values=values or {}, by=by)
        return self._rung(self._player.play(run_id) if fresh else self._player.known(run_id))

    async def resume_async(
        self, run_id: str, decision: str, notes: str = "", values: Mapping[str, Any] | None = None,
        wait_id: str | None = None, *, by: str = "",
    ) -> Run:  # fmt: skip
        """Do as `resume` does, on a thread of its own."""
        return await asyncio.to_thread(self.resume, run_id, decision, notes, values, wait_id, by=by)

    def answer(self, wait_id: str, *, result: Any = None, error: str = "") -> Run:
        """Give the result (or the error) that a run waits for: of a remote tool, of remote work, or of a request.

        Raises:
            RunError: nobody waits for it.
        """
        run = next((run for run in self._ledger.left() if run.wait(wait_id)), None)
        if run is not None and any(wait.id == wait_id and wait.kind == "change" for wait in run.open_waits):
            raise RunError(f"{wait_id!r} waits for a change of the shared context: runtime.context.put answers it")
        if run is None or not self._player.answer(run.id, wait_id, result=result, error=error):
            raise RunError(f"Nobody waits at {wait_id!r} for a result")
        return self._rung(self._player.play(run.id))

    @property
    def context(self) -> RuntimeContext:
        """The shared context: `get`, `put`, `keys`, `entry` and `watch`. A put plays on the runs that waited for it."""
        return RuntimeContext(self._player.store, self._changed)

    def cancel(self, run_id: str) -> Run:
        """End a run that has not ended; a step that is being played is not stored any more.

        Raises:
            RunError: there is no such run, or it has ended.
        """
        return self._player.cancel(run_id)

    def runs(self, operator: str = "") -> list[Run]:
        """Return all runs, or those of one operator, the oldest first."""
        return self._ledger.runs(operator=operator)

    def run(self, run_id: str) -> Run | None:
        """Return a run as it now stands, or None."""
        return self._ledger.run(run_id)

    def get_run(self, run_id: str) -> Run | None:
        """Return a run as it now stands, or None; another name of `run`."""
        return self.run(run_id)

    def now(self) -> datetime:
        """Return the time, in UTC, with what `advance` has added to it."""
        return (self._host.now() if self._host else datetime.now(UTC)) + self._offset

    def tick(self, now: datetime | None = None) -> list[Run]:
        """Do what is due: wake sleepers, decide or escalate at deadlines, end what took too long; return these runs.

        `now` sets the clock forward first. What another process has put into the shared context is found as well.
        """
        if now is not None and now > self.now():
            self._offset += now - self.now()
        due = [run.id for run in self._ledger.due(self.now(), operators=self._ids)]
        for run_id in due:
            self._player.fire(run_id)
        woken = self._player.changed()
        self._player.work(woken)
        return [self._player.known(run_id) for run_id in dict.fromkeys([*due, *woken])]

    def advance(self, seconds: float | timedelta) -> list[Run]:
        """Let time pass at once: everything that falls due meanwhile happens, in order, cron triggers included.

        Return the runs that were due. A scheduler other than `none` keeps its own time.
        """
        until = self.now() + (seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds))
        changed: dict[str, Run] = {}
        while (due := self._next_due()) is not None and due <= until:
            self._elapse(due)
            changed |= {run.id: run for run in self.tick(due)}
        self._elapse(until)
        self._offset += max(until - self.now(), timedelta())
        return list(changed.values())

    def recover(self) -> list[Run]:
        """Go on with the runs that an ended process left in the middle, each from its last finished step.

        Call it when no other process plays from the same file.
        """
        return [self._player.known(run_id) for run_id in self._player.recover()]

    def open_doors(self) -> None:
        """Connect to the bus now: hear the events of others, and answer their requests for capabilities.

        Without it the first emitted event, or the first request, connects.
        """
        self._player.doors.open()
        for definition in self._registry:
            for workflow in definition.workflows.values():
                for capability in workflow.spec.capabilities:
                    self._player.doors.serve(definition.spec.id, capability)

    def close(self) -> None:
        """Let go of threads, bus and database; the runs stay in their file, if they have one."""
        self._clock.stop()
        if not isinstance(self._scheduler, NoScheduler):
            _done(self._scheduler.stop())
        self._player.doors.close()
        self._player.scene.tracer.close()
        self._ledger.close()

    def __enter__(self) -> OperatorRuntime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _definition(self, operator: str, trigger: str) -> WorkflowDefinition:
        known = self._registry.operator(operator)
        if known is None:
            names = ", ".join(item.spec.id for item in self._registry) or "none"
            raise RunError(f"No operator {operator!r} is registered; there is: {names}")
        flows = known.workflows.values()
        found = next((flow for flow in flows if flow.spec.trigger.id == trigger), known.workflows.get(trigger))
        if found is None:
            names = ", ".join(sorted({name for flow in flows for name in (flow.spec.trigger.id, flow.spec.id)}))
            raise RunError(f"Operator {operator!r} has no trigger or workflow {trigger!r}; it has: {names}")
        return found

    def _changed(self) -> None:
        self._player.work(self._player.changed())
        self._clock.ring()

    def _rung(self, run: Run) -> Run:
        self._clock.ring()
        return run

    def _next_due(self) -> datetime | None:
        return self._ledger.next_due(operators=self._ids)

    @property
    def _ids(self) -> list[str]:
        return [definition.spec.id for definition in self._registry]

    def _elapse(self, until: datetime) -> None:
        if isinstance(self._scheduler, NoScheduler) and until > self.now():
            self._scheduler.elapse(self.now(), until)

    def _schedule(self, definition: OperatorDefinition) -> None:
        for workflow in definition.workflows.values():
            trigger = workflow.spec.trigger
            if trigger.kind == "cron":
                call = functools.partial(self._cron, definition.spec.id, workflow.spec.id)
                _done(self._scheduler.every(f"{definition.spec.id}.{workflow.spec.id}", trigger.source, call))

    def _cron(self, operator: str, workflow: str, slot: datetime) -> None:
        if slot > self.now():
            self._offset += slot - self.now()
        definition = self._definition(operator, workflow)
        trigger = definition.spec.trigger.text
        self._rung(self._player.start(self._player.scene.new(definition, {}, trigger=trigger)))


def _done(result: Any) -> None:
    """Await what a scheduler's method returned, if it is to be awaited: one may be written either way."""
    if inspect.iscoroutine(result):
        loop.run(result)
