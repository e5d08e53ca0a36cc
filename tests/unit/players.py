"""One run on rows in memory, played like a worker does, and those who take part in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from openvibe import engine, operator, workflow
from openvibe.compiler import CompiledWorkflow, compile_workflow
from openvibe.events import Event
from openvibe.graph.rows import MemoryRows
from openvibe.graph.saver import RowSaver
from openvibe.host import MemoryHost
from openvibe.llm import LLMProvider, LLMResponse
from openvibe.llm.simulated import SimulatedProvider
from openvibe.outcomes import Emission, Outcome, Progress
from openvibe.registry import define
from openvibe.session import RunInfo, Session


@dataclass
class Priced:
    """A provider with a price; it says `script`'s items in turn, and raises those that are errors."""

    script: list[str | Exception]
    cost_usd: Decimal | None = Decimal("0.01")
    name: str = "priced"

    def complete(
        self,
        *,
        system: str,
        user: str,
        model: str,
        max_tokens: int = 4096,
        temperature: float | None = None,
        schema: Mapping[str, Any] | None = None,
        on_words: Callable[[str], None] | None = None,
    ) -> LLMResponse:
        item = self.script.pop(0)
        if isinstance(item, Exception):
            raise item
        for word in item.split():
            if on_words:
                on_words(word)
        return LLMResponse(item, tokens_in=10, tokens_out=5, model=model, cost_usd=self.cost_usd)


@dataclass
class Diary(MemoryHost):
    """A host that writes everything down."""

    recorded: list[Event] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)

    def record(self, event: Event) -> None:
        self.recorded.append(event)

    def words(self, *, node: str, step_id: str, text: str) -> None:
        self.said.append((node, text))

    @property
    def logged(self) -> list[str]:
        return [event.data["message"] for event in self.recorded if event.kind == "log"]


@dataclass
class Run:
    """One run on rows in memory, played like a worker does: what a `Progress` brings is stored before the next."""

    workflow: CompiledWorkflow
    provider: LLMProvider = field(default_factory=SimulatedProvider)
    host: Diary = field(default_factory=Diary)
    models: Mapping[str, str] = field(default_factory=dict)
    info: RunInfo = field(default_factory=RunInfo)
    outside: tuple[type[Exception], ...] = ()
    rows: MemoryRows = field(default_factory=MemoryRows)
    events: list[Event] = field(default_factory=list)
    seen: list[Progress] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)

    def parts(self, **options: Any) -> Iterator[Progress]:
        saver = RowSaver(self.rows, collect=True)
        session = Session(self.provider, self.models, self.host, self.info, self.outside)
        self.sessions.append(session)
        parts = engine.play(self.workflow, saver=saver, thread_id="run", session=session, **options)
        for progress in parts:
            self.rows.save(*saver.collected())
            self.host.put(progress.puts)
            self.events += [event for event in progress.reopened if event not in self.events] + progress.events
            self.seen.append(progress)
            try:
                yield progress
            except GeneratorExit:
                parts.close()
                raise

    def play(self, **options: Any) -> Outcome:
        outcomes = [progress.outcome for progress in self.parts(**options)]
        assert [item for item in outcomes[:-1] if item] == []
        return outcomes[-1]

    def play_in_pieces(self, **options: Any) -> Outcome:
        """Play on like workers that die right after each commit, each with a saver of its own."""
        for _ in range(100):
            parts = self.parts(**options)
            progress = next(item for item in parts if item.events or item.outcome)
            parts.close()
            if progress.outcome:
                return progress.outcome
            options = {}
        raise AssertionError("the run does not come forward")

    def answer(self, decision: str, **more: Any) -> Outcome:
        [waiting] = RowSaver(self.rows).pending_interrupts("run")
        return self.play(answers={waiting: {"decision": decision, **more}})

    @property
    def told(self) -> list[str]:
        return [f"{event.kind} {event.node}" for event in self.events]

    @property
    def emitted(self) -> list[Emission]:
        return [emission for progress in self.seen for emission in progress.emissions]


def compiled(body: type, **options: Any) -> CompiledWorkflow:
    """Compile a class of nodes as the workflow of an operator with a few state fields, one named like each node."""

    @operator(id="desk")
    class Desk:
        topic: str = "bread"
        research: str = ""
        draft: str = ""
        review: str = ""
        letter: str = "empty"
        amount: int = 0
        tags: list[str] = []

        Write = workflow(id="write", **options)(body)

    return compile_workflow(define(Desk).workflows["write"])
