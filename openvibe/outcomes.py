"""How a play of a run may stop, and what one commit holds. Nothing here needs LangGraph, so doors can speak of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openvibe.events import Event, Figures


@dataclass(frozen=True)
class GateRequest:
    """What a gate asks. Its fields are those of the dict that the gate's LangGraph interrupt carries."""

    node: str
    prompt: str
    payload: Mapping[str, Any]
    decisions: list[str]
    schema: Mapping[str, Any]
    edits: list[str]
    timeout_seconds: float | None
    on_timeout: str | None


@dataclass(frozen=True)
class Completed:
    """The run reached its end; `output` holds the state fields that have a value."""

    output: dict[str, Any]


@dataclass(frozen=True)
class OpenGate:
    """A gate that the run now waits at."""

    step_id: str
    interrupt_id: str
    request: GateRequest


@dataclass(frozen=True)
class Paused:
    """The run waits for these gates."""

    gates: tuple[OpenGate, ...]


@dataclass(frozen=True)
class Failed:
    """The run cannot go on. `traceback` is empty for faults that OpenVibe itself explains."""

    error: str
    kind: str
    node: str = ""
    traceback: str = ""


Outcome = Completed | Paused | Failed


@dataclass
class Progress:
    """What one commit holds: events, by how much the figures grow, and at the end the outcome."""

    events: list[Event] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    outcome: Outcome | None = None
