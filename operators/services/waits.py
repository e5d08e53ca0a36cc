"""A run waits; an answer wakes it. Every rule about gates is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jsonschema
from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from openvibe import canonical
from openvibe.events import GATE_OPENED
from openvibe.events import Event as Fact
from openvibe.ids import random_text
from openvibe.outcomes import OpenGate
from operators.errors import AlreadyDecided, Misfit, NotWaiting, QuoteMismatch
from operators.models import Run, Wait
from operators.services import doorbell, timeline

CLOCK = "clock"


@dataclass(frozen=True)
class Answer:
    """What somebody decided, and the quote of what they saw: None where they did not say."""

    decision: str
    notes: str = ""
    values: Mapping[str, Any] | None = None
    version: int | None = None
    payload_sha256: str | None = None


def opening(run: Run, gates: tuple[OpenGate, ...], *, now: datetime) -> tuple[list[Wait], list[Fact]]:
    """Return the waits to write, and the events that tell of them, when a run pauses."""
    waits = [_wait(run, gate, now=now) for gate in gates]
    return waits, [Fact(GATE_OPENED, node=wait.node, step_id=wait.step_id, data=_told(wait)) for wait in waits]


def _wait(run: Run, gate: OpenGate, *, now: datetime) -> Wait:
    request = gate.request
    seen = {
        "operator": run.operator.slug,
        "workflow": run.workflow.slug,
        "workflow_version": run.workflow_version,
        "node": request.node,
        "prompt": request.prompt,
        "payload": request.payload,
        "schema": request.schema,
        "decisions": request.decisions,
    }
    return Wait(
        id=f"wait_{random_text(16)}",
        run=run,
        kind=Wait.Kind.APPROVAL,
        node=request.node,
        step_id=gate.step_id,
        interrupt_id=gate.interrupt_id,
        payload_sha256=canonical.sha256(seen),
        prompt=request.prompt,
        payload=request.payload,
        schema=request.schema,
        decisions=request.decisions,
        edits=request.edits,
        deadline=now + timedelta(seconds=request.timeout_seconds) if request.timeout_seconds is not None else None,
        on_timeout=request.on_timeout or "",
        opened_at=now,
    )


def _told(wait: Wait) -> dict[str, Any]:
    return {
        "wait_id": wait.id,
        "version": wait.version,
        "payload_sha256": wait.payload_sha256,
        "prompt": wait.prompt,
        "payload": wait.payload,
        "decisions": wait.decisions,
        "deadline": wait.deadline.isoformat() if wait.deadline else None,
        "on_timeout": wait.on_timeout,
    }


def answer(wait: Wait, given: Answer, *, actor: AbstractUser) -> Wait:
    """Decide an open gate and wake its run. The same decision again is the same decision.

    Raises:
        QuoteMismatch: the answer quotes something else than what is open.
        Misfit: the answer does not fit the gate's schema; the gate stays open.
        AlreadyDecided: another decision was first.
        NotWaiting: the run has ended or moved on.
    """
    _check_quote(wait, given)
    if not wait.pending:
        return _same_or_refused(wait, given)
    _check_fit(wait, given)
    if not _close(wait, given, actor=actor, decider=actor.get_username(), status=Wait.Status.RESOLVED):
        wait.refresh_from_db()
        return _same_or_refused(wait, given)
    return wait


def expire(wait: Wait) -> bool:
    """Take the gate's default decision, because its deadline has passed; False if somebody was faster."""
    given = Answer(wait.on_timeout, notes=f"Nobody decided before {wait.deadline:%Y-%m-%d %H:%M} UTC.")
    return _close(wait, given, actor=None, decider=CLOCK, status=Wait.Status.EXPIRED)


def cancel_open(run_id: str, *, now: datetime) -> None:
    """Close every wait of a run that ends; part of the caller's transaction."""
    Wait.objects.pending().filter(run_id=run_id).update(status=Wait.Status.CANCELLED, closed_at=now)


def answers(run_id: str, interrupt_ids: list[str]) -> dict[str, Any]:
    """Return the answers to these interrupts, as far as they have been given."""
    if not interrupt_ids:
        return {}
    decided = Wait.objects.filter(
        run_id=run_id, interrupt_id__in=interrupt_ids, status__in=(Wait.Status.RESOLVED, Wait.Status.EXPIRED)
    )
    return {wait.interrupt_id: wait.answer for wait in decided}


