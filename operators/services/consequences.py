"""What the outcome of a play means for its run: events, waits to open, and changes of its row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from openvibe import canonical, outcomes
from openvibe.events import RUN_COMPLETED
from openvibe.events import Event as Fact
from operators.models import Run, Wait
from operators.services import pauses
from operators.services.masking import masked

_TOLD_OF_FAILURES = ("kind", "node", "step_id", "attempt", "traceback")


@dataclass(frozen=True)
class Requeued:
    """The run pauses at these places, and an answer to an older one is there already: it goes on at once."""

    waits: tuple[outcomes.OpenWait, ...]


def of(
    run: Run, outcome: outcomes.Outcome | Requeued | None, *, now: datetime, overridden: bool
) -> tuple[list[Fact], list[Wait], dict[str, Any]]:
    """Return the events, the new waits and the changes of the run that an outcome means."""
    ended = {"ended_at": now, "lease_until": None}
    match outcome:
        case outcomes.Completed(output):
            fact = Fact(RUN_COMPLETED, data={"output": output})
            return [fact], [], {"status": Run.Status.COMPLETED, "output": output, **ended}
        case outcomes.Failed() as failed:
            told = {"message": failed.error, **{name: getattr(failed, name) for name in _TOLD_OF_FAILURES}}
            error = masked(canonical.jsonable(told))
            fact = Fact("run.failed", node=failed.node, step_id=failed.step_id, data=error)
            waits = pauses.put_off(run, failed.rest, now=now) if failed.rest else []
            return [fact], waits, {"status": Run.Status.FAILED, "error": error, **ended}
        case outcomes.Paused(places):
            opened, facts = pauses.opening(run, places, now=now, overridden=overridden)
            return facts, opened, {"status": Run.Status.WAITING, "lease_until": None}
        case Requeued(places):
            opened, facts = pauses.opening(run, places, now=now)
            queued = {"status": Run.Status.QUEUED, "lease_until": None, "rung_at": now, "rings": 0}
            return facts, opened, queued
        case _:
            return [], [], {}


def undefined(run: Run) -> outcomes.Failed:
    """Return the outcome of a run whose workflow no worker knows."""
    where = f"{run.operator.slug}.{run.workflow.slug}"
    return outcomes.Failed(
        error=f"No worker knows the workflow {where}; is its module in OPENVIBE_OPERATORS?", kind="SetupError"
    )
