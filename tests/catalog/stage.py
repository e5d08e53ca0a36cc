"""A stage on which the catalogue's operators play together: one shared context, events that start whoever listens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from openvibe import engine
from openvibe.compiler import CompiledWorkflow, compile_workflow
from openvibe.events import LOG, Event
from openvibe.fields import check_input
from openvibe.graph.rows import MemoryRows
from openvibe.graph.saver import RowSaver
from openvibe.host import MemoryHost
from openvibe.llm import LLMProvider
from openvibe.llm.scripted import Answer, ScriptedProvider
from openvibe.llm.simulated import SimulatedProvider
from openvibe.outcomes import Completed, Emission, Failed, Outcome, Paused
from openvibe.registry import OperatorDefinition, WorkflowDefinition, define
from openvibe.session import RunInfo, Session
from operators.catalog import OPERATORS

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DEFINITIONS: list[OperatorDefinition] = [define(cls) for cls in OPERATORS]
WORKFLOWS: dict[tuple[str, str], WorkflowDefinition] = {
    (definition.spec.id, workflow.spec.id): workflow
    for definition in DEFINITIONS
    for workflow in definition.workflows.values()
}
COMPILED: dict[tuple[str, str], CompiledWorkflow] = {
    place: compile_workflow(workflow) for place, workflow in WORKFLOWS.items()
}


@dataclass
class Diary(MemoryHost):
    """A host that writes down what nodes say, at a time that stands still."""

    said: list[Event] = field(default_factory=list)
    clock: Any = lambda: NOON

    def record(self, event: Event) -> None:
        self.said.append(event)

    @property
    def logged(self) -> list[str]:
        return [event.data["message"] for event in self.said if event.kind == LOG]


@dataclass
class Run:
    """One run. Sleeps end at once, and are remembered in `rests`; at a gate the run stops until it is answered."""

    operator: str
    workflow: str
    provider: LLMProvider
    host: Diary
    rows: MemoryRows = field(default_factory=MemoryRows)
    rests: list[timedelta] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    emitted: list[Emission] = field(default_factory=list)
    outcome: Outcome | None = None
    compiled: CompiledWorkflow | None = None

    def start(self, values: dict[str, Any]) -> Run:
        given = check_input(WORKFLOWS[self.operator, self.workflow].input_model, values)
        return self._play(start=given)

    def answer(self, decision: str, **more: Any) -> Run:
        [wait] = RowSaver(self.rows).pending_interrupts("run")
        return self._play(answers={wait: {"decision": decision, **more}})

    def _play(self, **options: Any) -> Run:
        self.outcome = self._once(**options)
        while isinstance(self.outcome, Paused) and self.outcome.waits[0].request.kind == "timer":
            self.rests.append(timedelta(seconds=self.outcome.waits[0].request.timeout_seconds or 0))
            assert len(self.rests) < 50
            self.outcome = self._once()
        return self

    def _once(self, **options: Any) -> Outcome | None:
        saver = RowSaver(self.rows, collect=True)
        info = RunInfo(id="run", operator_id=self.operator, workflow_id=self.workflow)
        session = Session(self.provider, host=self.host, run=info)
        outcome = None
        compiled = self.compiled or COMPILED[self.operator, self.workflow]
        for progress in engine.play(compiled, saver=saver, thread_id="run", session=session, **options):
            self.rows.save(*saver.collected())
            self.host.put(progress.puts)
            self.emitted += progress.emissions
            self.steps += [event.node for event in progress.events if event.kind == "step.finished"]
            outcome = progress.outcome
        return outcome

    @property
    def output(self) -> dict[str, Any]:
        assert isinstance(self.outcome, Completed), self.outcome
        return self.outcome.output

    @property
    def error(self) -> str:
        assert isinstance(self.outcome, Failed), self.outcome
        return self.outcome.error

    @property
    def gate(self) -> Any:
        assert isinstance(self.outcome, Paused), self.outcome
        [wait] = self.outcome.waits
        return wait.request

    def events(self, name: str) -> list[Any]:
        return [item.payload for item in self.emitted if item.name == name]


@dataclass
class Stage:
    """The operators of one project. Models are simulated unless a run brings its answers."""

    host: Diary = field(default_factory=Diary)

    def play(self, operator: str, workflow: str, values: dict[str, Any] | None = None, *answers: Answer) -> Run:
        """Start a workflow with these values, or with its sample."""
        provider: LLMProvider = ScriptedProvider(answers) if answers else SimulatedProvider()
        given = dict(WORKFLOWS[operator, workflow].spec.sample_input) if values is None else values
        return Run(operator, workflow, provider, self.host).start(given)

    def deliver(self, emission: Emission) -> list[Run]:
        """Start whoever listens to an event."""
        return [self.play(*place, values) for place, values in hearers(emission)]


def hearers(emission: Emission) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Yield who listens to an event, and the input that it gives them."""
    for place, workflow in WORKFLOWS.items():
        for listen in workflow.spec.subscriptions:
            if listen.hears(emission.name, emission.payload, owner=place[0]):
                yield place, listen.input(emission.payload, workflow.spec.inputs)
                break
