"""Turns as the wire knows them: a run, from its start or a retry to its end; and what each message about one holds."""

from __future__ import annotations

from collections.abc import Mapping


def turn_id(run_id: str, retries: int) -> str:
    """Return the `agent_turn_id` of a run that has been let try again so often."""
    return f"{run_id}-{retries}"


#: What each message about a turn must hold, by its family.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "evt.agent.step": ("agent_turn_id", "step_id", "phase"),
    "evt.agent.task": ("agent_turn_id", "status"),
    "evt.agent.state": ("agent_id", "agent_turn_id", "status", "turn_epoch", "updated_at"),
    "str.agent.chunk": ("agent_turn_id", "step_id", "chunk_type", "content"),
}
