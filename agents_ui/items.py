"""Folds a channel's events into what a page shows: one item for each step, one for each other fact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from openvibe.events import ATTEMPT_FAILED, GATE_OPENED, STEP_FAILED, STEP_FINISHED, STEP_STARTED
from operators.models import Event

GATE_CLOSED = ("gate.decided", "gate.expired")
STEP_KINDS = frozenset({STEP_STARTED, ATTEMPT_FAILED, STEP_FINISHED, STEP_FAILED, GATE_OPENED, *GATE_CLOSED})
#: After these nobody plays the run's open steps any more; `run.resumed` takes them up again.
INTERRUPTING = frozenset({"run.lost", "run.handed_back", "run.failed", "run.cancelled", "run.completed"})
#: Kinds with a sentence of their own in `templates/timeline/`.
TOLD = frozenset(
    {
        "run.queued",
        "run.started",
        "run.resumed",
        "run.lost",
        "run.handed_back",
        "run.completed",
        "run.failed",
        "run.cancelled",
        "run.retried",
        "error",
        *STEP_KINDS,
    }
)

StepStatus = Literal["running", "waiting", "completed", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One event, whether it came from the database or over the wire."""

    seq: int
    kind: str
    run_id: str
    node: str
    step_id: str
    actor: str
    data: Mapping[str, Any]
    at: datetime

    @classmethod
    def of(cls, event: Event) -> Entry:
        """Take it from a row."""
        return cls(
            seq=event.seq,
            kind=event.kind,
            run_id=event.run_id or "",
            node=event.node,
            step_id=event.step_id,
            actor=event.actor,
            data=event.data,
            at=event.created_at,
        )

    @classmethod
    def read(cls, wire: Mapping[str, Any]) -> Entry:
        """Take it from the form in which it travels (`Event.wire`)."""
        at = wire["timestamp"]
        return cls(
            seq=wire["seq"],
            kind=wire["type"],
            run_id=wire["run_id"],
            node=wire["node"],
            step_id=wire["step_id"],
            actor=wire["actor"],
            data=wire["data"],
            at=at if isinstance(at, datetime) else datetime.fromisoformat(at),
        )


@dataclass
class Moment:
    """A fact that stands by itself."""

    entry: Entry

    @property
    def entries(self) -> Sequence[Entry]:
        """Its one event, in the form in which a step has several."""
        return (self.entry,)

    @property
    def from_agent(self) -> bool:
        """Whether somebody outside said it."""
        return self.entry.kind.startswith("agent.")

    @property
    def told(self) -> str:
        """What kind of thing the agent said."""
        return self.entry.kind.removeprefix("agent.")

    @property
    def payload(self) -> Any:
        """What came with the agent's words."""
        return self.entry.data.get("payload") or self.entry.data.get("attrs")

    @property
    def sentence(self) -> str:
        """The template that says it."""
        name = self.entry.kind.replace(".", "_") if self.entry.kind in TOLD else "_default"
        return f"timeline/{name}.html"


@dataclass
class Step:
    """One execution of a node, from its start to its end, with what happened in between."""

    id: str
    entries: list[Entry] = field(default_factory=list)
    interrupted: bool = False

    def _last(self, *kinds: str) -> Entry | None:
        return next((entry for entry in reversed(self.entries) if entry.kind in kinds), None)

    @property
    def node(self) -> str:
        """The node's id."""
        return self.entries[0].node

    @property
    def begun(self) -> bool:
        """Whether its first event is here too."""
        return self.entries[0].kind == STEP_STARTED

    @property
    def at(self) -> datetime:
        """When it began."""
        return self.entries[0].at

    @property
    def seq(self) -> int:
        """The number of its newest event."""
        return self.entries[-1].seq

    @property
    def end(self) -> Entry | None:
        """The event that ended it, if one has."""
        return self._last(STEP_FINISHED, STEP_FAILED)

    @property
    def opened(self) -> Entry | None:
        """The gate's question, if the step is a gate."""
        return self._last(GATE_OPENED)

    @property
    def decided(self) -> Entry | None:
        """The gate's answer, if it has one."""
        return self._last(*GATE_CLOSED)

    @property
    def attempts(self) -> list[Entry]:
        """The tries that failed."""
        return [entry for entry in self.entries if entry.kind == ATTEMPT_FAILED]

    @property
    def status(self) -> StepStatus:
        """Where it stands, as far as the events tell."""
        if self.end:
            return "completed" if self.end.kind == STEP_FINISHED else "failed"
        if self.interrupted:
            return "stopped"
        return "waiting" if self.opened and not self.decided else "running"

    @property
    def update(self) -> Any:
        """What the step wrote; a gate's is its decision, which is shown already."""
        update = self.end.data.get("update") if self.end else None
        return None if self.opened else update

    @property
    def changes(self) -> Any:
        """What a person changed at the gate."""
        return self.decided.data.get("values") if self.decided else None

    @property
    def usage(self) -> Mapping[str, Any]:
        """What its model calls used."""
        return self.end.data.get("usage") or {} if self.end else {}

    @property
    def duration(self) -> float | None:
        """Seconds; a gate has none, for its time is a person's."""
        if self.end is None or self.opened:
            return None
        seconds: float | None = self.end.data.get("duration_seconds")
        return seconds


Item = Step | Moment


def fold(entries: Iterable[Entry]) -> list[Item]:
    """Put the events of a step into one item, which stands where the step began."""
    items: list[Item] = []
    steps: dict[str, Step] = {}
    for entry in entries:
        if entry.step_id and entry.kind in STEP_KINDS:
            if entry.step_id not in steps:
                items.append(steps.setdefault(entry.step_id, Step(entry.step_id)))
            steps[entry.step_id].entries.append(entry)
            continue
        items.append(Moment(entry))
        if entry.kind in INTERRUPTING or entry.kind == "run.resumed":
            for step in steps.values():
                step.interrupted = entry.kind != "run.resumed"
    return items


def unfolded(entries: Iterable[Entry]) -> list[Item]:
    """Let every fact stand by itself, as on the general channel."""
    return [Moment(entry) for entry in entries]
