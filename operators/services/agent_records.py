"""Events in the words of external workflow runtimes, for those of their programs that follow runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openvibe.protocol import subjects, workflow
from operators.models import Run
from operators.services.external import WORKFLOW
from operators.services.filters import Wire
from operators.services.streams import session_named

NAMES = ("workflow_uid", "workflow_name", "workflow_namespace")


def named(run: Run) -> dict[str, str]:
    """Return what its runtime calls a run; nothing for a run of ours."""
    return {name: run.input.get(name, "") for name in NAMES} if run.trigger == WORKFLOW else {}


def of(event: Wire, names: Mapping[str, str]) -> Wire:
    """Return an event with all that it has, and beside it what such a runtime's messages have."""
    data: Mapping[str, Any] = event["data"]
    attrs = data.get("attrs") or {}
    return {
        **session_named(event),
        **{name: names.get(name) or data.get(name) or "" for name in NAMES},
        "id": f"{event['channel']}:{event['seq']}",
        "channel": workflow.GENERAL if event["channel"] == subjects.PUBLIC else "run",
        "agent_id": event["actor"],
        "step_id": event["step_id"] or data.get("step_id", ""),
        "role": data.get("role", "system"),
        "kind": event["type"].removeprefix("agent."),
        "stage": attrs.get("stage", ""),
        "content": data.get("content", ""),
        "attrs": attrs,
        "created_at": event["timestamp"],
    }
