"""The dialect `sessions`: a run is a session whose work, results, approvals and events go by their own subjects.

`TYPES` is the catalogue: every message, where it goes, and what it holds in each version that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from openvibe.protocol import session_payloads as payloads
from openvibe.protocol.envelope import Malformed, accepted, known, known_type, versioned
from openvibe.protocol.session_payloads import Part, Timestamp
from openvibe.protocol.subjects import token

VERSION = "1"
#: Where agents, and OpenVibe, say that they live; passing messages, kept by no stream.
HEALTH = "system.health"
#: Says that nobody waits for some work any more.
CALLED_OFF = "event.work.cancelled"
#: The session of messages that belong to none.
SYSTEM = "system"

M = TypeVar("M", bound=BaseModel)
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


class SessionMessage(BaseModel):
    """One message of a session. Unknown fields are ignored; `type` is without a version suffix once it is read."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    version: str
    id: Annotated[str, Field(min_length=1)]
    timestamp: Timestamp
    session_id: str
    type: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class Type:
    """A type of message: the token of its subject, and its payload in the previous version, if any, and the current.

    `upgrade` makes a payload of the previous version one of the current. The first version has no suffix.
    """

    place: str
    payload: type[Part]
    version: int = 1
    previous: type[Part] | None = None
    upgrade: Upgrade = dict


Catalogue = Mapping[str, Type]

TYPES: Catalogue = {
    "work.coding": Type("work", payloads.Coding),
    "work.testing": Type("work", payloads.Testing),
    "work.review": Type("work", payloads.Review),
    "result.success": Type("results", payloads.Success),
    "result.failure": Type("results", payloads.Failure),
    "approval.request": Type("approvals", payloads.Question),
    "approval.granted": Type("approvals", payloads.Granted),
    "approval.rejected": Type("approvals", payloads.Rejected),
    "event.agent.started": Type("events", payloads.Started),
    "event.agent.stopped": Type("events", payloads.Stopped),
    CALLED_OFF: Type("events", payloads.Cancelled),
    "event.error": Type("events", payloads.Fault),
    HEALTH: Type(HEALTH, payloads.Health),
}


def subject(run_id: str, kind: str) -> str:
    """Return a session's subject for `work`, `results`, `approvals` or `events`."""
    return f"sessions.{token(run_id)}.{kind}"


def message(
    type: str, payload: Mapping[str, Any], *, id: str, run_id: str, now: datetime, catalogue: Catalogue = TYPES
) -> dict[str, Any]:
    """Return a message's body, always of the current version."""
    version = catalogue[type].version if type in catalogue else 1
    return {
        "version": VERSION,
        "id": id,
        "timestamp": now.isoformat(),
        "session_id": run_id,
        "type": type if version == 1 else f"{type}.v{version}",
        "payload": dict(payload),
    }


def read(body: Mapping[str, Any], *, catalogue: Catalogue = TYPES) -> SessionMessage:
    """Return the message that a body holds, in its type's current version. Types that nobody knows are read too.

    Raises:
        Malformed: it does not fit the schema of its type, or is of a version that is not read; the text names the
            field.
    """
    told = _validated(SessionMessage, body)
    known(told.version)
    name, version = versioned(told.type)
    wanted = catalogue.get(name, Type("", Part))
    known_type(told.type, current=wanted.version)
    payload = told.payload
    if version == wanted.version:
        _validated(wanted.payload, payload, path="payload.")
    elif wanted.previous is not None:
        _validated(wanted.previous, payload, path="payload.")
        payload = wanted.upgrade(payload)
    return told.model_copy(update={"type": name, "payload": payload})


def check(type: str, payload: Mapping[str, Any]) -> None:
    """Raise `Malformed` if a payload does not fit the current schema of its type; a type of one's own takes any."""
    if type in TYPES:
        _validated(TYPES[type].payload, payload)


def schemas(catalogue: Catalogue = TYPES) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what makes the JSON Schema of each message, by name; a previous version has its suffix in the name."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for name, wanted in catalogue.items():
        found[name] = _maker(name, wanted.version, wanted.payload)
        if wanted.previous is not None:
            found[f"{name}.v{wanted.version - 1}"] = _maker(name, wanted.version - 1, wanted.previous)
    return found


def _maker(name: str, version: int, payload: type[Part]) -> Callable[[], dict[str, Any]]:
    # The first version goes with and without its suffix.
    spelled = (name, f"{name}.v1") if version == 1 else (f"{name}.v{version}",)

    def make() -> dict[str, Any]:
        fields: dict[str, Any] = {
            "version": (Literal[tuple(map(str, accepted(int(VERSION))))], ...),
            "type": (Literal[spelled], ...),
            "payload": (payload, ...),
        }
        model = create_model("Message", __base__=SessionMessage, **fields)
        return {
            **model.model_json_schema(),
            "title": f"The message {name} of a session",
            "description": payload.__doc__,
        }

    return make


def _validated(model: type[M], value: Mapping[str, Any], *, path: str = "") -> M:
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        raise Malformed(f"{path}{_place(value, item)}: {item['msg']}") from error


def _place(value: Any, fault: Mapping[str, Any]) -> str:
    """Return the path of a fault in a value; where a field may be of several kinds, its `loc` names the kind too."""
    found: list[str] = []
    for part in fault["loc"]:
        if part in value if isinstance(value, Mapping) else isinstance(value, list) and isinstance(part, int):
            found.append(str(part))
            value = value[part]
    return ".".join([*found, str(fault["loc"][-1])] if fault["type"] == "missing" else found)
