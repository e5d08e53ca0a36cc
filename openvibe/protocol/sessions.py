"""The dialect `sessions`: a run is a session whose work, results, approvals and events go by their own subjects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from openvibe.protocol.envelope import Malformed, known, unversioned
from openvibe.protocol.subjects import token

VERSION = "1"

#: What a payload must hold, by the message's type without its version suffix.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "result.success": (),
    "result.failure": ("error",),
    "approval.request": ("gate_id",),
    "approval.granted": ("gate_id", "approved_by"),
    "approval.rejected": ("gate_id", "rejected_by"),
    "event.agent.started": ("agent_id",),
    "event.agent.stopped": ("agent_id",),
    "event.error": (),
}


class SessionMessage(BaseModel):
    """One message of a session. Unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: str
    id: str
    timestamp: datetime
    session_id: str
    type: str
    payload: dict[str, Any]


def subject(run_id: str, kind: str) -> str:
    """Return a session's subject for `work`, `results`, `approvals` or `events`."""
    return f"sessions.{token(run_id)}.{kind}"


def message(type: str, payload: Mapping[str, Any], *, id: str, run_id: str, now: datetime) -> dict[str, Any]:
    """Return a message's body."""
    return {
        "version": VERSION,
        "id": id,
        "timestamp": now.isoformat(),
        "session_id": run_id,
        "type": type,
        "payload": dict(payload),
    }


def read(body: Mapping[str, Any]) -> SessionMessage:
    """Return the message that a body holds; its type loses a version suffix such as `.v1`.

    Raises:
        Malformed: a field is missing or of a wrong type, or the envelope's version is not known.
    """
    try:
        found = SessionMessage.model_validate(dict(body))
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        raise Malformed(f"{'.'.join(map(str, item['loc']))}: {item['msg']}") from error
    known(found.version)
    found = found.model_copy(update={"type": unversioned(found.type)})
    missing = [name for name in REQUIRED.get(found.type, ()) if name not in found.payload]
    if missing:
        raise Malformed(f"payload.{missing[0]}: {found.type} needs it")
    return found
