"""Tries of steps, counted from the timeline: there each one that failed was committed by itself."""

from __future__ import annotations

from openvibe.events import ATTEMPT_FAILED
from openvibe.host import Tries
from openvibe.protocol import subjects
from operators.models import Event

RETRIED = "run.retried"


def failed(run_id: str, step_id: str) -> Tries:
    """Return how many tries of a step have failed since somebody let the run try again."""
    thread = Event.objects.filter(run_id=run_id, channel=subjects.thread(run_id))
    told = thread.filter(kind=ATTEMPT_FAILED, step_id=step_id).order_by("seq").values_list("seq", "data")
    found = list(told)
    if not found:
        return Tries()
    retried = thread.filter(kind=RETRIED).order_by("-seq").values_list("seq", flat=True).first() or 0
    tries = Tries()
    for seq, data in found:
        if seq > retried:
            tries = tries.counted(data)
    return tries
