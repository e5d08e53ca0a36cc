"""Every door leads here: a request becomes a queued run, a run is cancelled or tried again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any

import jsonschema
from django.contrib.auth.models import AbstractUser
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone
from django.utils.dateparse import parse_duration

from openvibe import canonical, ids
from openvibe.errors import BudgetRefused, GateRejected, InputError
from openvibe.events import Event as Fact
from openvibe.fields import check_input
from openvibe.protocol import headers, nesting
from operators import definitions
from operators.errors import (
    AgentBusy,
    KeyReused,
    Misfit,
    NotRetryable,
    OperatorDisabled,
    RecursionTooDeep,
    RunAlreadyEnded,
    Unknown,
)
from operators.models import Card, Event, Operator, Run, Workflow
from operators.models.lookup import look_up
from operators.models.stroke import Given, Insert, enter
from operators.services import cards, doorbell, endings, limits, pauses, sources, timeline, turns

#: Failures that trying again cannot mend, and what to say of them.
FINAL = {
    GateRejected.__name__: "was rejected by a person",
    BudgetRefused.__name__: "was refused more money by a person",
    "RunOutlived": "has lived longer than its workflow allows",
}


def workflow_of(operator: Operator, trigger: str) -> Workflow:
    """Return the workflow that a trigger starts; failing that, the workflow of that id.

    Raises:
        Unknown: the operator has neither; the message names what there is.
    """
    for attribute in ("trigger_id", "slug"):
        found = look_up(Workflow, operator_id=operator.pk, retired=False, **{attribute: trigger})
        if found is not None:
            found.operator = operator
            return found
    current = operator.workflows.filter(retired=False)
    known = ", ".join(sorted({name for workflow in current for name in (workflow.trigger_id, workflow.slug)}))
    raise Unknown(f"Operator {operator.slug!r} has no trigger or workflow {trigger!r}; it has: {known}")


def request(  # long: half of it is the docstring that every door relies on
    workflow: Workflow,
    *,
    input: Mapping[str, Any],
    actor: AbstractUser | None,
    trigger: str = "on_demand",
    traceparent: str = "",
    passed_on: Mapping[str, str] = MappingProxyType({}),
    key: str = "",
    body: Any = None,
    parent: Run | None = None,
    depth: int = 0,
    priority: int = 0,
    at_once: bool = False,
) -> Run:
    """Queue a run of a workflow and ring for a worker; `new` of the run says whether this request made it.

    `key` names the request within its project: the same key again returns the same run, whatever has become of it.
    `body` is what was asked for in the caller's own words, any JSON; with None the key alone decides. A run that a run
    starts names its `parent`, is one deeper, and goes on in its trace, with what was `passed_on` to it; `depth` is for
    a parent elsewhere. `priority` says how early its turn comes where a limit makes runs wait: the highest first. What
    is to begin `at_once` does not wait for its turn.

    Raises:
        KeyReused: the key came before, with another body.
        RecursionTooDeep: runs that start runs have come to `headers.MOST_DEPTH`.
        OperatorDisabled: an administrator has switched the operator off.
        Misfit: the input does not fit the workflow's fields; each misfit is named.
        AgentBusy: it is to begin at once, and a limit makes it wait.
    """
    digest = "" if body is None else canonical.sha256(body)
    if found := known(workflow.operator.project_id, key, digest):
        return found
    depth = parent.depth + 1 if parent else depth
    _require_shallow(workflow, depth)
    require_enabled(workflow.operator)
    trace = traceparent or (parent.traceparent if parent else "")
    run = queued(workflow, checked(workflow, input), actor=actor, trigger=trigger, traceparent=trace)
    run.passed_on = _inherited(parent, traceparent) | dict(passed_on)
    run.parent, run.depth, run.key, run.key_sha256 = parent, depth, key or None, digest
    run.priority = priority
    by = actor.get_username() if actor else ""
    if not at_once:
        return stored(run, by=by)
    with transaction.atomic():
        _require_room(workflow.operator)
        return stored(run, by=by)


def repeated(operator: Operator, key: str, body: Any) -> Run | None:
    """Return the run that a request has started before, also where the trigger that it names is there no more."""
    return known(operator.project_id, key, canonical.sha256(body)) if key else None


def known(project_id: str, key: str, digest: str) -> Run | None:
    """Return the run that this key has started before, if any; raises `KeyReused` if it came with another body."""
    if not key:
        return None
    run = Run.objects.select_related("operator", "workflow").filter(project_id=project_id, key=key).first()
    if run is not None and digest and run.key_sha256 != digest:
        raise KeyReused(
            f"This key has started {run.id} with another body; repeat the body as it was, or take a new key",
            run_id=run.id,
        )
    return run


def require_enabled(operator: Operator) -> None:
    """Raise `OperatorDisabled` if an administrator has switched the operator off."""
    if not operator.enabled:
        raise OperatorDisabled(f"Operator {operator.slug!r} is disabled; an administrator can enable it")


def _require_shallow(workflow: Workflow, depth: int) -> None:
    if depth >= headers.MOST_DEPTH:
        raise RecursionTooDeep(
            f"{workflow.operator.slug}.{workflow.slug} would be run number {depth + 1} of a chain in which each run "
            f"starts the next; {headers.MOST_DEPTH} is the most. Break the circle: start it by an event or a request "
            "on a condition only",
            depth=depth,
        )


def _require_room(operator: Operator) -> None:
    if not limits.room(operator):
        raise AgentBusy(f"{operator.slug!r} plays as many runs as it may; ask again, or let the run wait for its turn")


def _inherited(parent: Run | None, traceparent: str) -> dict[str, str]:
    """Return what a run passes on to a run that it starts; its `tracestate` belongs to its own trace only."""
    of_another = parent is not None and traceparent not in ("", parent.traceparent)
    given = parent.passed_on if parent else {}
    return {name: text for name, text in given.items() if not (of_another and name == headers.TRACESTATE)}


def stored(run: Run, *, by: str, facts: Sequence[Fact] = (), beside: Callable[[], None] | None = None) -> Run:
    """Store a run that is queued, tell `facts` of it too, and ring; what `beside` writes shares the transaction."""
    facts = [Fact("run.queued", data={"input": run.input, "trigger": run.trigger}), *facts]
    run.last_seq = len(facts)
    now = run.created_at
    large: list[Card] = []
    told = timeline.rows(project_id=run.project_id, run_id=run.id, facts=facts, now=now, actor=by, into=large)
    try:
        with transaction.atomic() if beside else nullcontext():
            there = Given(Operator, {"id": run.operator_id, "retired": False})
            written = [Insert(Event, told, numbered="seq"), cards.rows(large)]
            if not enter(run, counter="last_seq", inserts=written, given=there):
                # Somebody has removed it a moment ago.
                raise Unknown(f"There is no operator {run.operator.slug!r}")
            if beside:
                beside()
            turns.meet(run, seq=0, epoch=0)
            # The worker's way is the longer one: it sets out first.
            transaction.on_commit(partial(doorbell.ring, run.id, run.operator))
            timeline.announce(told)
    except IntegrityError:
        # The same request came twice at the same time, and the other one was a moment faster.
        if found := known(run.project_id, run.key or "", run.key_sha256):
            return found
        raise
    run.new = True
    return run


def checked(workflow: Workflow, input: Mapping[str, Any]) -> dict[str, Any]:
    """Return input in the types of the workflow's fields; raises `Misfit` naming field and type."""
    sources.ready(workflow.operator)
    definition = definitions.registry.workflow(workflow.operator.slug, workflow.slug)
    if definition is None:
        return _fitting(workflow, input)
    try:
        return check_input(definition.input_model, input)
    except InputError as error:
        raise Misfit(str(error), errors=error.problems) from error


