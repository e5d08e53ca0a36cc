"""The body of every message, and how a foreign body is read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from openvibe.protocol import nesting

VERSION = "1"
_NUMBER = r"^[0-9]{1,18}$"


class Malformed(ValueError):
    """A message that cannot be read; the text says why, `code` what rule of the protocol it breaks, if one."""

    code = ""


class ProtocolViolation(Malformed):
    """A header that is required is missing, or is not what it should be."""

    code = "protocol_violation"


class TooDeep(Malformed):
    """The chain in which each run starts the next has become too long."""

    code = "recursion_depth_exceeded"


class UnknownAgent(Malformed):
    """Nobody serves the agent that is meant."""

    code = "agent_not_found"


def _number(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and not re.fullmatch(_NUMBER, value)):
        raise ValueError("an integer is needed")
    return value


#: A number, which some senders write as text.
Number = Annotated[
    int,
    BeforeValidator(_number),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": _NUMBER}]}),
]
#: When it was said: as RFC 3339 writes it, or in seconds or milliseconds since 1970.
Moment = Annotated[datetime, WithJsonSchema({"type": ["string", "number"], "format": "date-time"})]


class Envelope(BaseModel):
    """One message. Unknown fields are ignored; missing ones are filled from the subject by the dialect."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: str = VERSION
    id: str = Field(min_length=1, max_length=200)
    timestamp: Moment = Field(default_factory=lambda: datetime.now(UTC))
    type: str = ""
    project: str = ""
    channel: str = ""
    run_id: str = ""
    operator_id: str = ""
    workflow_id: str = ""
    step_id: str = ""
    seq: Number | None = None
    role: str = ""
    kind: str = ""
    content: str = ""
    payload: dict[str, Any] = Field(default_factory=dict)


def loads(data: bytes) -> dict[str, Any]:
    """Return a body's JSON object.

    Raises:
        Malformed: the bytes are no JSON, or JSON of another kind.
    """
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise Malformed(f"The body is a JSON {type(body).__name__}; an object is needed")
    return body


def received(data: bytes) -> dict[str, Any]:
    """Return the JSON object of a body from outside.

    Raises:
        Malformed: as `loads`, or it is nested so deep that what is kept of it could not be told to everybody.
    """
    body = loads(data)
    # So many brackets cost less to count than one level to look through.
    if data.count(b"{") + data.count(b"[") > nesting.MOST_LEVELS and nesting.deep(body):
        raise Malformed(f"The body {nesting.FAULT}")
    return body


def read(body: Mapping[str, Any]) -> Envelope:
    """Return the envelope that a body holds.

    Raises:
        Malformed: a field is missing or of a wrong type, or the version is not known; the text names it.
    """
    try:
        found = Envelope.model_validate(dict(body))
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        raise Malformed(f"{'.'.join(map(str, item['loc']))}: {item['msg']}") from error
    known(found.version)
    known_type(found.type)
    return found


def check(body: Mapping[str, Any], *, typed: bool = False) -> None:
    """Raise `Malformed` if a body is an envelope of a version that is not read; what is no envelope may say anything.

    An envelope has a `version`, and a `payload` that is an object. `typed` says that its `type` is one of the
    protocol's, with a version of its own.
    """
    version = body.get("version")
    if version is None or not isinstance(body.get("payload"), dict):
        return
    known(str(version))
    if typed and isinstance(body.get("type"), str):
        known_type(body["type"])


def known(version: str) -> None:
    """Raise `Malformed` unless an envelope of this version is read: the current one and the previous one are."""
    read = accepted(int(VERSION))
    if version not in map(str, read):
        raise Malformed(f"version: {version!r} is none that is read ({', '.join(map(str, read))})")


def known_type(type: str, *, current: int = 1) -> None:
    """Raise `Malformed` unless a type is of a version that is read where `current` is sent."""
    read = accepted(current)
    if versioned(type)[1] not in read:
        spelled = ", ".join(f".v{number}" for number in read)
        raise Malformed(f"type: {type!r} is of a version that is not read ({spelled})")


def accepted(current: int) -> tuple[int, ...]:
    """Return which versions a consumer reads where `current` is sent: that one and the one before it."""
    return tuple(version for version in (current, current - 1) if version > 0)


def versioned(type: str) -> tuple[str, int]:
    """Return a message's type without its version suffix, such as `.v2`, and its version: 1 where it has none.

    A suffix such as `.v01` is of no version: 0.
    """
    name, _, suffix = type.rpartition(".v")
    if not name or not suffix.isascii() or not suffix.isdecimal():
        return type, 1
    return name, 0 if suffix.startswith("0") else int(suffix)


def dumps(body: Mapping[str, Any]) -> bytes:
    """Return a body's bytes."""
    return orjson.dumps(body, default=str)


def message_id(subject: str, id: str) -> str:
    """Return the `Nats-Msg-Id` of a message; JetStream would take one bare id on two subjects for a duplicate."""
    return hashlib.sha256(f"{subject}\n{id}".encode()).hexdigest()[:32]
