"""What the messages of a session hold, as models: the published JSON Schemas are made of them, and so is each check.

Fields beyond these are ignored, and passed on. Only what the reader cannot do without is required.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _rfc3339(value: Any) -> Any:
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise ValueError("a time like 2025-10-22T10:00:00Z is needed")


def _named_by_utc(value: datetime) -> datetime:
    # It has no name for some of the first and the last hours of all; PostgreSQL keeps them, and nobody reads them back.
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time between the years 1 and 9999 of UTC is needed") from None
    return value


#: A time with its offset, as RFC 3339 writes it.
Timestamp = Annotated[
    AwareDatetime,
    Field(strict=False),
    BeforeValidator(_rfc3339),
    AfterValidator(_named_by_utc),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": f"^{_RFC3339.pattern}$"}),
]
AgentId = Annotated[str, Field(min_length=1, max_length=200)]
Name = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """Anything in a message: strict about types, open to what it does not know."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Pointer(Part):
    """Stands in the place of a value that is too large for a message: `GET /v1/cards/<card>` has it."""

    card: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: int


class Place(Part):
    """Where the code lies that is worked at."""

    repo_path: str | None = None
    branch: str | None = None


class Work(Part):
    """A task for an agent of any role. OpenVibe always gives it a `work_id`, which a result may quote."""

    work_id: str | None = None
    chunk_id: str | None = None
    context: Place | Pointer | None = None


class Coding(Work):
    """Write an implementation."""

    description: str | Pointer | None = None
    requirements: list[str] | Pointer | None = None


class Testing(Work):
    """Write and run tests."""

    target_code: str | Pointer | None = None
    test_requirements: list[str] | Pointer | None = None


class Review(Work):
    """Judge the quality."""

    files: list[str] | Pointer | None = None
    criteria: list[str] | Pointer | None = None


class Worker(Part):
    """Who did it."""

    agent_id: AgentId | None = None


class Result(Part):
    """What every result may say of the task that it answers."""

    work_id: str | None = None
    chunk_id: str | None = None
    work_type: str | None = None
    context: Worker | None = None


class Success(Result):
    """The work is done."""

    summary: str | None = None
    files_changed: list[str] | None = None
    commit_sha: str | None = None


class Failure(Result):
    """The work could not be done."""

    error: Name
    details: str | None = None


class Changes(Part):
    """What a phase did to the code."""

    files_added: list[str] = []
    files_modified: list[str] = []
    files_deleted: list[str] = []


class Question(Part):
    """An open gate. OpenVibe always says the last three, and a decision may quote the last two."""

    gate_id: Name
    phase: str
    summary: str | Pointer
    chunk_id: str | None = None
    changes: Changes | Pointer | None = None
    decisions: list[str] | None = None
    version: int | None = None
    payload_sha256: str | None = None


class Quote(Part):
    """Which gate is decided, and perhaps what was seen of it."""

    gate_id: Name
    version: int | None = None
    payload_sha256: str | None = None


class Granted(Quote):
    """A yes."""

    approved_by: Name
    approved_at: Timestamp | None = None
    notes: str | None = None


class Rejected(Quote):
    """A no."""

    rejected_by: Name
    rejected_at: Timestamp | None = None
    reason: str | None = None


class Started(Part):
    """An agent has begun to work in a session."""

    agent_id: AgentId
    role: str | None = None
    container_id: str | None = None


class Stopped(Part):
    """An agent works in a session no more."""

    agent_id: AgentId
    reason: str | None = None


class Cancelled(Part):
    """Nobody waits for this work any more; its result would change nothing."""

    work_id: Name
    role: str | None = None
    chunk_id: str | None = None
    reason: str | None = None


class Fault(Part):
    """Something went wrong. Of a message that could not be read, OpenVibe says the last five."""

    error: str | None = None
    message: str | None = None
    agent_id: AgentId | None = None
    code: str | None = None
    subject: str | None = None
    message_id: str | None = None
    message_type: str | None = None
    dead_letter: int | None = None


class Health(Part):
    """An agent lives. After three silences of `interval_seconds` it counts as silent."""

    agent_id: AgentId
    status: str | None = None
    role: str | None = None
    interval_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
