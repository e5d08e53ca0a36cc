"""A run as a script sees it: where it stands, what came out, what it waits for, and what it has used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, Field

from openvibe import canonical, groups
from openvibe.events import Figures
from openvibe.outcomes import EACH, OpenWait, Rule, WaitKind
from openvibe.protocol import headers

Status = Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]


class RunMetrics(BaseModel):
    """What a run has used. `cost_usd` is None when the price of one of its calls is not known.

    `duration_seconds` counts from the start to the end, or to the last step; `running_seconds` leaves out the waiting.
    """

    duration_seconds: float = 0.0
    running_seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: Decimal | None = Decimal(0)
    nodes_executed: int = 0
    nodes_failed: int = 0
    llm_calls: int = 0

    def add(self, figures: Figures) -> None:
        """Count what one commit brought."""
        for name in ("tokens_in", "tokens_out", "nodes_executed", "nodes_failed", "llm_calls"):
            setattr(self, name, getattr(self, name) + getattr(figures, name))
        if self.cost_usd is not None:
            self.cost_usd = None if figures.unpriced_calls else self.cost_usd + figures.cost_usd


class Wait(BaseModel):
    """A pause of a run, and how it ended. `kind` says whose answer it needs.

    Waits of one interrupt are a group: `seat` counts them, and under `rule` so many good answers as `needed` end it.
    `by` is who answered, where that was told.
    """

    id: str
    kind: WaitKind
    status: Literal["pending", "resolved", "expired", "cancelled"] = "pending"
    node: str
    step_id: str
    interrupt_id: str
    seat: int = 0
    rule: Rule | Literal["", "each"] = ""
    needed: int = 0
    approver: str = ""
    name: str = ""
    version: int = 1
    payload_sha256: str = ""
    prompt: str = ""
    payload: dict[str, Any] = Field(default_factory=dict)
    decisions: list[str] = Field(default_factory=list)
    answer_schema: dict[str, Any] = Field(default_factory=dict)
    edits: list[str] = Field(default_factory=list)
    timeout_seconds: float | None = None
    deadline: datetime | None = None
    on_timeout: str = ""
    escalate_to: str = ""
    assigned_to: str = ""
    form: str = ""
    opened_at: datetime
    closed_at: datetime | None = None
    decision: str = ""
    notes: str = ""
    values: dict[str, Any] | None = None
    result: Any = None
    error: str = ""
    by: str = ""

    @property
    def pending(self) -> bool:
        """Whether nobody has answered yet."""
        return self.status == "pending"


@dataclass(frozen=True)
class Origin:
    """Where a run comes from: how many runs stand above it, in which trace it goes on, and what is passed on to it."""

    depth: int = 0
    traceparent: str = ""
    passed_on: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def child_of(cls, run: Run) -> Origin:
        """Return that of a run that a run starts."""
        return cls(run.depth + 1, run.trace, run.passed_on)

    @classmethod
    def of(cls, told: Mapping[str, str]) -> Origin:
        """Return that of a run that a message with these headers starts: one below the sender's, if he has a run."""
        depth = 1 + headers.depth(told) if headers.DEPTH in told else 0
        return cls(depth, headers.traceparent(told), headers.passed_on(told))


#: Where a run comes from that no other run has started.
ENTRY = Origin()


