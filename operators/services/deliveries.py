"""What goes from run to run: emitted events start the workflows that listen, requests start those that answer.

Everything here may happen twice and has its effect once: the key of each started run names what started it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from openvibe.events import Event as Fact
from openvibe.protocol import envelope, sessions, subjects
from openvibe.protocol.envelope import Malformed
from operators.errors import DomainError
from operators.models import Emission, Run, Wait, Workflow
from operators.models.event import EventRow
from operators.services import (
    announcements,
    asking,
    cards,
    changes,
    channels,
    endings,
    intake,
    mirroring,
    outgoing,
    remote_tools,
    servers,
    serving,
    subscriptions,
    timeline,
    waits,
)

logger = logging.getLogger(__name__)

#: How long the bus may take to keep an event, in seconds.
PATIENCE = 5.0


def deliver(emission_id: str) -> bool:
    """Start the workflows that listen to an emitted event, and hand it to the bus; False if that did not take it."""
    emission = Emission.objects.select_related("run").get(id=emission_id)
    if emission.delivered_at is None:
        start_listeners(
            emission.project_id, emission.name, emission.payload, message_id=emission.id, parent=emission.run
        )
        subscriptions.emitted(emission)
        Emission.objects.filter(id=emission.id).update(delivered_at=timezone.now())
    if emission.published_at is not None:
        return True
    # Who hears of the event elsewhere finds what was put with it.
    mirroring.push()
    published = _published(emission)
    if published:
        Emission.objects.filter(id=emission.id).update(published_at=timezone.now())
    return published


def start_listeners(
    project_id: str,
    name: str,
    payload: dict[str, Any],
    *,
    message_id: str,
    parent: Run | None = None,
    depth: int = 0,
    traceparent: str = "",
    passed_on: Mapping[str, str] = MappingProxyType({}),
) -> list[Run]:
    """Start every workflow of a project that listens to an event, once per message and workflow.

    Whose code they are is no matter: servers that share the database share its listeners. A listener that is refused
    is told of on the parent's thread or, where the event came from elsewhere, on the general channel.
    """
    started, refused = [], []
    for workflow, given in _listeners(project_id, name, payload):
        place = f"{workflow.operator.slug}.{workflow.slug}"
        try:
            started.append(intake.request(
                workflow, input=given, actor=None, trigger=f"event:{name}", key=f"event:{message_id}:{place}",
                parent=parent, depth=depth, traceparent=traceparent, passed_on=passed_on,
            ))  # fmt: skip
        except DomainError as error:
            logger.warning("%s did not start from %s: %s", place, name, error)
            refused.append({"name": name, "workflow": place, "reason": str(error), "code": error.code})
    if parent is None:
        _tell_everybody(project_id, message_id, refused)
    else:
        for told in refused:
            timeline.note(parent.id, Fact("event.refused", data=told))
    return started


def _tell_everybody(project_id: str, message_id: str, refused: Sequence[Mapping[str, str]]) -> None:
    """Tell the general channel which listeners an event from elsewhere did not start, each once."""
    if not refused:
        return
    now = timezone.now()
    rows = [
        EventRow(
            project_id=project_id,
            channel=subjects.PUBLIC,
            kind="event.refused",
            run_id=None,
            actor=told["name"].partition(".")[0][:200],
            data=dict(told),
            message_id=f"refused:{envelope.message_id(told['workflow'], message_id)}",
            created_at=now,
        )
        for told in refused
    ]
    with transaction.atomic():
        written = channels.once(project_id, subjects.PUBLIC, rows)
        transaction.on_commit(lambda: announcements.tell(written))


def _listeners(project_id: str, name: str, payload: Mapping[str, Any]) -> Iterator[tuple[Workflow, dict[str, Any]]]:
    """Yield, once each, the workflows that an event starts, with the input that its payload gives them."""
    listening = Q(trigger__startswith="event:") | ~Q(spec__listens=[])
    rows = Workflow.objects.select_related("operator").filter(listening, operator__project_id=project_id, retired=False)
    for workflow in rows.filter(operator__enabled=True).order_by("operator__slug", "position"):
        heard = (item for item in workflow.subscriptions if item.hears(name, payload, owner=workflow.operator.slug))
        if (first := next(heard, None)) is not None:
            yield workflow, first.input(payload, workflow.spec.get("inputs", ()))


def ask(wait_id: str) -> bool:
    """Tell whoever is to answer a wait that a run waits for him; False if the bus did not take it."""
    wait = Wait.objects.pending().select_related("run").filter(id=wait_id).first()
    if wait is None:
        return True
    if wait.kind in (Wait.Kind.WORK, Wait.Kind.TOOL):
        # A worker that dies in between must not leave somebody at work whom nobody calls off.
        Wait.objects.filter(id=wait_id).update(tried_at=timezone.now())
    match wait.kind:
        case Wait.Kind.REPLY:
            sent = _request(wait)
        case Wait.Kind.WORK:
            sent = _publish(wait, "work", f"work.{wait.payload['role']}", _work(wait))
        case Wait.Kind.APPROVAL:
            sent = _publish(wait, "approvals", "approval.request", _question(wait))
        case Wait.Kind.TOOL:
            sent = remote_tools.call(wait)
        case Wait.Kind.CHANGE:
            changes.look(wait)
            return True
        case _:
            sent = True
    if sent:
        Wait.objects.filter(id=wait_id).update(sent_at=timezone.now())
    return sent


def reply(run_id: str) -> None:
    """Hand the end of a run that answers a request to the run that waits for it."""
    run = Run.objects.select_related("operator", "workflow").get(id=run_id)
    if run.active or not (run.key or "").startswith(endings.REPLY_KEY):
        return
    wait = Wait.objects.pending().filter(id=(run.key or "").removeprefix(endings.REPLY_KEY)).first()
    if wait is None:
        return
    completed = run.status == Run.Status.COMPLETED
    error = "" if completed else f"run {run.id} {run.status}: {(run.error or {}).get('message', 'without a reason')}"
    by = f"{run.operator.slug}.{run.workflow.slug}"
    waits.settle(wait, result=run.output if completed else None, error=error, by=by)


def _request(wait: Wait) -> bool:
    asked = wait.payload
    workflow = _answering(wait)
    if workflow is None:
        return asking.elsewhere(wait)
    known = {name: value for name, value in asked["payload"].items() if name in workflow.spec["inputs"]}
    try:
        with transaction.atomic():
            if not _asks_still(wait):
                return True
            run = intake.request(
                workflow,
                input=known,
                actor=None,
                trigger=f"request:{asked['capability']}",
                key=f"{endings.REPLY_KEY}{wait.id}",
                parent=wait.run,
                # Whoever waits for it waits in its place.
                priority=wait.run.priority,
            )
    except DomainError as error:
        waits.settle(wait, error=str(error))
        return True
    if not run.active:
        reply(run.id)
    return True


def _asks_still(wait: Wait) -> bool:
    """Tell whether a run still waits for an answer, and until the transaction's end; note that it was sent for.

    Whoever closes the wait holds the run's row: either he finds it sent, and with it the run that answers, which is
    called back then; or that one is not started any more.
    """
    Run.objects.select_for_update(no_key=True).values("id").get(id=wait.run_id)
    return bool(Wait.objects.pending().filter(id=wait.id).update(sent_at=timezone.now()))


def _work(wait: Wait) -> dict[str, Any]:
    task = wait.payload["task"]
    return {**(task if isinstance(task, dict) else {"task": task}), "work_id": wait.id}


def _question(wait: Wait) -> dict[str, Any]:
    asked = {
        "gate_id": wait.id,
        "phase": wait.node,
        "summary": wait.prompt,
        "decisions": wait.decisions,
        "version": wait.version,
        "payload_sha256": wait.payload_sha256,
    }
    shown = wait.payload if isinstance(wait.payload, dict) else {}
    told = {name: shown[name] for name in ("chunk_id", "phase", "changes") if name in shown}
    # What a gate shows under these names may be anything; only what fits the message's schema goes into it.
    return asked | {name: value for name, value in told.items() if _fits("approval.request", asked | {name: value})}


def _fits(type: str, payload: Mapping[str, Any]) -> bool:
    try:
        sessions.check(type, payload)
    except Malformed:
        return False
    return True


def _publish(wait: Wait, channel: str, type: str, payload: dict[str, Any]) -> bool:
    """Tell a session's agents or approvers what is asked; False if the bus did not take it."""
    subject = sessions.subject(wait.run_id, channel)
    carried = cards.carried(wait.run.project_id, payload)
    # What is asked anew is news, which nobody may take for the message that they know.
    name = wait.id if wait.version == 1 else f"{wait.id}-{wait.version}"
    body = sessions.message(type, carried, id=name, run_id=wait.run_id, now=wait.opened_at)
    return outgoing.of_run(wait.run, subject, body, type)


