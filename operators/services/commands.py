"""What other programs command over the dialect `cg`: they start runs, answer tools' calls, and stop runs.

Each command is checked against what the database holds before it is kept, and then applied once. One that is about an
older epoch than the run's changes nothing, and the run's thread tells of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from openvibe.events import Event as Fact
from openvibe.protocol import commands, subjects, turns
from openvibe.protocol.commands import Command, InternalCall, Received, Stop, Timeout, ToolResult, Turn, Wakeup
from openvibe.protocol.envelope import Malformed, ProtocolViolation, UnknownAgent
from openvibe.protocol.headers import DEPTH
from operators.models import InboxItem, Operator, Project, Run, Wait, Workflow
from operators.services import (
    boxes,
    cards,
    doorbell,
    endings,
    errands,
    instructions,
    intake,
    refusals,
    servers,
    timeline,
    waits,
)
from operators.services.results import Result

#: What a run's key begins with that a command has started.
KEY = "command:"


def concerns(project_id: str, told: Received) -> bool:
    """Tell whether a command is for this server; another one may serve the agent.

    Raises:
        Malformed: it is for nobody whom we know, or does not fit what we know.
    """
    if not Project.objects.filter(id=project_id).exists():
        raise Malformed(f"There is no project {project_id!r}")
    command = told.command
    if isinstance(command, InternalCall):
        _check_call(project_id, told, command)
        return True
    if isinstance(command, Stop | Timeout):
        _check_turn(_run(project_id, told, command), told, command)
        return True
    if not Operator.objects.filter(project_id=project_id, slug=command.agent_id, retired=False).exists():
        return _unserved(project_id, command.agent_id)
    _check_depth(project_id, told, command)
    if isinstance(command, Turn) and command.context_box_id:
        _check_box(project_id, command.context_box_id)
    return True


def wakeup(item: InboxItem, told: Received, command: Wakeup) -> str | None:
    """Ring for the run of the channel; on a channel of no run, start one. Returns why nothing was to be done."""
    if told.channel.startswith("t_"):
        run = Run.objects.filter(project_id=item.project_id, id=told.channel.removeprefix("t_")).first()
        if run is None or run.operator.slug != command.agent_id:
            return f"{command.agent_id!r} has no run on the channel {told.channel!r}"
        if run.status != Run.Status.QUEUED:
            return f"Run {run.id} is {run.status}; nothing is to be woken"
        transaction.on_commit(lambda: doorbell.ring(run.id, run.operator))
        return None
    if command.inbox_id:
        return f"Nothing waits in the inbox as {command.inbox_id!r}"
    workflow = instructions.workflow(item.project_id, command.agent_id, str(command.metadata.get("workflow") or ""))
    _start(workflow, told, input={}, trigger="wakeup")
    return None


def turn(item: InboxItem, told: Received, command: Turn) -> None:
    """Start a run for a task."""
    name = command.profile_box_id or str(command.metadata.get("workflow") or "")
    workflow = instructions.workflow(item.project_id, command.agent_id, name)
    given = boxes.content(item.project_id, command.context_box_id) if command.context_box_id else {}
    parent = _parent(item.project_id, command)
    _start(
        workflow, told, input=instructions.read(workflow, given), trigger=f"turn:{told.id}"[:200], parent=parent,
        at_once=command.metadata.get("at_once") is True,
    )  # fmt: skip


def tool_result(item: InboxItem, told: Received, command: ToolResult) -> str | None:
    """Hand a tool's result to the run that waits for it."""
    found = Result.read(cards.content(item.project_id, command.tool_result_card_id), command.after_execution)
    error = "" if command.status in ("success", "partial") else found.failure(command.status)
    result = None if error else found.value
    return _answer(told, command, result=result, error=error, after=found.after_execution)


def timeout(item: InboxItem, told: Received, command: Timeout) -> str | None:
    """Tell the run that waits for a tool that it will not answer."""
    return _answer(told, command, result=None, error="tool_timeout: the tool did not answer in time", after="suspend")


def stop(item: InboxItem, told: Received, command: Stop) -> str | None:
    """Cancel a run that still stands where whoever stops it believes."""
    run = _locked(command)
    reason = _moved(run, command)
    mine = Run.objects.active().filter(id=run.id)
    if not reason and endings.cancel(mine, command.reason, now=timezone.now(), actor=told.sender):
        return None
    data = {"turn_epoch": command.turn_epoch, "by": told.sender, "reason": reason}
    timeline.note(run.id, Fact("stop.refused", data=data), actor=told.sender)
    return f"{reason}: run {run.id} is {run.status} in epoch {run.epoch}"


_APPLIED: Mapping[str, Callable[..., str | None]] = {
    "wakeup": wakeup,
    "turn": turn,
    "tool_result": tool_result,
    "timeout": timeout,
    "stop": stop,
    commands.INTERNAL: errands.begin,
}


def apply(item: InboxItem) -> str | None:
    """Apply a command; part of the caller's transaction. Returns why it changed nothing, if it did not."""
    told = Received.model_validate(item.body)
    return _APPLIED[told.kind](item, told, told.command)


def refused(item: InboxItem, *, code: str, reason: str) -> None:
    """Tell whoever has sent a command that could not be applied, if somebody waits for its end: that of a turn."""
    told = Received.model_validate(item.body)
    if told.kind == "turn":
        refusals.tell(
            item.project_id, told.channel, told.fields["agent_id"],
            name=told.id, code=code, reason=reason,
            traceparent=told.traceparent, depth=told.depth, passed_on=told.passed_on,
        )  # fmt: skip


