"""One event of a channel as pages hold it, whether it came from the database or over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from operators.models import Event


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

    @property
    def from_agent(self) -> bool:
        """Whether somebody outside said it: that changes nothing of a run."""
        return self.kind.startswith("agent.")

    @property
    def anchor(self) -> str:
        """The name of its place on a page."""
        return f"e{self.seq}"

    @property
    def details(self) -> Any:
        """What came with the fact and is too much for a sentence."""
        data = self.data
        match self.kind.partition(".")[0]:
            case "event":
                return data.get("payload")
            case "log":
                return {name: value for name, value in data.items() if name != "message"}
            case "effect":
                return data.get("result")
            case "run" | "answer":
                return data.get("values")
            case _:
                return None