def _fitting(workflow: Workflow, input: Mapping[str, Any]) -> dict[str, Any]:
    """Return input as its schema takes it: the code is on another server."""
    given = dict(input)
    problems = [{"field": name, "message": nesting.FAULT} for name, value in given.items() if nesting.deep(value)]
    problems = problems or [
        {"field": ".".join(map(str, error.path)), "message": error.message}
        for error in jsonschema.Draft202012Validator(workflow.input_schema).iter_errors(given)
    ]
    if not problems and canonical.jsonable(given) != given:
        problems = [{"field": "", "message": "holds a whole number from 2**53 on, a NUL or half a character"}]
    if problems:
        raise Misfit("; ".join(f"{item['field'] or 'input'}: {item['message']}" for item in problems), errors=problems)
    return given


def queued(
    workflow: Workflow, input: Mapping[str, Any], *, actor: AbstractUser | None, trigger: str, traceparent: str
) -> Run:
    """Return a new run that nobody has stored yet."""
    now = timezone.now()
    longest = workflow.spec.get("max_duration")
    return Run(
        id=ids.run_id(now),
        project_id=workflow.operator.project_id,
        operator=workflow.operator,
        workflow=workflow,
        workflow_version=workflow.version,
        trigger=trigger,
        started_by_id=actor.pk if actor else None,
        traceparent=traceparent if headers.valid(traceparent) else headers.new_trace(),
        input=input,
        rung_at=now,
        expires_at=now + duration if longest and (duration := parse_duration(longest)) else None,
        created_at=now,
        updated_at=now,
    )


