"""Actions of user interfaces: `cmd.sys.ui.action`, and `evt.sys.ui.action_ack`, which says what became of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from openvibe.protocol.envelope import ProtocolViolation
from openvibe.protocol.subjects import VERSION, Subject

PATTERN = f"cg.{VERSION}.*.*.cmd.sys.ui.action"
#: The header that names the user whose rights count; without it the channel `u_<user>` does.
USER = "CG-User-ID"
#: What a user interface may ask for.
TOOLS = ("start", "cancel", "retry", "approve", "answer")
REQUIRED = ("action_id", "agent_id", "tool_name", "args")

Status = Literal["accepted", "busy", "rejected", "done"]


def ack_subject(project: str, channel: str) -> str:
    """Return where an action that came on this channel is acknowledged."""
    return str(Subject(project, channel, "evt", "sys", "ui", "action_ack"))


def read(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an action's fields, whether they lie in the body itself or in its payload.

    Raises:
        ProtocolViolation: it has no `action_id`, without which nobody could be told what became of it.
    """
    payload = body.get("payload")
    found = {**body, **payload} if isinstance(payload, dict) else dict(body)
    if not isinstance(found.get("action_id"), str) or not found["action_id"]:
        raise ProtocolViolation("action_id: cmd.sys.ui.action needs it, a text")
    return found
