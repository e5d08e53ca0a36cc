"""The JetStream streams of the house, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from openvibe.protocol.subjects import VERSION


@dataclass(frozen=True)
class Stream:
    """A stream: what it keeps, for how long, and at most how many bytes (-1: no bound of its own)."""

    name: str
    subjects: tuple[str, ...]
    max_age: timedelta
    max_bytes: int = -1


STREAMS = (
    Stream(f"cg_cmd_{VERSION}", (f"cg.{VERSION}.*.*.cmd.>",), timedelta(hours=24)),
    Stream(f"cg_evt_{VERSION}", (f"cg.{VERSION}.*.*.evt.>",), timedelta(days=7)),
    Stream("operators", ("operators.*.events.>",), timedelta(days=7)),
    Stream("agent-comms", ("workflow.>",), timedelta(days=7)),
    Stream("sessions", ("sessions.>",), timedelta(days=7)),
)
