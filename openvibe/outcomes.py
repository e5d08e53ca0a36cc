"""How a play of a run may stop, and what one commit holds. Nothing here needs LangGraph, so doors can speak of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

from openvibe.errors import WorkflowTimeout
from openvibe.events import Event, Figures

#: What a person may say about an effect that nobody can tell of.
HAPPENED, NOT_HAPPENED = "it_happened", "it_did_not_happen"

#: Whose answer a wait needs: a person's, the clock's, a tool's, an external agent's, another operator's, or whoever's
#: that changes a value of the shared context.
WaitKind = Literal["approval", "timer", "tool", "work", "reply", "change"]

#: How the name of an engine wait begins that is the rest after a step: `wait_duration`.
REST: Final = "timer/"

#: What a tool's result may decide: it is the last word of the agent that has called it.
TERMINATE = "terminate"

#: Where an interrupt of ours that asks several says what each is asked besides.
SEATS = "seats"

#: When a group of waits is over: when all have answered, when one answer is good, or when so many are.
Rule = Literal["all", "any", "quorum"]
#: Or after each answer: those who have not answered yet stay asked, and are taken along to where the run waits next.
EACH: Final = "each"


@dataclass(frozen=True)
class WaitRequest:
    """What a wait asks. Its fields are those of the dict that the wait's LangGraph interrupt carries.

    `form` names the shape in which a graph that was brought as it is expects the answer; it is empty for our own.
    Where one interrupt asks several, each is a wait of a group: all have the same `rule`, under which `needed` good
    answers are enough. `approver` is the user, or the group of users, that this one is asked of. Under the rule `each`
    every wait has a `name`: what a run asks again by the same name is the same wait, with the same answer.
    """

    node: str
    kind: WaitKind = "approval"
    prompt: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    decisions: list[str] = field(default_factory=list)
    schema: Mapping[str, Any] = field(default_factory=dict)
    edits: list[str] = field(default_factory=list)
    timeout_seconds: float | None = None
    on_timeout: str | None = None
    escalate_to: str = ""
    form: str = ""
    rule: Rule | Literal["", "each"] = ""
    needed: int = 0
    approver: str = ""
    name: str = ""


@dataclass(frozen=True)
class OpenWait:
    """A wait that a run now stands at. An engine wait lies between super-steps and answers no interrupt.

    `seat` counts the waits of one interrupt, from 0.
    """

    step_id: str
    interrupt_id: str
    request: WaitRequest
    seat: int = 0


@dataclass(frozen=True)
class Completed:
    """The run reached its end; `output` holds the state fields that have a value."""

    output: dict[str, Any]


@dataclass(frozen=True)
class Paused:
    """The run waits for these."""

    waits: tuple[OpenWait, ...]


@dataclass(frozen=True)
class Failed:
    """The run cannot go on. `traceback` is empty for faults that OpenVibe itself explains.

    `attempt` is the number of the try that failed last; it is 0 where no step is to blame. `rest` is the pause that was
    to follow the last step that was played; whoever lets the run go on takes it first.
    """

    error: str
    kind: str
    node: str = ""
    traceback: str = ""
    step_id: str = ""
    attempt: int = 0
    rest: OpenWait | None = None


Outcome = Completed | Paused | Failed


def out_of_time(ran: float, limit: timedelta, **place: Any) -> Failed:
    """Return the end of a run whose steps have taken `ran` seconds, longer than its workflow allows."""
    told = f"The run's steps have taken {ran:.1f} s, longer than the {limit} that its workflow allows"
    return Failed(told, kind=WorkflowTimeout.__name__, **place)


def rest(outcome: Outcome | None) -> OpenWait | None:
    """Return the rest after a step that an outcome is; no other pause is one, because a step asks for it anew."""
    first = outcome.waits[0] if isinstance(outcome, Paused) else None
    return first if first and first.interrupt_id.startswith(REST) else None


@dataclass(frozen=True)
class Emission:
    """An event for other operators: its canonical name and its payload. `source` is unique within the run."""

    name: str
    payload: Mapping[str, Any]
    source: str


@dataclass
class Progress:
    """What one commit holds: events, by how much the figures grow, what was emitted and put, and at last the outcome.

    `reopened` are the steps that a run goes on with: events that belong on the timeline unless they stand there.
    """

    reopened: list[Event] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    emissions: list[Emission] = field(default_factory=list)
    puts: dict[tuple[str, str], Any] = field(default_factory=dict)
    outcome: Outcome | None = None