def _run(project_id: str, told: Received, command: Stop | Timeout) -> Run:
    run_id = turns.run_of(command.agent_turn_id)
    run = Run.objects.select_related("operator").filter(project_id=project_id, id=run_id).first()
    if run is None:
        raise Malformed(f"agent_turn_id: nobody knows the run {run_id!r}")
    return run


def _check_turn(run: Run, told: Received, command: Stop | Timeout) -> None:
    if command.agent_id != run.operator.slug:
        raise ProtocolViolation(f"agent_id: run {run.id} is one of {run.operator.slug!r}")
    if told.channel.startswith("t_") and told.channel != subjects.thread(run.id):
        raise ProtocolViolation(f"agent_turn_id: run {run.id} is not that of the channel {told.channel!r}")
    if isinstance(command, Timeout) and told.depth != run.depth:
        raise ProtocolViolation(f"{DEPTH} is {told.depth}; the call {command.tool_call_id!r} was sent with {run.depth}")
    if isinstance(command, ToolResult):
        _check_card(run.project_id, "tool_result_card_id", command.tool_result_card_id)


def _check_box(project_id: str, name: str) -> None:
    if not boxes.known(project_id, name):
        raise Malformed(f"context_box_id: there is no box and no card {name!r}")


def _check_call(project_id: str, told: Received, command: InternalCall) -> None:
    if (caller := errands.calling(project_id, command)) is not None:
        _check_turn(caller, told, command)
    _check_card(project_id, "tool_call_card_id", command.tool_call_card_id)


def _check_card(project_id: str, field: str, pointer: str) -> None:
    if not cards.known(project_id, pointer):
        raise Malformed(f"{field}: there is no card {pointer!r}")


def _check_depth(project_id: str, told: Received, command: Command) -> None:
    known = Run.objects.filter(project_id=project_id, key=_key(told)).values_list("depth", flat=True).first()
    if known is not None and known != told.depth:
        raise ProtocolViolation(f"{DEPTH} is {told.depth}; {told.id!r} came with {known} before")
    parent = _parent(project_id, command) if isinstance(command, Turn) else None
    if parent is not None and told.depth != parent.depth + 1:
        raise ProtocolViolation(f"{DEPTH} is {told.depth}; what {parent.id} starts is {parent.depth + 1} deep")


def _parent(project_id: str, command: Turn) -> Run | None:
    return Run.objects.filter(project_id=project_id, id=turns.run_of(command.parent_agent_turn_id)).first()


def _unserved(project_id: str, agent_id: str) -> bool:
    elsewhere = [server for server in servers.listing(project_id) if server.name != settings.OPENVIBE.server]
    if any(agent_id in server.operators for server in elsewhere):
        return False
    raise UnknownAgent(f"agent_id: nobody knows the agent {agent_id!r}")


def _answer(told: Received, command: Timeout, *, result: Any, error: str, after: str) -> str | None:
    """Settle the call that an answer is about, if it is still open in the epoch that the answer quotes."""
    run = _locked(command)
    calls = Wait.objects.filter(run=run, kind=Wait.Kind.TOOL, payload__tool_call_id=command.tool_call_id)
    wait = calls.pending().first() or calls.order_by("-opened_at").first()
    if wait is None:
        return f"Run {run.id} has made no call {command.tool_call_id!r}"
    refused = _refusal(run, wait, command)
    if not refused and waits.settle(wait, result=result, error=error, by=told.sender, ends=after == "terminate"):
        return None
    data = {"wait_id": wait.id, "tool_call_id": command.tool_call_id, "turn_epoch": command.turn_epoch,
            "by": told.sender, "reason": refused}  # fmt: skip
    timeline.note(run.id, Fact("answer.refused", node=wait.node, step_id=wait.step_id, data=data), actor=told.sender)
    return f"{refused}: run {run.id} is {run.status} in epoch {run.epoch}, the call is {wait.status}"


def _refusal(run: Run, wait: Wait, command: Timeout) -> str:
    # While a call is open nobody claims its run, so the epoch is still the one that it was sent with.
    return _moved(run, command) or ("" if wait.pending else "already_answered")


def _locked(command: Stop | Timeout) -> Run:
    # With the run's row in hand its epoch cannot move between the look and the write.
    return Run.objects.select_for_update(no_key=True).get(id=turns.run_of(command.agent_turn_id))


def _moved(run: Run, command: Stop | Timeout) -> str:
    if not run.active:
        return "run_ended"
    stands = command.turn_epoch == run.epoch and command.agent_turn_id in (run.id, run.turn_id)
    return "" if stands else "stale_turn"


def _start(
    workflow: Workflow, told: Received, *, input: Mapping[str, Any], trigger: str, parent: Run | None = None,
    at_once: bool = False,
) -> None:  # fmt: skip
    intake.request(
        workflow, input=input, actor=None, trigger=trigger, key=_key(told),
        parent=parent, depth=told.depth, traceparent=told.traceparent, passed_on=told.passed_on, at_once=at_once,
    )  # fmt: skip


def _key(told: Received) -> str:
    return f"{KEY}{told.kind}:{told.id}"
