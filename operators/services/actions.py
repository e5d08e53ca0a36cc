"""Actions that user interfaces send over NATS: each done once, with the rights of the user whom it names, if at all.

A project says which tools they may use there (`Project.ui_allowed`); none, unless somebody says so.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.utils import timezone

from openvibe.errors import BusError
from openvibe.protocol import actions, envelope, headers, subjects
from openvibe.protocol.envelope import Malformed
from operators.errors import AgentBusy, DomainError, Unknown
from operators.link import link
from operators.models import InboxItem, Operator, Project, Run, Wait
from operators.services import cards, intake, waits

logger = logging.getLogger(__name__)

#: How long the bus may take to keep an acknowledgement, in seconds. Whoever hears none sends the action again.
PATIENCE = 5.0
#: The type of the inbox item that keeps a `message_id` for the first action that bears it.
MESSAGE = "ui.message"
_ACK = "ack"


class _Refused(Exception):
    """The action is not done; `code` says why to programs."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


def name(user: str, action_id: str) -> str:
    """Return what an action is known by; one user cannot take another's ids."""
    return hashlib.sha256(f"{user}\n{action_id}".encode()).hexdigest()


def accept(item: InboxItem) -> None:
    """Tell that an action is kept and is being done; outside of any transaction, because the bus may be slow."""
    _tell(item, {"status": "accepted"})


def apply(item: InboxItem) -> None:
    """Do an action and keep what became of it; part of the caller's transaction, after which it is told."""
    ack = _first_with_its_message(item) or _outcome(item)
    InboxItem.objects.filter(pk=item.pk).update(body={**item.body, _ACK: ack})
    transaction.on_commit(lambda: _tell(item, ack))


def again(item: InboxItem) -> None:
    """Answer an action that came before: with what became of it or, while that is open, that it is being done."""
    broken = {"status": "rejected", "error_code": "internal_error", "error": "OpenVibe failed at this action"}
    busy = {"status": "busy", "error_code": "idempotency_inflight", "error": "This action is being done"}
    _tell(item, item.body.get(_ACK) or (broken if item.status == item.Status.ERROR else busy))


def _first_with_its_message(item: InboxItem) -> dict[str, Any] | None:
    """Return what became of an earlier action that bears the same `message_id`, if there is one."""
    message_id = item.body["action"].get("message_id")
    if not message_id:
        return None
    key = {"project_id": item.project_id, "type": MESSAGE}
    key["correlation_id"] = name(item.body["user"], str(message_id))
    now = timezone.now()
    row = InboxItem(**key, body={"action": item.pk}, status=item.Status.CONSUMED, received_at=now, changed_at=now)
    InboxItem.objects.bulk_create([row], ignore_conflicts=True)
    first = InboxItem.objects.get(**key).body["action"]
    if first == item.pk:
        return None
    earlier = InboxItem.objects.filter(pk=first).first()
    ack: dict[str, Any] | None = earlier.body.get(_ACK) if earlier else None
    return ack or {"status": "busy", "error_code": "idempotency_inflight", "error": "This message is being dealt with"}


def _outcome(item: InboxItem) -> dict[str, Any]:
    try:
        result = _done(item)
    except _Refused as refused:
        return {"status": "rejected", "error_code": refused.code, "error": refused.reason}
    except DomainError as error:
        status = "busy" if isinstance(error, AgentBusy) else "rejected"
        return {"status": status, "error_code": error.code, "error": str(error)}
    card = cards.keep(item.project_id, result, orjson.dumps(result))
    return {"status": "done", "tool_result_card_id": card["card"]}


def _done(item: InboxItem) -> dict[str, Any]:
    project_id = item.project_id
    username, channel, action = item.body["user"], item.body["channel"], item.body["action"]
    missing = [field for field in actions.REQUIRED if action.get(field) in (None, "")]
    if missing:
        raise _Refused("missing_required_fields", f"{', '.join(missing)}: cmd.sys.ui.action needs it")
    for field in ("args", "metadata"):
        if not isinstance(action.get(field, {}), dict):
            raise _Refused(f"invalid_{field}", f"{field}: an object is needed")
    if channel.startswith(subjects.PERSONAL) and channel != subjects.personal(username):
        raise _Refused("invalid_worker_target", f"On the channel {channel!r} acts its own user, and not {username!r}")
    _depth(item)
    user = _user(username, str(action["agent_id"]))
    tool = TOOLS.get(str(action["tool_name"]))
    if tool is None:
        raise _Refused("tool_definition_missing", f"There is no tool {action['tool_name']!r}; use {', '.join(TOOLS)}")
    project = Project.objects.get(id=project_id)
    if str(action["tool_name"]) not in project.ui_allowed.split():
        raise _Refused("ui_not_allowed", f"The project {project_id!r} lets user interfaces not {action['tool_name']}")
    return tool(project, user, action["args"], item)


def _user(username: str, agent_id: str) -> AbstractUser:
    """Return whose rights count. A user interface's agent is `ui_<user>`, or `ui_<user>_<session>`."""
    user = get_user_model().objects.filter(username=username, is_active=True).first() if username else None
    if user is None:
        raise _Refused("agent_not_found", f"There is no user {username!r}; {actions.USER} names who acts")
    if agent_id != f"ui_{username}" and not agent_id.startswith(f"ui_{username}_"):
        raise _Refused("invalid_worker_target", f"{agent_id!r} is no user interface of {username!r}: ui_{username}")
    return user


