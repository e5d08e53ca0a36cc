"""Does what agents ask of OpenVibe itself: starts runs in their name, and tells what those came to.

A call comes in as a command. Its runs are children of the run that called or, for an agent elsewhere, one deeper than
it. Whoever waits for their ends is answered once: when all have ended, when one has failed and that is enough, or when
the time is up; what still runs then is cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import orjson
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from pydantic import ValidationError

from openvibe.ids import random_text
from openvibe.protocol import envelope, internal, subjects, turns
from openvibe.protocol.commands import InternalCall, Received
from openvibe.protocol.internal import Arguments, Delegate
from operators.errors import DomainError, Misfit
from operators.models import Errand, InboxItem, Run, Wait, Workflow
from operators.models.operator import EXTERNAL
from operators.services import boxes, cards, doorbell, endings, instructions, intake, outgoing, waits

ACTOR = "pmo"
#: How long a bell may go unheard before the clock looks itself.
LOOK = timedelta(seconds=5)
_ENDS: Mapping[str, str] = {"completed": "success", "failed": "failed", "cancelled": "canceled"}


def begin(item: InboxItem, told: Received, call: InternalCall) -> str | None:
    """Do what a call asks for; part of the caller's transaction. Returns why nothing was done, if so."""
    caller = calling(item.project_id, call)
    wait = _waiting(caller, call) if caller else None
    if caller and wait is None:
        return (
            f"invalid_source_actor: run {caller.id} does not wait for {call.tool_call_id!r} in epoch {call.turn_epoch}"
        )
    errand = _errand(item, told, call, wait)
    try:
        given = cards.content(item.project_id, call.tool_call_card_id)
        arguments = internal.TOOLS[call.tool_name].model_validate(given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "arguments"
        _close(errand, "failed", _failure("bad_request", f"{where}: {fault['msg']}"))
        return None
    runs = _started(errand, arguments, caller)
    if internal.awaited(arguments):
        transaction.on_commit(partial(doorbell.gather, errand.id))
    elif runs:
        accepted = {"status": "accepted", "agent_id": runs[0].operator.slug, "agent_turn_id": runs[0].turn_id}
        _close(errand, "success", {"result": {**accepted, "turn_epoch": runs[0].epoch}})
    else:
        _close(errand, "failed", _failure(errand.tasks[0]["code"], errand.tasks[0]["error"]))
    return None


def calling(project_id: str, call: InternalCall) -> Run | None:
    """Return the run of ours that has called; None for an agent elsewhere."""
    runs = Run.objects.select_related("operator").filter(project_id=project_id, id=turns.run_of(call.agent_turn_id))
    return runs.exclude(operator__slug=EXTERNAL).first()


@transaction.atomic
def gather(errand_id: str) -> None:
    """Look how far an errand's runs have come, and close it if there is nothing more to wait for."""
    errand = Errand.objects.select_for_update().filter(id=errand_id, status=Errand.Status.RUNNING).first()
    if errand is None:
        return
    now = timezone.now()
    abandoned = bool(errand.wait_id) and not Wait.objects.pending().filter(id=errand.wait_id).exists()
    late = errand.deadline is not None and errand.deadline <= now
    ends = _results(errand)
    failed = any(end["status"] not in ("success", "running") for end in ends)
    if any(end["status"] == "running" for end in ends) and not (abandoned or late or (errand.fail_fast and failed)):
        # A deadline is kept to the second, a bell that nobody heard is made good later.
        look_at = min(now + LOOK, errand.deadline or now + LOOK)
        Errand.objects.filter(id=errand_id).update(look_at=look_at)
        return
    reason, word = f"Errand {errand.id} waits for it no longer", "timeout" if late else "canceled"
    for end in ends:
        if end["status"] == "running":
            mine = Run.objects.active().filter(id=end["run_id"])
            # What has come to its own end a moment before is told of as it ended.
            own = not endings.cancel(mine, reason, now=now, actor=ACTOR)
            end.update(_results(errand)[end["task_index"]] if own else {"status": word})
    _finish(errand, ends)


def tell(errand_id: str) -> bool:
    """Tell an agent elsewhere what its call came to, as a `tool_result`; False if the bus did not take it."""
    errand = Errand.objects.filter(id=errand_id, status=Errand.Status.CLOSED, told_at=None).first()
    if errand is None:
        return True
    card = cards.keep(errand.project_id, errand.result, orjson.dumps(errand.result))
    caller = dict(errand.caller)
    answer_to, channel = caller.pop("answer_to"), caller.pop("channel")
    body = {**caller, "id": errand.id, "version": envelope.VERSION, "status": errand.outcome,
            "tool_result_card_id": card["card"]}  # fmt: skip
    subject = answer_to or subjects.inbox(errand.project_id, channel, caller["agent_id"], "tool_result")
    stamps = {"traceparent": errand.traceparent, "depth": errand.depth, "passed_on": errand.passed_on}
    if not outgoing.store(subject, body, "tool_result", **stamps):
        # By turns: those of whom nobody can be told now keep the clock from none of the others.
        Errand.objects.filter(id=errand_id).update(look_at=timezone.now() + LOOK)
        return False
    Errand.objects.filter(id=errand_id).update(told_at=timezone.now())
    return True


def look(errand_id: str) -> bool:
    """Do whatever is to be done for an errand now; False if the bus did not take what it came to."""
    gather(errand_id)
    return tell(errand_id)


def abandon(wait: Wait) -> None:
    """Cancel what a call has started for which nobody waits any more."""
    for errand_id in Errand.objects.filter(wait_id=wait.id).values_list("id", flat=True):
        gather(errand_id)


def due(now: datetime, most: int) -> list[str]:
    """Return the errands that nobody has looked after for too long."""
    rows = Errand.objects.filter(Q(status=Errand.Status.RUNNING) | Q(status=Errand.Status.CLOSED), told_at=None)
    return list(rows.filter(look_at__lte=now).order_by("look_at").values_list("id", flat=True)[:most])


def _waiting(run: Run, call: InternalCall) -> Wait | None:
    calls = Wait.objects.pending().filter(run=run, kind=Wait.Kind.TOOL, payload__tool_call_id=call.tool_call_id)
    return calls.first() if call.turn_epoch == run.epoch else None


def _errand(item: InboxItem, told: Received, call: InternalCall, wait: Wait | None) -> Errand:
    now = timezone.now()
    quoted = ("agent_id", "agent_turn_id", "turn_epoch", "tool_call_id", "after_execution")
    caller = {name: getattr(call, name) for name in quoted}
    return Errand(
        id=f"errand_{random_text(16)}",
        project_id=item.project_id,
        tool=call.tool_name,
        caller={**caller, "channel": told.channel, "answer_to": told.answer_to},
        wait_id=wait.id if wait else "",
        depth=told.depth,
        traceparent=told.traceparent,
        passed_on=told.passed_on,
        created_at=now,
        look_at=now + LOOK,
    )


def _started(errand: Errand, arguments: Arguments, caller: Run | None) -> list[Run]:
    """Start a run for each task, as far as that is possible; what is refused is told in the task."""
    if isinstance(arguments, internal.Fork):
        errand.fail_fast = arguments.fail_fast
        errand.deadline = errand.created_at + timedelta(seconds=arguments.deadline_seconds)
        errand.look_at = min(errand.look_at, errand.deadline)
    started = []
    for index, task in enumerate(internal.tasks(arguments)):
        row: dict[str, Any] = {"target": task.target_ref}
        try:
            run = _start(errand, index, task, caller)
        except DomainError as error:
            row |= {"code": error.code, "error": error.message}
        else:
            row |= {"agent_id": run.operator.slug}
            started.append(run)
        errand.tasks.append(row)
    errand.save(force_insert=True)
    return started


def _start(errand: Errand, index: int, task: Delegate, caller: Run | None) -> Run:
    workflow, given = _target(errand.project_id, task)
    if task.context_box_id:
        if not boxes.known(errand.project_id, task.context_box_id):
            raise Misfit(f"context_box_id: there is no box and no card {task.context_box_id!r}")
        given |= instructions.read(workflow, boxes.content(errand.project_id, task.context_box_id))
    given |= instructions.read(workflow, task.instruction)
    return intake.request(
        workflow, input=given, actor=None, trigger=f"{ACTOR}:{errand.tool}", key=errand.run_key(index),
        parent=caller, depth=errand.depth + 1, traceparent=errand.traceparent, passed_on=errand.passed_on,
        priority=caller.priority if caller else 0,
    )  # fmt: skip


def _target(project_id: str, task: Delegate) -> tuple[Workflow, dict[str, Any]]:
    if task.target_strategy == "clone":
        run = Run.objects.select_related("workflow__operator").filter(project_id=project_id)
        source = run.filter(id=turns.run_of(task.target_ref)).exclude(operator__slug=EXTERNAL).first()
        if source is None:
            raise Misfit(f"target_ref: there is no run {task.target_ref!r} to clone")
        return source.workflow, dict(source.input)
    operator, _, name = task.target_ref.partition(".")
    return instructions.workflow(project_id, operator, name), {}


def _results(errand: Errand) -> list[dict[str, Any]]:
    keys = [errand.run_key(index) for index in range(len(errand.tasks))]
    runs = {run.key: run for run in Run.objects.filter(project_id=errand.project_id, key__in=keys)}
    return [_result(index, task, runs.get(keys[index])) for index, task in enumerate(errand.tasks)]


def _result(index: int, task: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
    if run is None:
        return {"task_index": index, "status": "failed", "error": f"{task['code']}: {task['error']}", "run_id": ""}
    told = {
        "task_index": index,
        "run_id": run.id,
        "agent_turn_id": run.turn_id,
        "status": _ENDS.get(run.status, "running"),
    }
    if run.status == Run.Status.COMPLETED:
        delivered = {"output_card_id": boxes.delivered(run), "output_box_id": turns.output_box(run.turn_id)}
        return {**told, "summary": internal.summary(run.output), **delivered}
    return {**told, "error": (run.error or {}).get("message", "")}


def _finish(errand: Errand, ends: list[dict[str, Any]]) -> None:
    status, first = _together({end["status"] for end in ends}), ends[0]
    if errand.tool != "ask_expert":
        _close(errand, status, {"result": {"status": status, "results": ends}})
    elif status == "success":
        kept = {name: first[name] for name in ("output_card_id", "output_box_id")}
        _close(errand, status, {"result": {"answer": first["summary"], **kept}})
    else:
        _close(errand, status, _failure(status, first["error"] or f"The expert's run is {status}"))


def _together(said: set[str]) -> str:
    if len(said) == 1:
        return said.pop()
    return next((word for word, sign in (("partial", "success"), ("timeout", "timeout")) if sign in said), "failed")


def _failure(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _close(errand: Errand, outcome: str, result: dict[str, Any]) -> None:
    now = timezone.now()
    errand.status, errand.outcome, errand.result = Errand.Status.CLOSED, outcome, result
    errand.closed_at, errand.look_at = now, now + LOOK
    if errand.wait_id:
        errand.told_at = now
        _settle(errand, result)
    else:
        transaction.on_commit(partial(doorbell.gather, errand.id))
    errand.save()


def _settle(errand: Errand, result: dict[str, Any]) -> None:
    wait = Wait.objects.filter(id=errand.wait_id).first()
    if wait is None:
        return
    error = result.get("error")
    told = f"{error['code']}: {error['message']}" if error else ""
    ends = errand.caller["after_execution"] == "terminate"
    try:
        waits.settle(wait, result=result.get("result"), error=told, by=f"{ACTOR}.{errand.tool}", ends=ends)
    except DomainError:
        # The run has ended meanwhile, and waits for nobody.
        return
