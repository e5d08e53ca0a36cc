"""What a run lends to its nodes while it is played: a model to ask, a host that listens, and notes of each step."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from openvibe import canonical
from openvibe.errors import StepTimeout
from openvibe.events import ATTEMPT_FAILED, Event, Usage
from openvibe.host import Host, MemoryHost, Tries
from openvibe.line import Line
from openvibe.llm import LLMProvider
from openvibe.outcomes import WaitRequest
from openvibe.tracing import NOT_TRACED, RunTrace, StepTrace
from openvibe.tracing.provider import TracedProvider
from openvibe.visits import Visits

#: How long a thread may take to notice, in seconds, that its line was hung up.
_GRACE = 1.0
#: The longest pause between two tries for which a step keeps its thread, in seconds, unless the session says otherwise.
PATIENCE = 60.0


@dataclass(frozen=True)
class RunInfo:
    """Whose run is played, and in which trace."""

    id: str = "run"
    operator_id: str = "operator"
    workflow_id: str = "workflow"
    traceparent: str = ""
    tracestate: str = ""


@dataclass
class StepNotes:
    """What a step did besides its update; it counts only when the step is committed.

    `pause` is what the run is to wait for before the step can go on.
    """

    usages: list[Usage] = field(default_factory=list)
    emitted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    puts: dict[tuple[str, str], Any] = field(default_factory=dict)
    sleep: timedelta | None = None
    shown: Mapping[str, Any] = field(default_factory=dict)
    line: Line = field(default_factory=Line)
    pause: Exception | None = None

    def check(self) -> None:
        """Stop a try that nobody listens to any more, or that has to wait, before it does something to the world."""
        if self.pause is not None:
            raise self.pause
        self.line.check()

    def forget(self) -> None:
        """Drop what a failed try has said; what it used, it has used."""
        self.emitted.clear()
        self.puts.clear()
        self.sleep = None


@dataclass
class Session:
    """One play of a run. `models` overrides the model of single nodes.

    Errors that are `outside` of the run, such as those of whatever stores it, are no node's fault: no try is repeated
    for them. `abandoned` are the threads of steps that took too long and could not be stopped. A pause between two
    tries that is longer than `patience`, in seconds, becomes a pause of the run. `budget` is asked before
    each step, by its node and what this play has cost so far, whether a person has to be asked for more money. `trace`
    is told what is played, and `spans` are the traces of the steps that are being executed. `visits` name what is
    played, for effects. `left` tells how many seconds the steps may still take.
    """

    provider: LLMProvider
    models: Mapping[str, str] = field(default_factory=dict)
    host: Host = field(default_factory=MemoryHost)
    run: RunInfo = field(default_factory=RunInfo)
    outside: tuple[type[Exception], ...] = ()
    patience: float = PATIENCE
    budget: Callable[[str, Decimal], WaitRequest | None] | None = None
    trace: RunTrace = NOT_TRACED
    spans: dict[str, StepTrace] = field(default_factory=dict)
    visits: Visits = field(default_factory=Visits)
    left: Callable[[], float] | None = None
    abandoned: list[threading.Thread] = field(default_factory=list)
    _notes: dict[str, StepNotes] = field(default_factory=lambda: defaultdict(StepNotes))
    _tries: dict[str, Tries] = field(default_factory=dict)

    def provider_for(self, step_id: str) -> LLMProvider:
        """Return the provider that a step asks; what it is asked is told to the step's trace, if there is one."""
        span = self.spans.get(step_id)
        return TracedProvider(self.provider, span) if span else self.provider

    def notes(self, step_id: str) -> StepNotes:
        """Return a step's notes, to be written into."""
        return self._notes[step_id]

    def tries(self, step_id: str) -> Tries:
        """Return how many tries of a step have failed, in this play and in earlier ones."""
        if step_id not in self._tries:
            self._tries[step_id] = self.host.tries(step_id)
        return self._tries[step_id]

    def failed(self, *, node: str, step_id: str, told: Mapping[str, Any]) -> None:
        """Count and show a failed try."""
        counted = self.tries(step_id).counted(told)
        self.host.record(Event(ATTEMPT_FAILED, node=node, step_id=step_id, data=told))
        self._tries[step_id] = counted

    def abandon(self, step_id: str, thread: threading.Thread) -> None:
        """Listen no more to a try whose time is up; what it used, it has used."""
        late = self._notes[step_id]
        self._notes[step_id] = StepNotes(usages=list(late.usages))
        if late.line.hang_up(StepTimeout("This step's time is up; nobody listens to it any more")):
            thread.join(_GRACE)
        if thread.is_alive():
            self.abandoned.append(thread)
            self.host.abandoned(thread)

    @contextmanager
    def calling(self, notes: StepNotes) -> Iterator[None]:
        """Wait for somebody outside inside the block: not longer than the try's time, nor than the run is ours."""
        with notes.line.talking(), self.host.calling(notes.line.hang_up):
            yield

    def told(self, step_id: str) -> StepNotes:
        """Hand out a step's notes, once."""
        return self._notes.pop(step_id, None) or StepNotes()


@dataclass(frozen=True)
class StepListener:
    """Passes what a model call tells on to the session, with the step's name on it, until the try's time is up."""

    session: Session
    node: str
    step_id: str
    notes: StepNotes

    def words(self, text: str) -> None:
        """The model said more."""
        self.notes.check()
        self.session.host.words(node=self.node, step_id=self.step_id, text=text)

    def usage(self, usage: Usage) -> None:
        """A call came back."""
        self.notes.check()
        self.notes.usages.append(usage)

    def attempt_failed(self, **data: Any) -> None:
        """A try failed."""
        self.notes.check()
        self.session.failed(node=self.node, step_id=self.step_id, told=canonical.jsonable(data))

    def calling(self) -> AbstractContextManager[None]:
        """A call runs inside this block."""
        return self.session.calling(self.notes)
