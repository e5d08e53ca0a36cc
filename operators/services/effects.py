"""What nodes do to the outside world: noted before it is tried, settled when it is done, asked about when unclear."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from openvibe import host
from openvibe.events import Event as Fact
from openvibe.outcomes import HAPPENED
from operators.models import Effect, Wait


def known(run_id: str, *, step_id: str, key: str) -> Effect | None:
    """Return an effect of this visit, if it was ever tried."""
    return Effect.objects.filter(run_id=run_id, step_id=step_id, key=key).first()


def attempt(run_id: str, row: Effect | None, *, node: str, step_id: str, key: str, now: datetime) -> host.Effect:
    """Note that an effect is about to be tried; part of the caller's transaction, which holds the run's claim."""
    if row is None:
        Effect.objects.create(
            run_id=run_id, node=node, step_id=step_id, key=key, state=Effect.State.ATTEMPTED, attempted_at=now
        )
        return host.Effect("new")
    Effect.objects.filter(pk=row.pk).update(
        state=Effect.State.ATTEMPTED, attempts=row.attempts + 1, attempted_at=now, settled_at=None
    )
    return host.Effect("new", attempt=row.attempts + 1)


def settle(run_id: str, *, step_id: str, key: str, state: str, result: Any, now: datetime) -> None:
    """Note how a try came out; part of the caller's transaction.

    What was confirmed stays so: an earlier try whose time was up may fail late, or be denied by a person, when a later
    one, or itself, has done it.
    """
    rows = Effect.objects.filter(run_id=run_id, step_id=step_id, key=key)
    if state != Effect.State.CONFIRMED:
        rows = rows.exclude(state=Effect.State.CONFIRMED)
    rows.update(state=state, result=result, settled_at=now)


def told(wait: Wait, *, now: datetime) -> None:
    """Settle an effect as a person says: it happened, with this result, or it did not and may be tried again."""
    happened = wait.decision == HAPPENED
    state = Effect.State.CONFIRMED if happened else Effect.State.FAILED
    result = (wait.values or {}).get("result") if happened else None
    settle(wait.run_id, step_id=wait.step_id, key=wait.payload["effect"], state=state, result=result, now=now)


def fact(kind: str, *, node: str, step_id: str, key: str, **data: Any) -> Fact:
    """Return the timeline's word for what happened to an effect."""
    return Fact(f"effect.{kind}", node=node, step_id=step_id, data={"key": key, **data})
