"""New runs that begin in the middle of another one: with its state at a step, edited or as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AbstractUser
from django.db.models import Max, Min

from openvibe import canonical, late
from openvibe.errors import InputError
from openvibe.events import STEP_FINISHED, STEP_STARTED
from openvibe.events import Event as Fact
from openvibe.protocol import subjects
from operators.errors import Misfit, NotForkable
from operators.models import Event, Run, Wait
from operators.models.checkpoint import DatabaseRows, Place
from operators.models.statements import insert
from operators.services import cards, compiled, intake, overrides, pauses, timeline
from operators.services.masking import masked

if TYPE_CHECKING:
    from openvibe.compiler import CompiledWorkflow

#: How the timeline tells that a gate was decided, by somebody or by its deadline.
DECIDED = ("gate.decided", "gate.expired")


@dataclass(frozen=True)
class Step:
    """A step from which a run can be forked. `state` is that after it or, if it has not finished, that before it."""

    step_id: str
    node: str
    seq: int
    finished: bool
    timestamp: datetime
    state: dict[str, Any]


@dataclass(frozen=True)
class Passed:
    """The gates upon whose decisions a fork goes on, and those of their `approvers` who have answered."""

    gates: list[str]
    approvers: list[str]


def steps(run: Run, *, after: int = 0, limit: int = 50, step_id: str = "") -> list[Step]:
    """Return the steps that began after event number `after`, in order; large values are pointers to cards.

    With `step_id` only that one.
    """
    thread = Event.objects.after(run.project_id, subjects.thread(run.id), 0)
    found = thread.filter(kind=STEP_STARTED, seq__gt=after)
    begun = list((found.filter(step_id=step_id) if step_id else found)[:limit])
    ids = [event.step_id for event in begun]
    finished = set(thread.filter(kind=STEP_FINISHED, step_id__in=ids).values_list("step_id", flat=True))
    places = DatabaseRows().places(run.id, ids)
    workflow = compiled.of(run)
    return [
        _step(run, workflow, event, places[event.step_id], finished=event.step_id in finished)
        for event in begun
        if event.step_id in places
    ]


def _step(run: Run, workflow: CompiledWorkflow | None, event: Event, place: Place, *, finished: bool) -> Step:
    fields = None if workflow is None or workflow.foreign else workflow.definition.fields.types
    over = finished and bool(place.after)
    values = late.history.state(DatabaseRows(), run.id, place.after if over else place.before, fields=fields)
    return Step(
        event.step_id, event.node, event.seq, over, event.created_at, cards.pointed(run.project_id, masked(values))
    )


def fork(
    run: Run,
    *,
    step_id: str,
    values: Mapping[str, Any] | None = None,
    before: bool = False,
    actor: AbstractUser,
    key: str = "",
) -> Run:
    """Start a run with the state that another had after a step, or `before` it, and go on at the following node.

    `values` are edited fields of the state. The other run stays as it is, whatever its status: its effects are not the
    new run's, and a gate that it stands at is asked anew. What is left of the rest after the step comes first. The same
    `key` with the same step and values starts one run.

    Raises:
        KeyReused: the key came before, with another body.
        OperatorDisabled: an administrator has switched the operator off.
        NotForkable: the run keeps no such state, its workflow is gone, or values change past those who were asked.
        Misfit: there is no such step, or a value does not fit its field.
    """
    asked = {"fork": run.id, "step_id": step_id, "before": before, "values": dict(values or {})}
    if found := intake.known(run.project_id, key, digest := canonical.sha256(asked)):
        return found
    intake.require_enabled(run.operator)
    edited = _edited(_workflow(run), values or {})
    checkpoint_id = _checkpoint(run, step_id, before=before)
    passed = _passed(run, step_id, before=before)
    told = {"before": before, **(_overridden(run, passed, actor) if edited else {})}
    new, rests, resting = _new(run, step_id, before=before, actor=actor)
    new.key, new.key_sha256 = key or None, digest if key else ""

    def beside() -> None:
        insert(Wait, rests)
        late.history.branch(_held(run), source=run.id, target=new.id, checkpoint_id=checkpoint_id, values=edited)
        noted = {"to": new.id, "fields": sorted(edited), **told}
        timeline.note(run.id, _forked(run, step_id, noted), actor=actor.get_username())

    data = {"from": run.id, "values": asked["values"], **asdict(passed), **told}
    return intake.stored(new, by=actor.get_username(), facts=[_forked(run, step_id, data), *resting], beside=beside)


def _new(run: Run, step_id: str, *, before: bool, actor: AbstractUser) -> tuple[Run, list[Wait], list[Fact]]:
    """Return a run that nobody has stored yet, what it waits for at its beginning, and what tells of that."""
    new = intake.queued(run.workflow, run.input, actor=actor, trigger="fork", traceparent="")
    new.forked_from, new.forked_at, new.depth, new.priority = run, step_id, run.depth, run.priority
    rests, told = ([], []) if before else pauses.left(run, step_id, to=new)
    if rests:
        new.status = Run.Status.WAITING
    return new, rests, told


def _workflow(run: Run) -> CompiledWorkflow:
    workflow = compiled.of(run)
    where = f"{run.operator.slug}.{run.workflow.slug}"
    if workflow is None or run.workflow.retired:
        raise NotForkable(f"The workflow {where} is no longer defined", run_id=run.id)
    if not workflow.definition.spec.checkpointed:
        raise NotForkable(f"The workflow {where} keeps no states between its steps: checkpointed=False", run_id=run.id)
    return workflow


def _checkpoint(run: Run, step_id: str, *, before: bool) -> str:
    _require_kept(run)
    place = DatabaseRows().places(run.id, [step_id]).get(step_id)
    if place is None:
        message = f"names no step of run {run.id} that has come to an end or to a pause"
        raise Misfit(f"step_id: {message}", errors=[{"field": "step_id", "message": message}])
    finished = Event.objects.filter(run=run, step_id=step_id, kind=STEP_FINISHED)
    # What an override has left behind has a state after it, too.
    if not before and not (place.after and finished.exists()):
        raise NotForkable(f"Step {step_id} of run {run.id} has not finished; fork before it", run_id=run.id)
    return place.before if before else place.after


def _require_kept(run: Run) -> None:
    if run.pruned_at or run.archived_at:
        raise NotForkable(f"The states of run {run.id} are no longer kept", run_id=run.id)


def _held(run: Run) -> DatabaseRows:
    """Return where a run's states are, which nobody sweeps before the caller's transaction has ended."""
    _require_kept(Run.objects.select_for_update(no_key=True).only("id", "pruned_at", "archived_at").get(id=run.id))
    return DatabaseRows()


def _edited(workflow: CompiledWorkflow, values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return late.history.edits(workflow, values)
    except InputError as error:
        problems = [{**item, "field": f"values.{item['field']}"} for item in error.problems]
        raise Misfit(str(error), errors=problems) from error


def _forked(run: Run, step_id: str, data: dict[str, Any]) -> Fact:
    node = Event.objects.filter(run=run, step_id=step_id).exclude(node="").values_list("node", flat=True).first()
    return Fact("run.forked", node=node or "", step_id=step_id, data=data)


def _overridden(run: Run, passed: Passed, actor: AbstractUser) -> dict[str, bool]:
    """Return what the timelines tell of a fork that passes over people who have been asked, if it does."""
    if not passed.approvers:
        return {}
    if not overrides.entitled(actor, run.project_id):
        raise NotForkable(
            f"{', '.join(passed.approvers)} have been asked before this step, and have not seen other values; fork "
            f"before their gate, or let somebody do it who may override in project {run.project_id!r}",
            run_id=run.id,
            approvers=passed.approvers,
        )
    return {"override": True}


def _passed(run: Run, step_id: str, *, before: bool) -> Passed:
    """Return the gates that the source had passed by then: the new run goes on upon these decisions.

    A fork has passed those of its own source, too.
    """
    thread = Event.objects.after(run.project_id, subjects.thread(run.id), 0)
    numbers = thread.filter(step_id=step_id).aggregate(first=Min("seq"), last=Max("seq"))
    until = (numbers["first"] or 1) - 1 if before else numbers["last"] or 0
    # Whoever was asked anew has passed nothing by the first answer.
    finished = thread.filter(kind=STEP_FINISHED, seq__lte=until).values("step_id")
    decided = list(thread.filter(kind__in=DECIDED, step_id__in=finished, seq__lte=until))
    begun = thread.filter(kind="run.forked", data__has_key="from").first()
    source = Passed(begun.data["gates"], begun.data["approvers"]) if begun else Passed([], [])
    asked = [event.data["approver"] for event in decided if "approver" in event.data]
    return Passed(
        gates=list(dict.fromkeys([*source.gates, *(event.node for event in decided)])),
        approvers=list(dict.fromkeys([*source.approvers, *asked])),
    )
