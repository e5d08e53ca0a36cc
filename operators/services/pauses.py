"""What is written when a run pauses: its waits, with what a decision will quote, and the events that tell of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from openvibe import canonical
from openvibe.events import GATE_OPENED
from openvibe.events import Event as Fact
from openvibe.ids import random_text
from openvibe.outcomes import REST, OpenWait
from operators.models import Run, Wait
from operators.services import overrides

#: What the timeline calls the opening of a wait; other kinds are `requested`.
OPENED: dict[str, str] = {Wait.Kind.APPROVAL: GATE_OPENED, Wait.Kind.TIMER: "timer.set"}


def opening(
    run: Run, opened: tuple[OpenWait, ...], *, now: datetime, overridden: bool = False
) -> tuple[list[Wait], list[Fact]]:
    """Return the waits to write, and the events that tell of them, when a run pauses.

    Where its state was `overridden`, gates that stood open then are asked anew: see `overrides.identify`.
    """
    waits = [_wait(run, item, now=now) for item in opened]
    if overridden:
        overrides.identify(run, waits)
    return waits, [_told(wait) for wait in waits]


def put_off(run: Run, rest: OpenWait, *, now: datetime) -> list[Wait]:
    """Return the wait to write where a run fails that was about to rest: closed until it is let try again."""
    wait = _wait(run, rest, now=now)
    wait.status, wait.closed_at = Wait.Status.CANCELLED, now
    return [wait]


def taken_up(run_id: str) -> list[Fact]:
    """Open the rest that a failed run was about to take, and return what tells of it; its end stays where it was.

    Part of the transaction that lets the run go on.
    """
    rows = Wait.objects.filter(run_id=run_id, status=Wait.Status.CANCELLED, interrupt_id__startswith=REST)
    rests = list(rows)
    rows.update(status=Wait.Status.PENDING, closed_at=None)
    return [_told(wait) for wait in rests]


def left(run: Run, step_id: str, *, to: Run) -> tuple[list[Wait], list[Fact]]:
    """Return what is left of the rest after a step, for a run that is forked there, and what tells of it.

    It ends when the other run's does: what follows comes no earlier because somebody has edited the state.
    """
    waits = list(Wait.objects.filter(run=run, interrupt_id=f"{REST}{step_id}", deadline__gt=to.created_at))
    for wait in waits:
        wait.pk, wait.run, wait.opened_at = _new_id(), to, to.created_at
        wait.status, wait.closed_at = Wait.Status.PENDING, None
    return waits, [_told(wait) for wait in waits]


def _new_id() -> str:
    return f"wait_{random_text(16)}"


def _wait(run: Run, item: OpenWait, *, now: datetime) -> Wait:
    request = item.request
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
    seconds = request.timeout_seconds
    return Wait(
        id=_new_id(),
        run=run,
        kind=request.kind,
        node=request.node,
        step_id=item.step_id,
        interrupt_id=item.interrupt_id,
        seat=item.seat,
        rule=request.rule,
        needed=request.needed,
        approver=request.approver,
        name=request.name,
        form=request.form,
        payload_sha256=canonical.sha256(seen),
        prompt=request.prompt,
        payload=request.payload,
        schema=request.schema,
        decisions=request.decisions,
        edits=request.edits,
        deadline=now + timedelta(seconds=seconds) if seconds is not None else None,
        timeout_seconds=seconds,
        on_timeout=request.on_timeout or "",
        escalate_to=request.escalate_to,
        opened_at=now,
    )


def _told(wait: Wait) -> Fact:
    data: dict[str, Any] = {
        "wait_id": wait.id,
        "prompt": wait.prompt,
        "payload": wait.payload,
        "deadline": wait.deadline.isoformat() if wait.deadline else None,
    }
    if wait.kind == Wait.Kind.APPROVAL:
        data |= {
            "version": wait.version,
            "payload_sha256": wait.payload_sha256,
            "decisions": wait.decisions,
            "on_timeout": wait.on_timeout,
        }
    if wait.rule:
        data |= {"rule": wait.rule, "needed": wait.needed, **({"approver": wait.approver} if wait.approver else {})}
    kind = OPENED.get(wait.kind, f"{wait.kind}.requested")
    return Fact(kind, node=wait.node, step_id=wait.step_id, data=data)