def _answering(wait: Wait) -> Workflow | None:
    """Return the workflow of ours that answers; None if there is none, or only another server can play it now."""
    operator, capability = wait.payload["operator"], wait.payload["capability"]
    rows = Workflow.objects.select_related("operator").filter(operator__project_id=wait.run.project_id, retired=False)
    offering = Q(trigger=f"request:{capability}") | Q(spec__capability=capability)
    workflow = rows.filter(offering, operator__slug=operator).order_by("position").first()
    if workflow is None or serving.holds(workflow.operator) or serving.served(workflow.operator):
        return workflow
    return None if servers.offered(wait.run.project_id, operator, capability) else workflow


def _published(emission: Emission) -> bool:
    operator, _, kind = emission.name.partition(".")
    subject = subjects.operator_event(emission.name)
    body = {
        "version": envelope.VERSION,
        "id": emission.id,
        "timestamp": emission.emitted_at,
        "type": kind,
        "project": emission.project_id,
        "run_id": emission.run_id,
        "operator_id": operator,
        "role": "agent",
        "kind": "event",
        # Whoever listens here has it whole; the bus takes no message over its bound, however often one tries.
        "payload": cards.light(emission.project_id, emission.payload),
    }
    return outgoing.of_run(emission.run, subject, body, kind)
