"""Tells those who do something for a run that nobody waits for it any more: tools, agents, runs of other operators.

Each is told once, or, if whoever told died on the way, the same thing again.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from openvibe.events import Event as Fact
from openvibe.protocol import sessions
from operators.models import Run, Wait
from operators.services import endings, outgoing, remote_tools, timeline


def recall(wait_id: str) -> bool:
    """Tell whoever was to answer a wait that it is closed; False if the bus did not take it."""
    wait = Wait.objects.unrecalled().select_related("run__operator").filter(id=wait_id).first()
    if wait is None:
        return True
    match wait.kind:
        case Wait.Kind.TOOL:
            told = remote_tools.recall(wait)
        case Wait.Kind.WORK:
            told = _withdraw(wait)
        case _:
            told = _hush(wait)
    if told:
        Wait.objects.filter(id=wait_id).update(recalled_at=timezone.now())
    return told


def recall_all(run_id: str) -> None:
    """Do the same for all that a run waits for no longer; what the bus does not take the clock tries again."""
    for wait_id in Wait.objects.unrecalled().filter(run_id=run_id).values_list("id", flat=True):
        recall(wait_id)


def _withdraw(wait: Wait) -> bool:
    task = wait.payload["task"]
    chunk = task.get("chunk_id") if isinstance(task, dict) else None
    told: dict[str, Any] = {"work_id": wait.id, "role": wait.payload["role"], "reason": _reason(wait)}
    told |= {"chunk_id": chunk} if isinstance(chunk, str) else {}
    now = wait.closed_at or timezone.now()
    body = sessions.message(sessions.CALLED_OFF, told, id=f"cancelled_{wait.id}", run_id=wait.run_id, now=now)
    return outgoing.of_run(wait.run, sessions.subject(wait.run_id, "events"), body, sessions.CALLED_OFF)


@transaction.atomic
def _hush(wait: Wait) -> bool:
    """Cancel the run of ours that answers a request; another server's goes on, and its answer changes nothing."""
    # The run that asks before the one that answers.
    Run.objects.select_for_update(no_key=True).values("id").get(id=wait.run_id)
    answering = Run.objects.active().filter(project_id=wait.run.project_id, key=f"{endings.REPLY_KEY}{wait.id}")
    run_id, actor = answering.values_list("id", flat=True).first(), wait.run.operator.slug
    if run_id and endings.cancel(answering, _reason(wait), now=timezone.now(), actor=actor):
        told = {"wait_id": wait.id, "run_id": run_id}
        timeline.note(wait.run_id, Fact("reply.cancelled", node=wait.node, step_id=wait.step_id, data=told))
    return True


def _reason(wait: Wait) -> str:
    return f"Run {wait.run_id} waits for it no longer: the wait is {wait.status}, the run {wait.run.status}"
