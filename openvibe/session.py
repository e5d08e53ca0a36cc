"""What a run lends to its nodes while it is played: a model to ask, and somebody who listens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from openvibe import canonical
from openvibe.events import ATTEMPT_FAILED, Event, Usage
from openvibe.llm import LLMProvider


class Observer(Protocol):
    """Hears what happens inside a step, while the step is still running."""

    def record(self, event: Event) -> None:
        """Keep a fact that must not wait for the end of its step."""

    def words(self, *, node: str, step_id: str, text: str) -> None:
        """Pass on a model's words; they may get lost."""


class Silence:
    """The observer that hears nothing."""

    def record(self, event: Event) -> None:
        """Forget it."""

    def words(self, *, node: str, step_id: str, text: str) -> None:
        """Forget them."""


@dataclass
class Session:
    """One play of a run. `models` overrides the model of single nodes."""

    provider: LLMProvider
    models: Mapping[str, str] = field(default_factory=dict)
    observer: Observer = field(default_factory=Silence)
    _usages: dict[str, list[Usage]] = field(default_factory=lambda: defaultdict(list))

    def listen(self, *, node: str, step_id: str) -> StepListener:
        """Return the ear of one step."""
        return StepListener(self, node, step_id)

    def heard(self, step_id: str, usage: Usage) -> None:
        """Remember what a step used until the step is told as finished."""
        self._usages[step_id].append(usage)

    def used(self, step_id: str) -> list[Usage]:
        """Hand out, once, what a step used."""
        return self._usages.pop(step_id, [])


@dataclass(frozen=True)
class StepListener:
    """Passes what a model call tells on to the session, with the step's name on it."""

    session: Session
    node: str
    step_id: str

    def words(self, text: str) -> None:
        """The model said more."""
        self.session.observer.words(node=self.node, step_id=self.step_id, text=text)

    def usage(self, usage: Usage) -> None:
        """A call came back."""
        self.session.heard(self.step_id, usage)

    def attempt_failed(self, **data: Any) -> None:
        """A try failed."""
        told = canonical.jsonable(data)
        self.session.observer.record(Event(ATTEMPT_FAILED, node=self.node, step_id=self.step_id, data=told))
