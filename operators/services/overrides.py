"""Overrides: the one way to change a run's state while it stands at an open gate, for those who were granted the right.

The gate stays, and what was said about it counts no more: the run goes back to the gate's beginning with the new state,
and everybody is asked anew, under the gate's own id and its next version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from openvibe import canonical, late
from openvibe.errors import InputError
from openvibe.events import Event as Fact
from openvibe.protocol import subjects
from operators.errors import Misfit, NotEntitled, NotOverridable, NotWaiting, QuoteMismatch
from operators.models import Event, Project, Run, Wait
from operators.models.checkpoint import DatabaseRows
from operators.models.stroke import Update
from operators.models.wait import OVERRIDDEN
from operators.services import compiled, doorbell, timeline

if TYPE_CHECKING:
    from openvibe.compiler import CompiledWorkflow

OVERRIDDEN_GATE = "gate.overridden"
#: What a wait is found by that is asked anew.
_PLACE = ("kind", "form", "node", "seat")


def entitled(user: AbstractUser, project_id: str) -> bool:
    """Tell whether a user may override in a project."""
    return Project.objects.overridable_by(user).filter(id=project_id).exists()


def override(wait: Wait, *, values: Mapping[str, Any], reason: str, version: int, actor: AbstractUser) -> None:
    """Change fields of the state of a run that stands at an open gate, and let the gate be asked anew.

    `version` is the gate's, as the actor has seen it, so that a repeated request changes nothing twice. Answers that
    others of the gate's group have given count no more, and the gate's time begins anew.

    Raises:
        NotEntitled: the actor was not granted the right.
        NotOverridable: what is open is no gate of the workflow's own, or the workflow is gone.
        Misfit: a value does not fit its field, or there is none.
        QuoteMismatch: the gate has another version by now.
        NotWaiting: the gate is closed.
    """
    if not entitled(actor, wait.run.project_id):
        raise NotEntitled(
            f"Changing what people are being asked about takes the right to override in project "
            f"{wait.run.project_id!r}, which {actor.get_username()!r} was not granted"
        )
    workflow = _workflow(wait)
    edited = _edited(workflow, values)
    fact = Fact(
        OVERRIDDEN_GATE,
        node=wait.node,
        step_id=wait.step_id,
        data={
            "wait_id": wait.id,
            "version": wait.version,
            "fields": sorted(edited),
            "values": dict(values),
            "reason": canonical.jsonable(reason),
        },
    )
    with transaction.atomic():
        _reset(wait, version, now=(now := timezone.now()))
        late.history.amend(DatabaseRows(), wait.run_id, edited)
        _requeue(wait.run, fact, now=now, actor=actor.get_username())


def latest(wait: Wait) -> Event | None:
    """Return the event that tells why a gate was asked anew; None if it was not, or is no longer kept."""
    thread = Event.objects.after(wait.run.project_id, subjects.thread(wait.run_id), 0)
    return thread.filter(kind=OVERRIDDEN_GATE, data__version=wait.version - 1, node=wait.node).last()


def identify(run: Run, opened: Sequence[Wait]) -> None:
    """Let gates that are asked anew be what they were: each keeps its id, and its version rises."""
    before = {_place(wait): wait for wait in run.waits.filter(interrupt_id__startswith=OVERRIDDEN)}
    for wait in opened:
        if earlier := before.get(_place(wait)):
            wait.id, wait.version = earlier.id, earlier.version + 1


def again(wait: Wait) -> Update:
    """Return how a gate is written that is asked anew."""
    fields = {field.attname: getattr(wait, field.attname) for field in Wait._meta.concrete_fields if field.name != "id"}
    return Update(Wait, {"id": wait.id, "version": wait.version - 1, "status": Wait.Status.CANCELLED}, fields)


def _place(wait: Wait) -> tuple[Any, ...]:
    return tuple(getattr(wait, name) for name in _PLACE)


def _workflow(wait: Wait) -> CompiledWorkflow:
    run = wait.run
    workflow = compiled.of(run)
    remedy = "cancel the run, and fork it before this step"
    if workflow is None or run.workflow.retired:
        where = f"{run.operator.slug}.{run.workflow.slug}"
        raise NotOverridable(f"The workflow {where} is no longer defined; {remedy}", wait_id=wait.id)
    gates = {node.id for node in workflow.definition.spec.nodes if node.kind == "gate"}
    # In front of any other question something has been done already, which would be done again.
    if wait.kind != Wait.Kind.APPROVAL or wait.form or wait.node not in gates:
        raise NotOverridable(f"{wait.node!r} is no gate that the workflow declares; {remedy}", wait_id=wait.id)
    return workflow


def _edited(workflow: CompiledWorkflow, values: Mapping[str, Any]) -> dict[str, Any]:
    if not values:
        message = "names no field to change"
        raise Misfit(f"values: {message}", errors=[{"field": "values", "message": message}])
    try:
        return late.history.edits(workflow, values, by="override")
    except InputError as error:
        problems = [{**item, "field": f"values.{item['field']}"} for item in error.problems]
        raise Misfit(str(error), errors=problems) from error


def _reset(wait: Wait, version: int, *, now: datetime) -> None:
    """Take back what is asked, from all of whom it is asked; nobody decides before it is asked anew."""
    # The run's row before its waits', as whoever plays, answers or cancels takes them.
    run = Run.objects.select_for_update(no_key=True).only("status").get(id=wait.run_id)
    wait.refresh_from_db()
    if run.status != Run.Status.WAITING or not wait.pending:
        raise NotWaiting(f"Gate {wait.node!r} is not open any more; the run is {run.status}", run_status=run.status)
    if wait.version != version:
        raise QuoteMismatch(f"Gate {wait.node!r} is at version {wait.version} by now. Look again.",
                            changed=["version"], version=wait.version, payload_sha256=wait.payload_sha256)  # fmt: skip
    wait.group.update(
        status=Wait.Status.CANCELLED, closed_at=now, interrupt_id=f"{OVERRIDDEN}{wait.step_id}/{wait.version}"
    )  # fmt: skip


def _requeue(run: Run, fact: Fact, *, now: datetime, actor: str) -> None:
    last_seq = Run.objects.filter(id=run.id).change(
        "last_seq",
        status=Run.Status.QUEUED, rung_at=now, rings=0, updated_at=now, last_seq=F("last_seq") + 1,
    )  # fmt: skip
    assert last_seq is not None
    timeline.record(project_id=run.project_id, run_id=run.id, last_seq=last_seq[0], facts=[fact], now=now, actor=actor)
    transaction.on_commit(partial(doorbell.ring, run.id, run.operator))
