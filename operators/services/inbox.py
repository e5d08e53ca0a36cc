"""What comes in from outside and may change a run: kept once, then applied, and applied again if that got stuck."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from openvibe.protocol.commands import Received
from openvibe.protocol.envelope import Malformed
from operators.errors import DomainError, NotWaiting
from operators.models import InboxItem, Run, Wait
from operators.services import actions, agents, asking, commands, deliveries, late, waits
from operators.services.waits import Answer

logger = logging.getLogger(__name__)

#: How long applying may take before it counts as stuck, and after how many tries it is given up.
PATIENCE = timedelta(seconds=30)
MOST_ATTEMPTS = 10
#: A name of this length still leaves room for a listener's, in the column of `Run.key`.
LONGEST_NAME = 64

RESULT, APPROVAL, EVENT, REPLY, COMMAND = "work.result", "approval", "event", "reply", "command"
ACTION = "ui.action"


@dataclass(frozen=True)
class Inbound:
    """A message that may change a run. `correlation_id` is the same for the same message, however often it comes."""

    project: str
    type: str
    correlation_id: str
    run_id: str
    body: Mapping[str, Any]


class _Skip(Exception):
    """There is nothing to apply; the text says why."""


def receive(messages: Sequence[Inbound]) -> list[int]:
    """Keep messages that are new; part of the caller's transaction. Returns what is to be applied after it.

    Whoever repeats an action wants to be told what became of it.
    """
    now = timezone.now()
    rows = [
        InboxItem(
            project_id=item.project,
            type=item.type,
            correlation_id=item.correlation_id,
            run_id=item.run_id,
            body=dict(item.body),
            received_at=now,
            changed_at=now,
        )
        for item in messages
    ]
    InboxItem.objects.bulk_create(rows, ignore_conflicts=True)
    wanted = Q()
    for item in messages:
        wanted |= Q(project_id=item.project, type=item.type, correlation_id=item.correlation_id)
    heeded = Q(status=InboxItem.Status.PENDING) | Q(type=ACTION)
    # In the order in which they came: the first answer counts.
    kept = InboxItem.objects.filter(wanted, heeded).order_by("pk")
    return list(kept.values_list("pk", flat=True)) if messages else []


def apply(item_id: int) -> None:
    """Apply one message, unless somebody else does or did."""
    now = timezone.now()
    stuck = Q(status=InboxItem.Status.PROCESSING, changed_at__lt=now - PATIENCE)
    taken = InboxItem.objects.filter(Q(status=InboxItem.Status.PENDING) | stuck, pk=item_id)
    won = taken.update(status=InboxItem.Status.PROCESSING, attempts=F("attempts") + 1, changed_at=now)
    item = InboxItem.objects.get(pk=item_id)
    if not won:
        if item.type == ACTION:
            actions.again(item)
        return
    if item.attempts > MOST_ATTEMPTS:
        # Each of them ended with its process, which the next one would, too.
        told = f"{MOST_ATTEMPTS} tries to apply it have come to no end; does it end or exhaust the process?"
        _refuse(item, InboxItem.Status.ERROR, "internal_error", told)
        return
    if item.type == ACTION:
        actions.accept(item)
    try:
        with transaction.atomic():
            refused = _APPLIED[item.type](item)
            _close(item, InboxItem.Status.SKIPPED if refused else InboxItem.Status.CONSUMED, refused or "")
    except _Skip as reason:
        _close(item, InboxItem.Status.SKIPPED, str(reason))
    except DomainError as error:
        _refuse(item, InboxItem.Status.SKIPPED, error.code, str(error))
    except Exception as error:
        if item.attempts < MOST_ATTEMPTS:
            raise
        logger.exception("%s cannot be applied", item)
        _refuse(item, InboxItem.Status.ERROR, "internal_error", f"{type(error).__name__}: {error}")


def stuck(most: int) -> list[int]:
    """Return what was received and never applied, or is being applied for too long."""
    early = timezone.now() - timedelta(seconds=2)
    late = timezone.now() - PATIENCE
    rows = InboxItem.objects.filter(
        Q(status=InboxItem.Status.PENDING, changed_at__lt=early)
        | Q(status=InboxItem.Status.PROCESSING, changed_at__lt=late)
    )
    return list(rows.order_by("changed_at").values_list("pk", flat=True)[:most])


@transaction.atomic
def _refuse(item: InboxItem, status: str, code: str, reason: str) -> None:
    _close(item, status, reason if code == "internal_error" else f"{code}: {reason}")
    if item.type == COMMAND:
        commands.refused(item, code=code, reason=reason)


def _close(item: InboxItem, status: str, reason: str = "") -> None:
    InboxItem.objects.filter(pk=item.pk).update(status=status, reason=reason, changed_at=timezone.now())


def _work_result(item: InboxItem) -> str | None:
    """Answer the wait that a result means: the one it quotes, else the run's open one for that work and chunk."""
    body = item.body
    payload, quoted = body["payload"], body["payload"].get("work_id")
    asked = list(Wait.objects.filter(run_id=item.run_id, kind=Wait.Kind.WORK).order_by("opened_at"))
    meant = [wait for wait in asked if (_fits(wait, payload) if quoted is None else wait.id == quoted)]
    fitting = [wait for wait in meant if wait.pending]
    failed = body["type"] == "result.failure"
    error = " — ".join(str(payload[name]) for name in ("error", "details") if payload.get(name)) if failed else ""
    by = str((payload.get("context") or {}).get("agent_id") or "agent")[:200]
    if len(fitting) != 1:
        if meant and not fitting:
            late.tell(meant[-1], by=by, reason=NotWaiting.code)
        open_still = sum(wait.pending for wait in asked)
        return f"{len(fitting)} of the run's {open_still} open waits for work fit this result"
    result, error = None if failed else payload, error or ("failed" if failed else "")
    taken = waits.settle(fitting[0], result=result, error=error, by=by)
    # After the run's row, in which order everybody takes them.
    agents.heard(item.project_id, by)
    return None if taken else _overtaken(fitting[0], by=by)


