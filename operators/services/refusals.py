"""Answers turns that are refused: whoever asked for one hears by a `task` that it has failed, and why.

A turn that is accepted is a run, which tells of itself. One that is refused has no run; its end is told here, once
however often it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.utils import timezone

from openvibe.protocol import envelope, turns
from openvibe.protocol.subjects import Subject
from operators.services import notices
from operators.services.masking import masked


def tell(
    project_id: str, channel: str, agent: str, *, name: str, code: str, reason: str,
    traceparent: str, depth: int, passed_on: Mapping[str, str],
) -> None:  # fmt: skip
    """Tell that a turn has failed before it began; `name` is what its caller calls it. Part of the transaction."""
    subject = str(Subject(project_id, channel, "evt", "agent", agent, "task"))
    told_as = f"refused:{envelope.message_id(project_id, name)}"
    # How a run of ours goes nobody tells but the run, whatever others call their turns.
    turn = told_as if name.startswith(turns.OURS) else name
    fields = {"agent_id": agent, "agent_turn_id": turn, "status": "failed", "error": masked(reason), "error_code": code}
    body = {
        "version": envelope.VERSION,
        "id": told_as,
        "timestamp": timezone.now().isoformat(),
        "type": "agent.task",
        "project": project_id,
        "channel": channel,
        "operator_id": agent,
        "role": "system",
        "kind": "task",
        "correlation_id": name,
        **fields,
        "payload": fields,
    }
    notices.put(subject, "agent.task", body, id=told_as, traceparent=traceparent, depth=depth, passed_on=passed_on)
