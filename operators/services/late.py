"""Answers that come after a run's end: they change nothing, and the run's thread tells of them."""

from __future__ import annotations

from typing import Any

from openvibe import canonical
from openvibe.events import Event as Fact
from operators.models import Run, Wait
from operators.services import timeline


def tell(wait: Wait, *, by: str, reason: str, **said: Any) -> None:
    """Tell of an answer that was refused, and of what it `said`; nothing where the run has not ended."""
    if Run.objects.ended().filter(id=wait.run_id).exists():
        data = {"wait_id": wait.id, **canonical.jsonable(said), "by": by, "reason": reason}
        timeline.note(wait.run_id, Fact("answer.refused", node=wait.node, step_id=wait.step_id, data=data), actor=by)
