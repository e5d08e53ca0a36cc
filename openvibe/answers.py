"""What a run waits for, and what becomes of an answer. Nothing here stores anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from openvibe import canonical, groups, interrupts
from openvibe.ctx import watched
from openvibe.errors import InputError, RunError, WrongUpdate
from openvibe.ids import random_text
from openvibe.outcomes import OpenWait
from openvibe.registry import WorkflowDefinition
from openvibe.runs import Run, Wait

_ANSWERED = ("resolved", "expired")


def opened(run: Run, asked: OpenWait, *, version: str, now: datetime) -> Wait:
    """Return the wait that a pause opens."""
    request = asked.request
    seen = {
        "operator": run.operator_id,
        "workflow": run.workflow_id,
        "workflow_version": version,
        "node": request.node,
        "prompt": request.prompt,
        "payload": request.payload,
        "schema": request.schema,
        "decisions": request.decisions,
    }
    return Wait(
        id=f"wait_{random_text(16)}",
        kind=request.kind,
        node=request.node,
        step_id=asked.step_id,
        interrupt_id=asked.interrupt_id,
        seat=asked.seat,
        rule=request.rule,
        needed=request.needed,
        approver=request.approver,
        name=request.name,
        payload_sha256=canonical.sha256(seen),
        prompt=request.prompt,
        payload=dict(request.payload),
        decisions=list(request.decisions),
        answer_schema=dict(request.schema),
        edits=list(request.edits),
        timeout_seconds=request.timeout_seconds,
        deadline=_after(request.timeout_seconds, now),
        on_timeout=request.on_timeout or "",
        escalate_to=request.escalate_to,
        form=request.form,
        opened_at=now,
    )


def for_graph(run: Run, interrupt_ids: Sequence[str]) -> dict[str, Any]:
    """Return what goes into the graph for those of its interrupts that have been answered."""
    latest = {wait.interrupt_id: wait for wait in run.waits}
    found = {name: latest[name] for name in interrupt_ids if name in latest}
    given = {name: _value(wait) for name, wait in found.items() if not wait.rule and wait.status in _ANSWERED}
    together = {name: run.group(wait) for name, wait in found.items() if wait.rule}
    return given | {name: groups.answer(seats) for name, seats in together.items() if groups.over(seats)}


def chosen(run: Run, wait_id: str | None, by: str = "") -> Wait:
    """Return the gate that a decision is about; of several that stand together, the one that `by` is asked at.

    Raises:
        RunError: the run stands at no such gate, or at several and none is named.
    """
    gates = [wait for wait in run.waits if wait.kind == "approval"]
    if wait_id is not None:
        found = next((wait for wait in gates if wait.id == wait_id), None)
        if found is None:
            raise RunError(f"Run {run.id} has no gate {wait_id!r}; it has: {[wait.id for wait in gates]}")
        return found
    pending = [wait for wait in gates if wait.pending]
    pending = [wait for wait in pending if by and by in (wait.approver, wait.assigned_to)][:1] or pending
    if len(pending) != 1:
        what = f"waits at {len(pending)} gates; name one by wait_id=" if pending else f"is {run.status} at no gate"
        raise RunError(f"Run {run.id} {what}: {[(wait.id, wait.node) for wait in pending]}")
    return pending[0]


def check(wait: Wait, definition: WorkflowDefinition | None, *, decision: str, values: Mapping[str, Any]) -> None:
    """Refuse a decision that the gate does not offer; it stays open then.

    Raises:
        InputError: the decision, or a value, does not fit.
    """
    problems = []
    if decision not in wait.decisions:
        problems.append(_problem("decision", f"is {decision!r}; this gate takes: {', '.join(wait.decisions)}"))
    for name in sorted(set(values) - set(wait.edits)):
        problems.append(
            _problem(name, f"cannot be edited at this gate; what can: {', '.join(wait.edits) or 'nothing'}")
        )
    required = wait.answer_schema.get("properties", {}).get("values", {}).get("required", [])
    problems += [_problem(name, "is required") for name in required if name not in values]
    if not wait.form and definition is not None:
        problems += _misfits(wait, definition, values)
    if problems:
        raise InputError("; ".join(f"{item['field']}: {item['message']}" for item in problems), problems)


def settled(kind: str, payload: Mapping[str, Any], *, result: Any, error: str) -> dict[str, Any]:
    """Return what goes into a graph where a tool, an agent, another operator or the shared context has answered."""
    about = {"watched": watched(payload["bucket"], payload["key"])} if kind == "change" else {}
    return {"result": result, "error": error, **about}


def silence(kind: str, deadline: datetime) -> str:
    """Return what a wait that nobody has answered says of it."""
    what = "It did not change" if kind == "change" else "Nobody answered"
    return f"{what} before {deadline:%Y-%m-%d %H:%M:%S} UTC"


def check_counts_once(run: Run, wait: Wait, by: str) -> None:
    """Refuse a second answer of the same person in a group, unless the question was passed on to them.

    Raises:
        RunError: they have answered already.
    """
    others = [other for other in run.group(wait) if other.by and other is not wait]
    if by and not wait.assigned_to and by in (other.by for other in others):
        raise RunError(f"{by!r} has answered at gate {wait.node!r} already; everybody counts once")


def expired(wait: Wait, *, now: datetime) -> str:
    """Take what the deadline means: ask the next one, or decide, or give up; return the event's kind."""
    if wait.kind == "approval" and wait.escalate_to and not wait.assigned_to:
        wait.assigned_to, wait.deadline = wait.escalate_to, _after(wait.timeout_seconds, now)
        return "gate.escalated"
    assert wait.deadline is not None
    wait.status, wait.closed_at = ("resolved" if wait.kind == "timer" else "expired"), now
    if wait.kind == "approval":
        wait.decision = wait.on_timeout
        wait.notes = f"Nobody decided before {wait.deadline:%Y-%m-%d %H:%M} UTC."
        return "gate.expired"
    if wait.kind == "timer":
        return "timer.fired"
    wait.error = silence(wait.kind, wait.deadline)
    return "wait.expired"


def _value(wait: Wait) -> Any:
    if wait.kind != "approval":
        return settled(wait.kind, wait.payload, result=wait.result, error=wait.error)
    answer = {"decision": wait.decision, "notes": wait.notes, "values": wait.values or {}}
    return interrupts.resume(wait.form, wait.payload, answer) if wait.form else answer


def _misfits(wait: Wait, definition: WorkflowDefinition, values: Mapping[str, Any]) -> list[dict[str, str]]:
    found = []
    for name, value in values.items():
        try:
            definition.fields.check_update(wait.node, {name: value} if name in wait.edits else {})
        except WrongUpdate as error:
            found.append(_problem(name, str(error)))
    return found


def _problem(field: str, message: str) -> dict[str, str]:
    return {"field": field, "type": "", "message": message}


def _after(seconds: float | None, now: datetime) -> datetime | None:
    return None if seconds is None else now + timedelta(seconds=seconds)