def _depth(item: InboxItem) -> int:
    """Return how deep a run stands that this action starts, or lets try again.

    Who says nothing of it stands nowhere, as people do.
    """
    told = item.body.get("depth")
    try:
        return 0 if told is None else headers.required_depth({headers.DEPTH: told}) + 1
    except Malformed as error:
        raise _Refused(error.code, str(error)) from error


def _start(project: Project, user: AbstractUser, args: Mapping[str, Any], item: InboxItem) -> dict[str, Any]:
    operator = Operator.objects.operable_by(user).filter(project=project, slug=_text(args, "operator")).first()
    if operator is None:
        raise Unknown(f"There is no operator {args['operator']!r} that {user} may start")
    given = args.get("input", {})
    if not isinstance(given, dict):
        raise _Refused("invalid_args", "input: an object is needed")
    at_once = args.get("at_once", False)
    if not isinstance(at_once, bool):
        raise _Refused("invalid_args", "at_once: true or false is needed")
    workflow, key = intake.workflow_of(operator, _text(args, "trigger")), f"ui:{item.correlation_id}"
    trace, passed_on = item.body["traceparent"], item.body.get("passed_on", {})
    run = intake.request(
        workflow, input=given, actor=user, key=key,
        depth=_depth(item), traceparent=trace, passed_on=passed_on, at_once=at_once,
    )  # fmt: skip
    return {"run_id": run.id, "status": run.status}


def _cancel(project: Project, user: AbstractUser, args: Mapping[str, Any], item: InboxItem) -> dict[str, Any]:
    run = intake.cancel(_run(project, user, args), actor=user, reason=str(args.get("reason", "")))
    return {"run_id": run.id, "status": run.status}


def _retry(project: Project, user: AbstractUser, args: Mapping[str, Any], item: InboxItem) -> dict[str, Any]:
    run = intake.retry(_run(project, user, args), actor=user, depth=_depth(item))
    return {"run_id": run.id, "status": run.status}


def _approve(project: Project, user: AbstractUser, args: Mapping[str, Any], item: InboxItem) -> dict[str, Any]:
    return _answer(project, user, {**args, "decision": "approve"}, item)


def _answer(project: Project, user: AbstractUser, args: Mapping[str, Any], item: InboxItem) -> dict[str, Any]:
    rows = Wait.objects.gates().filter(run__in=Run.objects.operable_by(user).filter(project=project))
    gate = rows.select_related("run").filter(id=_text(args, "wait_id")).first()
    if gate is None:
        raise Unknown(f"There is no gate {args['wait_id']!r} at which {user} may decide")
    given = waits.Answer(
        _text(args, "decision"),
        notes=str(args.get("notes", "")),
        values=args.get("values"),
        version=args.get("version"),
        payload_sha256=args.get("payload_sha256"),
    )
    waits.answer(gate, given, actor=user)
    return {"run_id": gate.run_id, "wait_id": gate.id, "decision": gate.decision}


def _run(project: Project, user: AbstractUser, args: Mapping[str, Any]) -> Run:
    run_id = _text(args, "run_id")
    run = (
        Run.objects.operable_by(user).select_related("operator", "workflow").filter(project=project, id=run_id).first()
    )
    if run is None:
        raise Unknown(f"There is no run {run_id!r} that {user} may change")
    return run


def _text(args: Mapping[str, Any], field: str) -> str:
    if not isinstance(args.get(field), str) or not args[field]:
        raise _Refused("invalid_args", f"{field}: a text is needed")
    return str(args[field])


#: What user interfaces may do, where their project lets them.
TOOLS: dict[str, Callable[[Project, AbstractUser, Mapping[str, Any], InboxItem], dict[str, Any]]] = {
    "start": _start,
    "cancel": _cancel,
    "retry": _retry,
    "approve": _approve,
    "answer": _answer,
}


def _tell(item: InboxItem, ack: Mapping[str, Any]) -> None:
    body, action = item.body, item.body["action"]
    subject = actions.ack_subject(item.project_id, body["channel"])
    told = {name: action[name] for name in ("action_id", "agent_id", "message_id") if action.get(name)} | dict(ack)
    known = f"{item.correlation_id}:{ack['status']}"
    message = {
        "version": envelope.VERSION,
        "id": known,
        "timestamp": timezone.now(),
        "type": "ui.action_ack",
        "project": item.project_id,
        "channel": body["channel"],
        "agent_id": "",
        **told,
        "payload": told,
    }
    stamps = headers.stamped(
        "ui.action_ack",
        message_id=envelope.message_id(subject, known),
        traceparent=body["traceparent"],
        depth=headers.depth({headers.DEPTH: body.get("depth") or ""}),
        passed_on=body.get("passed_on", {}),
    )
    try:
        link.submit(link.store(subject, envelope.dumps(message), stamps)).result(PATIENCE)
    except (BusError, TimeoutError) as error:
        logger.info("Action %s is not acknowledged: %s", action["action_id"], error)
