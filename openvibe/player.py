"""Keeps a runtime's runs going: plays them and all that follows from them, takes answers, and does what is due."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, cast

from openvibe import answers, budgets, tracing
from openvibe.configuration import Configuration
from openvibe.doors import Doors
from openvibe.errors import RunError
from openvibe.hooks import Hooks
from openvibe.host import Host
from openvibe.ledger import Ledger, Overtaken
from openvibe.llm import LLMProvider
from openvibe.outcomes import HAPPENED
from openvibe.performance import fail, play, too_long
from openvibe.registry import Registry
from openvibe.runs import Origin, Run, Wait
from openvibe.scene import RunHost, Scene
from openvibe.sharing import Store

logger = logging.getLogger(__name__)

#: How a wait stands for whose answer nobody waits any more.
_NEEDLESS = ("cancelled", "expired")


class Player:
    """Plays runs on the thread of whoever asks."""

    def __init__(
        self, *, registry: Registry, ledger: Ledger, hooks: Hooks, provider: LLMProvider, chosen: Configuration,
        bus: Any, host: Host | None, now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._registry, self._ledger, self._hooks, self._now = registry, ledger, hooks, now
        self.doors = Doors(chosen.bus if bus is None else bus, heard=self._heard, served=self._served)
        self.scene = Scene(
            registry, ledger, provider, dict(chosen.models), hooks, host, now, self.doors.emit, self._ask, self.changed,
            tracing.tracer(chosen.tracing, chosen.tracing_project),
        )  # fmt: skip

    def known(self, run_id: str) -> Run:
        """Return a run as it now stands; raises `RunError` if there is none."""
        run = self._ledger.run(run_id)
        if run is None:
            raise RunError(f"There is no run {run_id!r}")
        return run

    def start(self, run: Run) -> Run:
        """Keep a new run and play it."""
        self._ledger.add(run)
        return self.play(run.id)

    def play(self, run_id: str) -> Run:
        """Play a run, and return it as it stands then."""
        self.work([run_id])
        return self.known(run_id)

    def work(self, run_ids: Iterable[str], *, ended: Iterable[Run] = ()) -> None:
        """Play these runs and all that follows from them. `ended` are runs whose askers may not know it yet."""
        agenda = deque(run_ids)
        agenda += [run.parent for run in ended if self._reply(run)]
        while agenda:
            run_id = agenda.popleft()
            agenda += play(self.scene, run_id)
            run = self._ledger.run(run_id)
            if run is None:
                continue
            self._call_back(run)
            if run.ended and self._reply(run):
                agenda.append(run.parent)

    def decide(
        self, run_id: str, wait_id: str | None, *, decision: str, notes: str, values: Mapping[str, Any], by: str = ""
    ) -> bool:  # fmt: skip
        """Take a decision; False when it is the one that was taken before.

        Raises:
            InputError: it does not fit; the gate stays open.
            RunError: there is no such gate, or another decision was first.
        """
        with self._ledger.transaction():
            run = self.known(run_id)
            wait = answers.chosen(run, wait_id, by)
            if not wait.pending:
                if wait.status == "resolved" and (wait.decision, wait.values or {}) == (decision, dict(values)):
                    return False
                raise RunError(f"Gate {wait.node!r} of run {run_id} is closed: {wait.decision or wait.status}")
            definition = self._registry.workflow(run.operator_id, run.workflow_id)
            answers.check(wait, definition, decision=decision, values=values)
            answers.check_counts_once(run, wait, by)
            wait.decision, wait.notes, wait.values, wait.by = decision, notes, dict(values) or None, by
            if wait.form == budgets.FORM:
                run.allowance_usd = budgets.allowed(decision, wait.payload, wait.values)
            self._close(run, wait)
            if wait.form == "effect":
                self._settle(run, wait)
        self._hooks.tell(run, "gate.decided", at=self._now(), node=wait.node, data={"decision": decision})
        return True

    def answer(self, run_id: str, wait_id: str, *, result: Any, error: str) -> bool:
        """Take the result that a run waits for; False if it does not wait for it."""
        with self._ledger.transaction():
            run = self._ledger.run(run_id)
            wait = run.wait(wait_id) if run else None
            if run is None or wait is None or not wait.pending or wait.kind in ("approval", "timer"):
                return False
            wait.result, wait.error = result, error
            self._close(run, wait)
        data = {"wait_id": wait_id, "error": error}
        self._hooks.tell(run, "wait.answered", at=self._now(), node=wait.node, data=data)
        return True

    def cancel(self, run_id: str) -> Run:
        """End a run; raises `RunError` if it has ended."""
        with self._ledger.transaction():
            run = self.known(run_id)
            if run.ended:
                raise RunError(f"Run {run_id} has ended already: {run.status}")
            run.end("cancelled", now=self._now())
            self._ledger.change(run)
        self._hooks.tell(run, "run.cancelled", at=self._now(), duration=run.metrics.duration_seconds)
        self.scene.calls.hang_up(run_id, Overtaken(run_id))
        self._call_back(run)
        self.work([], ended=[run])
        return run

    def fire(self, run_id: str) -> None:
        """Do what the clock has to do with a run."""
        now = self._now()
        told: list[tuple[str, Wait]] = []
        with self._ledger.transaction():
            run = self.known(run_id)
            definition = self._registry.workflow(run.operator_id, run.workflow_id)
            if run.status != "waiting":
                return
            if run.ends_by and run.ends_by <= now:
                fail(run, too_long(definition), now=now)
            else:
                due = [wait for wait in run.open_waits if wait.deadline and wait.deadline <= now]
                told = [(answers.expired(wait, now=now), wait) for wait in due if wait.pending]
                closed = [wait for _, wait in told if not wait.pending]
                if any(map(functools.partial(run.settled, now=now), closed)):
                    run.status = "queued"
            self._ledger.change(run)
        for kind, wait in told:
            data = {"wait_id": wait.id, "decision": wait.decision, "assigned_to": wait.assigned_to}
            self._hooks.tell(run, kind, at=now, node=wait.node, data=data)
        if run.ended:
            self._hooks.tell(run, "run.failed", at=now, data={"error": run.error})
        self.work([run_id])

    def recover(self) -> list[str]:
        """Go on with the runs that an ended process left in the middle; return their ids."""
        ids = {definition.spec.id for definition in self._registry}
        left = [run for run in self._ledger.left() if run.operator_id in ids and run.status in ("queued", "running")]
        for run in left:
            run.status = "queued"
            self._ledger.change(run)
        kept = self._ledger.runs()
        for run in kept:
            self._call_back(run)
        self.work([run.id for run in left], ended=[run for run in kept if run.ended and run.asked_by])
        return [run.id for run in left]

    def _reply(self, run: Run) -> bool:
        """Answer whoever asked for a run that has ended; tell whether somebody goes on now."""
        if not run.asked_by:
            return False
        error = run.error or ("" if run.status == "completed" else f"run {run.id} was {run.status}")
        return self.answer(run.parent, run.asked_by, result=run.output, error=error)

    def _call_back(self, run: Run) -> None:
        """Cancel the runs that were to answer this one, where it waits for their answers no more."""
        needless = {wait.id for wait in run.waits if wait.kind == "reply" and wait.status in _NEEDLESS}
        for asked in self._ledger.left() if needless else ():
            if asked.asked_by in needless:
                # One that has ended meanwhile is called back no more.
                with suppress(RunError):
                    self.cancel(asked.id)

    def _close(self, run: Run, wait: Wait) -> None:
        """Note an answer and queue the run; part of the caller's transaction."""
        if run.status != "waiting":
            raise RunError(f"Run {run.id} is {run.status}; it takes answers while it waits")
        wait.status, wait.closed_at = "resolved", self._now()
        if run.settled(wait, now=self._now()):
            run.status = "queued"
        self._ledger.change(run)

    def _settle(self, run: Run, wait: Wait) -> None:
        state = "confirmed" if wait.decision == HAPPENED else "failed"
        result = (wait.values or {}).get("result")
        where = {"node": wait.node, "step_id": wait.step_id, "key": wait.payload["effect"]}
        RunHost(self.scene, run, self.scene.visits(run)).settle(**where, state=state, result=result)

    def changed(self) -> list[str]:
        """Wake the runs that wait for a change of the shared context which is there by now; return their ids."""
        found = self._ledger.watching(operators=[definition.spec.id for definition in self._registry])
        return [run.id for run in found if any(self._look(run, wait) for wait in run.open_waits)]

    def _look(self, run: Run, wait: Wait) -> bool:
        if wait.kind != "change":
            return False
        asked, store = wait.payload, self.store
        change = store.first_after(asked["bucket"], asked["key"], asked["after"])
        if change is None:
            return False
        return self.answer(run.id, wait.id, result=dataclasses.asdict(change), error="")

    @property
    def store(self) -> Store:
        """What keeps the shared context."""
        return cast(Store, self.scene.host or self._ledger)

    def _ask(self, run: Run, wait: Wait) -> None:
        """Look whether what a run waits for has changed already; else ask an operator elsewhere, by the bus."""
        if wait.kind == "change":
            self._look(run, wait)
            return
        timeout = timedelta(seconds=wait.timeout_seconds) if wait.timeout_seconds else None
        result, error = self.doors.ask(run, wait.payload, timeout=timeout)
        self.answer(run.id, wait.id, result=result, error=error)

    def _heard(self, name: str, payload: Mapping[str, Any], origin: Origin) -> None:
        for definition, given in self._registry.listeners(name, payload):
            try:
                self.start(self.scene.new(definition, given, trigger=f"event:{name}", origin=origin))
            except RunError as error:
                logger.warning("Event %s started no %s.%s: %s", name, definition.operator_id, definition.spec.id, error)

    def _served(self, operator: str, capability: str, payload: Mapping[str, Any], origin: Origin) -> Mapping[str, Any]:
        definition = self._registry.server(operator, capability)
        if definition is None:
            raise RunError(f"Operator {operator!r} offers no {capability!r}")
        run = self.start(self.scene.new(definition, payload, trigger=f"request:{capability}", origin=origin))
        if run.status != "completed":
            raise RunError(run.error or f"run {run.id} is {run.status}")
        return run.output or {}