def _check_quote(wait: Wait, given: Answer) -> None:
    quotes = {"version": given.version, "payload_sha256": given.payload_sha256}
    wrong = [name for name, quoted in quotes.items() if quoted is not None and quoted != getattr(wait, name)]
    if wrong:
        raise QuoteMismatch(
            f"What you saw is not what is open: {' and '.join(wrong)} of gate {wait.node!r} changed. Look again.",
            changed=wrong,
            **{name: getattr(wait, name) for name in quotes},
        )


def _check_fit(wait: Wait, given: Answer) -> None:
    body = {"decision": given.decision, "notes": given.notes, **({"values": given.values} if given.values else {})}
    errors = sorted(jsonschema.Draft202012Validator(wait.schema).iter_errors(body), key=lambda error: list(error.path))
    if not errors and canonical.jsonable(body) != body:
        raise Misfit("values: a whole number from 2**53 on, a NUL or half a character cannot be kept")
    if errors:
        problems = [{"field": ".".join(map(str, error.path)) or "values", "message": error.message} for error in errors]
        raise Misfit("; ".join(f"{item['field']}: {item['message']}" for item in problems), errors=problems)


@transaction.atomic
def _close(wait: Wait, given: Answer, *, actor: AbstractUser | None, decider: str, status: str) -> bool:
    now = timezone.now()
    # The run's row before its waits', as whoever plays or cancels it takes them: two orders would be a deadlock.
    Run.objects.select_for_update(no_key=True).values("id").get(id=wait.run_id)
    fields = {
        "status": status,
        "closed_at": now,
        "decision": given.decision,
        "notes": given.notes,
        "values": dict(given.values) if given.values else None,
        "decided_by": actor,
        "decider": decider,
    }
    open_still = Wait.objects.pending().filter(id=wait.id, version=wait.version, payload_sha256=wait.payload_sha256)
    if not open_still.update(**fields):
        return False
    for name, value in fields.items():
        setattr(wait, name, value)
    _wake(wait, now=now)
    return True


def _wake(wait: Wait, *, now: datetime) -> None:
    waiting = Run.objects.filter(id=wait.run_id, status=Run.Status.WAITING)
    changed = waiting.change(
        "last_seq",
        "project_id",
        status=Run.Status.QUEUED,
        rung_at=now,
        rings=0,
        updated_at=now,
        last_seq=F("last_seq") + 1,
    )
    if changed is None:
        raise NotWaiting(f"Run {wait.run_id} does not wait any more", run_id=wait.run_id)
    kind = "gate.expired" if wait.status == Wait.Status.EXPIRED else "gate.decided"
    timeline.record(
        project_id=changed[1],
        run_id=wait.run_id,
        last_seq=changed[0],
        facts=[Fact(kind, node=wait.node, step_id=wait.step_id, data=_decided(wait))],
        now=now,
        actor=wait.decider,
    )
    transaction.on_commit(lambda: doorbell.ring(wait.run_id))


def _decided(wait: Wait) -> dict[str, Any]:
    return {
        "wait_id": wait.id,
        "version": wait.version,
        "payload_sha256": wait.payload_sha256,
        "decision": wait.decision,
        "notes": wait.notes,
        "values": wait.values,
        "by": wait.decider,
    }


def _same_or_refused(wait: Wait, given: Answer) -> Wait:
    same = (wait.decision, wait.values or None) == (given.decision, dict(given.values) if given.values else None)
    if wait.status == Wait.Status.RESOLVED and same:
        return wait
    if wait.status == Wait.Status.CANCELLED:
        raise NotWaiting(f"Gate {wait.node!r} is closed: its run was cancelled", run_id=wait.run_id)
    when = f"{wait.closed_at:%Y-%m-%d %H:%M:%S} UTC" if wait.closed_at else "before"
    raise AlreadyDecided(
        f"Gate {wait.node!r} was decided already: {wait.decision!r} by {wait.decider} at {when}",
        decision=wait.decision,
        decided_by=wait.decider,
        decided_at=wait.closed_at,
        wait_id=wait.id,
    )