def _fits(wait: Wait, payload: Mapping[str, Any]) -> bool:
    task = wait.payload.get("task")
    chunk = task.get("chunk_id") if isinstance(task, dict) else None
    return payload.get("work_type", wait.payload["role"]) == wait.payload["role"] and payload.get("chunk_id") == chunk


def _approval(item: InboxItem) -> str | None:
    payload, granted = item.body["payload"], item.body["type"] == "approval.granted"
    gate = Wait.objects.select_related("run").filter(
        id=payload["gate_id"], run_id=item.run_id, kind=Wait.Kind.APPROVAL
    ).first()  # fmt: skip
    if gate is None:
        raise _Skip(f"The run has no gate {payload['gate_id']!r}")
    given = Answer(
        "approve" if granted else "reject",
        notes=str(payload.get("notes" if granted else "reason") or ""),
        version=payload.get("version"),
        payload_sha256=payload.get("payload_sha256"),
    )
    by = str(payload.get("approved_by" if granted else "rejected_by") or "somebody on the bus")
    try:
        waits.answer(gate, given, actor=None, decider=by[:200])
    except DomainError as error:
        # Raised on, it would undo what the run's thread tells of a late answer.
        return f"{error.code}: {error}"
    return None


def _event(item: InboxItem) -> None:
    told = item.body
    name = told.get("message_id") or f"{item.type}:{item.correlation_id}"
    name = name if len(name) <= LONGEST_NAME else hashlib.sha256(name.encode()).hexdigest()[:32]
    deliveries.start_listeners(
        item.project_id, told["name"], told["payload"],
        message_id=name, depth=told["depth"] + 1, traceparent=told.get("traceparent", ""),
        passed_on=told.get("passed_on", {}),
    )  # fmt: skip


def _reply(item: InboxItem) -> str | None:
    kinds = (Wait.Kind.REPLY, Wait.Kind.TOOL)
    wait = Wait.objects.filter(id=item.body["wait_id"], kind__in=kinds, run__project_id=item.project_id).first()
    payload = item.body["payload"]
    if wait is None or not wait.pending:
        # What another operator answers comes twice, by two ways: of that the second one is nothing to tell, and neither
        # is it that somebody has begun.
        if wait is not None and wait.status != Wait.Status.RESOLVED and not asking.begun(payload):
            by = wait.payload["tool"] if wait.kind == Wait.Kind.TOOL else asking.answerer(wait)
            late.tell(wait, by=by, reason=NotWaiting.code)
        return "No run of ours waits for this answer"
    if wait.kind != Wait.Kind.TOOL:
        asking.settle(wait, payload)
        return None
    by, error = wait.payload["tool"], str(payload.get("error") or "")
    taken = waits.settle(wait, result=payload.get("result"), error=error, by=by)
    return None if taken else _overtaken(wait, by=by)


def _overtaken(wait: Wait, *, by: str) -> str:
    """Tell of an answer that was meant for an open wait which somebody has closed a moment before."""
    late.tell(wait, by=by, reason=NotWaiting.code)
    return f"{NotWaiting.code}: another answer, or the run's end, was faster"


_APPLIED: dict[str, Callable[[InboxItem], str | None]] = {
    RESULT: _work_result,
    APPROVAL: _approval,
    EVENT: _event,
    REPLY: _reply,
    COMMAND: commands.apply,
    ACTION: actions.apply,
}


def concerns(item: Inbound) -> bool:
    """Tell whether a message is to be kept here; another server on the same bus may be meant.

    Raises:
        Malformed: it fits nothing that we know.
    """
    if item.type == COMMAND:
        return commands.concerns(item.project, Received.model_validate(item.body))
    if item.run_id and not Run.objects.filter(id=item.run_id, project_id=item.project).exists():
        raise Malformed(f"Nobody knows the session {item.run_id!r}")
    return True