def cancel(run: Run, *, actor: AbstractUser, reason: str = "") -> Run:
    """End an unfinished run; whoever plays it notices at the next boundary.

    Raises:
        RunAlreadyEnded: there is nothing left to cancel.
    """
    with transaction.atomic():
        mine = Run.objects.active().filter(id=run.id)
        ended = endings.cancel(mine, reason, now=timezone.now(), actor=actor.get_username())
    run.refresh_from_db()
    if not ended:
        raise RunAlreadyEnded(f"Run {run.id} has ended already: {run.status}", run_status=run.status)
    return run


def retry(run: Run, *, actor: AbstractUser, depth: int = 0) -> Run:
    """Let a failed run go on from its last good step; what it has done stays done, and who was silent is asked anew.

    `depth` is how deep it stands from now on, at least: where a run's end leads to its retry, that must end as well.

    Raises:
        NotRetryable: the run has not failed, its days are over, or a person's no has ended it.
        RecursionTooDeep: runs that let others try again have come to `headers.MOST_DEPTH`.
    """
    if reason := _final(run):
        raise NotRetryable(f"Run {run.id} {reason}; start a new run instead", run_status=run.status)
    deeper = max(run.depth, depth)
    if deeper > run.depth:
        _require_shallow(run.workflow, deeper)
    now = timezone.now()
    with transaction.atomic():
        changed = Run.objects.filter(id=run.id, status=Run.Status.FAILED, archived_at=None, pruned_at=None).change(
            "last_seq", "retries",
            status=Run.Status.QUEUED, error=None, losses=0, retries=F("retries") + 1, ended_at=None, depth=deeper,
            rung_at=now, rings=0, updated_at=now, last_seq=F("last_seq") + 1,
        )  # fmt: skip
        if changed is None:
            run.refresh_from_db(fields=["status"])
            failed = run.status == Run.Status.FAILED
            reason = "has been archived; start a new run instead" if failed else f"has not failed; it is {run.status}"
            raise NotRetryable(f"Run {run.id} {reason}", run_status=run.status)
        endings.undo(run.id)
        told: dict[str, Any] = {"project_id": run.project_id, "run_id": run.id, "now": now}
        told["actor"] = actor.get_username()
        timeline.record(last_seq=changed[0], facts=[Fact("run.retried", data={"retry": changed[1]})], **told)
        if rest := pauses.taken_up(run.id):
            # It was about to rest when it failed, and what follows must not come earlier for that.
            last_seq = changed[0] + len(rest)
            Run.objects.filter(id=run.id).change("last_seq", status=Run.Status.WAITING, last_seq=last_seq)
            timeline.record(last_seq=last_seq, facts=rest, **told)
        transaction.on_commit(lambda: doorbell.ring(run.id, run.operator))
    run.refresh_from_db()
    return run


def _final(run: Run) -> str:
    kind = (run.error or {}).get("kind", "")
    if run.status == Run.Status.FAILED and run.expires_at and run.expires_at <= timezone.now():
        return FINAL["RunOutlived"]
    # Whom a gate's deadline has rejected, nobody has said no to.
    return "" if kind == GateRejected.__name__ and endings.by_silence(run.id) else FINAL.get(kind, "")
