"""What a run lends to its nodes while it is played: a model to ask, a host that listens, and notes of each step."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from openvibe import canonical
from openvibe.errors import StepTimeout
from openvibe.events import ATTEMPT_FAILED, Event, Usage
from openvibe.host import Host, MemoryHost
from openvibe.llm import LLMProvider


@dataclass(frozen=True)
class RunInfo:
    """Whose run is played."""

    id: str = "run"
    operator_id: str = "operator"
    workflow_id: str = "workflow"


@dataclass
class StepNotes:
    """What a step did besides its update; it counts only when the step is committed."""

    usages: list[Usage] = field(default_factory=list)
    emitted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    puts: dict[tuple[str, str], Any] = field(default_factory=dict)
    sleep: timedelta | None = None
    shown: Mapping[str, Any] = field(default_factory=dict)
    abandoned: bool = False

    def check(self) -> None:
        """Stop a thread that nobody listens to any more before it does something to the outside world."""
        if self.abandoned:
            raise StepTimeout("This step's time is up; nobody listens to it any more")

    def forget(self) -> None:
        """Drop what a failed try has said; what it used, it has used."""
        self.emitted.clear()
        self.puts.clear()
        self.sleep = None


@dataclass
class Session:
    """One play of a run. `models` overrides the model of single nodes.

    Errors that are `outside` of the run, such as those of whatever stores it, are no node's fault: no try is repeated
    for them. `abandoned` are the threads of steps that took too long and could not be stopped.
    """

    provider: LLMProvider
    models: Mapping[str, str] = field(default_factory=dict)
    host: Host = field(default_factory=MemoryHost)
    run: RunInfo = field(default_factory=RunInfo)
    outside: tuple[type[Exception], ...] = ()
    abandoned: list[threading.Thread] = field(default_factory=list)
    _notes: dict[str, StepNotes] = field(default_factory=lambda: defaultdict(StepNotes))

    def listen(self, *, node: str, step_id: str) -> StepListener:
        """Return the ear of one step."""
        return StepListener(self, node, step_id)

    def notes(self, step_id: str) -> StepNotes:
        """Return a step's notes, to be written into."""
        return self._notes[step_id]

    def abandon(self, step_id: str, thread: threading.Thread) -> None:
        """Listen no more to a step whose time is up."""
        self.notes(step_id).abandoned = True
        self._notes.pop(step_id)
        self.abandoned.append(thread)

    def told(self, step_id: str) -> StepNotes:
        """Hand out a step's notes, once."""
        return self._notes.pop(step_id, None) or StepNotes()


@dataclass(frozen=True)
class StepListener:
    """Passes what a model call tells on to the session, with the step's name on it."""

    session: Session
    node: str
    step_id: str

    def words(self, text: str) -> None:
        """The model said more."""
        self.session.host.words(node=self.node, step_id=self.step_id, text=text)

    def usage(self, usage: Usage) -> None:
        """A call came back."""
        self.session.notes(self.step_id).usages.append(usage)

    def attempt_failed(self, **data: Any) -> None:
        """A try failed."""
        told = canonical.jsonable(data)
        self.session.host.record(Event(ATTEMPT_FAILED, node=self.node, step_id=self.step_id, data=told))
