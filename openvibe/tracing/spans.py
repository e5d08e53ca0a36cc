"""What is traced, in no vendor's words: a play of a run, its steps, and their calls to models."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from openvibe.llm.protocol import ToolCall, Turn
from openvibe.protocol import headers

Kind = Literal["play", "step", "call"]


@dataclass(frozen=True, slots=True)
class Play:
    """One play of a run: the run's facts, and the trace that all its plays join."""

    run_id: str
    operator_id: str
    workflow_id: str
    input: Mapping[str, Any] | None
    traceparent: str
    started: datetime
    epoch: int

    @property
    def trace_id(self) -> str:
        """The trace's id: 32 hex digits."""
        return self.traceparent.split("-")[1]

    @property
    def parent_id(self) -> str:
        """The span outside from which the run was started: 16 hex digits."""
        return self.traceparent.split("-")[2]

    @property
    def sampled(self) -> bool:
        """Whether whoever began the trace wants it recorded (W3C Trace Context §3.2.2.5)."""
        return bool(int(self.traceparent.split("-")[3], 16) & 1)

    @property
    def facts(self) -> dict[str, str | int]:
        """What a search would name."""
        return {
            "run_id": self.run_id, "operator_id": self.operator_id, "workflow_id": self.workflow_id,
            "epoch": self.epoch, "traceparent": self.traceparent,
        }  # fmt: skip


@dataclass(slots=True)
class Call:
    """What a model was asked, and what it answered."""

    model: str
    provider: str
    system: str
    user: str
    history: tuple[Turn, ...] = ()
    answered_by: str = ""
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: Decimal | None = None

    @property
    def turns(self) -> list[Turn]:
        """The conversation that the model was shown, without its system prompt."""
        return [Turn("user", self.user), *self.history]


@dataclass(slots=True)
class Span:
    """A stretch of time. Times are nanoseconds since 1970; ids are hex digits as in `traceparent`."""

    kind: Kind
    name: str
    play: Play
    id: str
    parent: Span | None = None
    step_id: str = ""
    call: Call | None = None
    began: int = field(default_factory=time.time_ns)
    ended: int = 0
    status: str = ""
    error: str = ""
    error_type: str = ""
    output: Any = None

    @property
    def parent_id(self) -> str:
        """The id of the span above, which for a play lies outside."""
        return self.parent.id if self.parent else self.play.parent_id

    @property
    def traceparent(self) -> str:
        """By what name whoever is asked inside this span goes on in it."""
        return f"00-{self.play.trace_id}-{self.id}-{self.play.traceparent.rsplit('-', 1)[1]}"

    def failed(self, error: BaseException) -> None:
        """Note that this ended by an exception."""
        self.status, self.error_type = "failed", type(error).__name__
        self.error = str(error) or self.error_type


def usable(traceparent: str) -> str:
    """Return the trace, or a new one where there is none."""
    return traceparent if headers.valid(traceparent) else headers.new_trace()


def play_span_id(play: Play) -> str:
    """Return the id of a play's span: the same for the same epoch, whoever makes it."""
    return derived(play.trace_id, play.run_id, "play", play.epoch) if play.epoch else secrets.token_hex(8)


def derived(*parts: object) -> str:
    """Return a span id that is always the same for these parts."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


def moment(nanoseconds: int) -> datetime:
    """Return a time as a date in UTC."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