class Run(BaseModel):
    """One execution of a workflow, as it stood when it was asked for.

    `error` is empty unless the run failed; `failed_node` and `error_kind` say where and of what kind. `parent` is the
    run that started this one, by an event or a request, and `depth` the number of runs above it. `traceparent` and
    `passed_on` are headers of the message that started it, or its parent's. `allowance_usd` is what a person has
    allowed it to cost in all, where a budget was used up. `visits` and `emitted` are what a run without checkpoints is
    to know when it starts over: the steps of its nodes at its last pause, and what others have been told.
    """

    id: str
    operator_id: str
    workflow_id: str
    trigger: str = "on_demand"
    status: Status = "queued"
    input: dict[str, Any] = Field(default_factory=dict)
    output: dict[str, Any] | None = None
    error: str = ""
    error_kind: str = ""
    failed_node: str = ""
    traceback: str = ""
    waits: list[Wait] = Field(default_factory=list)
    metrics: RunMetrics = Field(default_factory=RunMetrics)
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    ends_by: datetime | None = None
    parent: str = ""
    asked_by: str = ""
    depth: int = 0
    traceparent: str = ""
    passed_on: dict[str, str] = Field(default_factory=dict)
    allowance_usd: Decimal | None = None
    epoch: int = 0
    visits: dict[str, list[str]] = Field(default_factory=dict)
    emitted: list[str] = Field(default_factory=list)

    @property
    def trace(self) -> str:
        """The `traceparent` in which it works: the one that it was given, or its own."""
        return self.traceparent or headers.trace_of(self.id)

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.status in ("completed", "failed", "cancelled")

    @property
    def open_waits(self) -> list[Wait]:
        """What it now waits for."""
        return [wait for wait in self.waits if wait.pending]

    def wait(self, wait_id: str) -> Wait | None:
        """Return the wait of that id, or None."""
        return next((wait for wait in self.waits if wait.id == wait_id), None)

    def group(self, wait: Wait) -> list[Wait]:
        """Return the waits that are answered together with this one, itself among them."""
        return [other for other in self.waits if other.interrupt_id == wait.interrupt_id]

    def settled(self, wait: Wait, *, now: datetime) -> bool:
        """Tell whether a wait that was just closed lets the run go on; what is not needed any more is closed then."""
        together = self.group(wait)
        if wait.rule == EACH:
            return True
        if wait.rule and not groups.over(together):
            return False
        for other in together:
            if other.pending:
                other.status, other.closed_at = "cancelled", now
        return True

    def taken_along(self, asked: Sequence[OpenWait], *, now: datetime) -> list[OpenWait]:
        """Return those of these that are new, and take along waits that are asked again by the same name.

        Of those whose names are left out nobody is to hear any more.
        """
        named = {item.request.name: item for item in asked if item.request.rule == EACH}
        known = {wait.name: wait for wait in self.waits if wait.rule == EACH and wait.status != "cancelled"}
        for name, wait in known.items():
            if name in named:
                wait.interrupt_id, wait.seat = named[name].interrupt_id, named[name].seat
            elif named and wait.pending:
                wait.status, wait.closed_at = "cancelled", now
        ids = {wait.interrupt_id for wait in self.open_waits}
        return [
            item
            for item in asked
            if (item.request.name not in known if item.request.rule == EACH else item.interrupt_id not in ids)
        ]

    def due(self) -> datetime | None:
        """Return when the clock has something to do with it, or None."""
        if self.status != "waiting":
            return None
        times = [wait.deadline for wait in self.open_waits if wait.deadline] + ([self.ends_by] if self.ends_by else [])
        return min(times, default=None)

    def end(self, status: Status, *, now: datetime) -> None:
        """Note that it is over; nobody is waited for any more."""
        self.status, self.ended_at = status, now
        for wait in self.open_waits:
            wait.status, wait.closed_at = "cancelled", now
        self.measure(now=now)

    def measure(self, *, now: datetime) -> None:
        """Note how long it has taken so far."""
        self.metrics.duration_seconds = max(0.0, (now - self.created_at) / timedelta(seconds=1))

    def to_dict(self) -> dict[str, Any]:
        """Return the run as the REST API shows it, in plain JSON types."""
        failed = {"message": self.error, "kind": self.error_kind, "node": self.failed_node}
        metrics = self.metrics.model_dump(exclude={"cost_usd"})
        cost = None if self.metrics.cost_usd is None else float(self.metrics.cost_usd)
        told: dict[str, Any] = canonical.jsonable(
            {
                "run_id": self.id,
                "status": self.status,
                "operator_id": self.operator_id,
                "workflow_id": self.workflow_id,
                "input": self.input,
                "output": self.output,
                "error": failed if self.error else None,
                "allowance_usd": self.allowance_usd and float(self.allowance_usd),
                "waits": [_told(wait) for wait in self.waits],
                "metrics": {name: _rounded(value) for name, value in metrics.items()} | {"cost_usd": cost},
                "created_at": _zulu(self.created_at),
                "completed_at": _zulu(self.ended_at),
            }
        )
        return told


_PLACE = ("rule", "needed", "seat")


def _told(wait: Wait) -> dict[str, Any]:
    shown = wait.model_dump(mode="json", exclude={"interrupt_id", "step_id", "form", "answer_schema", *_PLACE})
    group = {"id": wait.interrupt_id, **{name: getattr(wait, name) for name in _PLACE}} if wait.rule else None
    return {**shown, "group": group, "schema": wait.answer_schema}


def _rounded(value: float) -> float:
    return round(value, 3) if isinstance(value, float) else value


def _zulu(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
