"""Foreign messages read into one form: a small table of subjects, one reader each."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from django.conf import settings

from openvibe.bus import Message, matches
from openvibe.protocol import (
    actions,
    commands,
    envelope,
    headers,
    internal,
    requests,
    sessions,
    subjects,
    turns,
    workflow,
)
from openvibe.protocol.envelope import Malformed
from openvibe.protocol.subjects import Subject
from openvibe.protocol.workflow import Ending, Identity
from operators.bridge import names
from operators.bridge.texts import storable
from operators.services import actions as known_actions
from operators.services import agents, inbox
from operators.services.agents import Presence
from operators.services.inbox import Inbound

logger = logging.getLogger(__name__)

# An escaped NUL: an odd number of backslashes before it. JSON allows no other.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True)
class Posting:
    """What an agent said, ready for the timeline. `channel` is `public` or a run's thread.

    `external` is the run of a foreign runtime that it speaks of; `ending` says how that run ended, if it says so, and
    `turn` which turn of it, if it has several.
    `presence` is what it says of the agent's work in the session.
    """

    project: str
    channel: str
    kind: str
    message_id: str
    actor: str
    content: str
    data: dict[str, Any]
    external: Identity | None = None
    ending: Ending = ""
    turn: str = ""
    traceparent: str = ""
    passed_on: Mapping[str, str] = field(default_factory=dict)
    presence: Presence | None = None


def _canonical(message: Message, project: str) -> Posting | None:
    """`cg.v1.{project}.{channel}.evt.{component}.{target}.{suffix}`; our own announcements are skipped."""
    subject = _subject(message)
    if subject.component == "sys":
        return None
    body = envelope.read(_body(message))
    return Posting(
        project=subject.project,
        channel=_thread(subject),
        kind=f"agent.{body.kind or subject.suffix}",
        message_id=names.of_event(message, body.id),
        actor=body.operator_id or subject.target,
        content=body.content,
        data={"role": body.role or "assistant", "payload": body.payload, "step_id": body.step_id},
    )


def _turn(message: Message, project: str) -> Posting | None:
    """`cg.v1.{project}.{channel}.evt.agent.{agent}.step|task|state`: how a turn of an agent elsewhere goes.

    A thread that is none of ours is an external run, which the turn that began it ends.
    """
    subject = _subject(message)
    family, sender = subject.suffix, message.headers.get("CG-Sender")
    if sender == headers.SENDER and message.headers.get("CG-Msg-Type") == f"agent.{family}":
        return None
    body = _body(message)
    told = turns.read(family, body)
    # What is said of a step or a state, down to its time, is said once.
    known = "" if family == "task" else names.own(body) or names.digest(message)
    return Posting(
        project=subject.project,
        channel=_thread(subject),
        kind=f"agent.{family}",
        # However often its end is told, a turn ends once.
        message_id=names.of_event(message, known) if known else envelope.message_id("task", told.turn_id),
        actor=subject.target,
        content=str(body.get("content") or told.text),
        data={"role": "system", "payload": told.fields, "step_id": told.step_id},
        external=_external(subject, told.turn_id),
        ending=told.ending,
        turn=told.turn_id,
        traceparent=headers.traceparent(message.headers),
        passed_on=headers.passed_on(message.headers),
    )


def _subject(message: Message) -> Subject:
    subject = subjects.parse(message.subject)
    if subject is None:
        raise Malformed(f"{message.subject} is no subject of cg.{subjects.VERSION}")
    return subject


def _thread(subject: Subject) -> str:
    """Return the channel that is meant; a thread that does not name a run by our id is that of an external run."""
    foreign = _foreign(subject)
    return subjects.thread(workflow.run_id(subject.project, foreign)) if foreign else subject.channel


def _external(subject: Subject, turn_id: str) -> Identity | None:
    foreign = _foreign(subject)
    return Identity(uid=foreign, name=subject.target, run_id=turn_id) if foreign else None


def _foreign(subject: Subject) -> str:
    name = subject.channel.removeprefix("t_")
    return "" if name == subject.channel or name.startswith(turns.OURS) else name


def _operator_event(message: Message, project: str) -> list[Posting | Inbound]:
    """`operators.{id}.events.{type}`: the subject says who and what, the body is the payload or an envelope.

    Whatever listens to the event is started, unless it is our own, whose listeners were started when it was emitted.
    """
    _, operator, _, kind = message.subject.split(".", 3)
    body = _body(message)
    server, sender = settings.OPENVIBE.server, message.headers.get("CG-Sender")
    ours = sender == headers.SENDER and message.headers.get(requests.SERVER, server) == server
    depth = 0 if ours else headers.required_depth(message.headers)
    bare = not isinstance(body.get("payload"), dict)
    payload = body if bare else body["payload"]
    name = names.known_as(body, message, bare=bare)
    posting = Posting(
        project=project,
        channel=subjects.PUBLIC,
        kind="agent.event",
        message_id=names.of_event(message, name),
        actor=operator,
        content=str(body.get("content") or f"{operator} emitted {kind}"),
        data={"event": kind, "payload": payload},
    )
    if ours:
        return [posting]
    told = {
        "name": f"{operator}.{kind.replace('.', '_')}",
        "payload": payload,
        "depth": depth,
        "traceparent": headers.traceparent(message.headers),
        "passed_on": headers.passed_on(message.headers),
        # Servers that share a database each start what they serve; what two of them serve starts once.
        "message_id": name if sender == headers.SENDER else posting.message_id,
    }
    return [posting, Inbound(project, inbox.EVENT, envelope.message_id(server, posting.message_id), "", told)]


def _reply(message: Message, project: str) -> Inbound:
    """`cg.v1.{project}.t_{run}.cmd.sys.reply.{wait}`: the answer to a request that some run made."""
    body = _body(message)
    payload = body.get("payload")
    if not isinstance(payload, dict):
        raise Malformed("payload: an object with `result` or `error` is needed")
    *_, wait_id = message.subject.split(".")
    # Whoever says first that he has begun has not yet answered.
    name = envelope.message_id(wait_id, names.known_as(body, message))
    return Inbound(message.subject.split(".")[2], inbox.REPLY, name, "", {"wait_id": wait_id, "payload": payload})


def _command(message: Message, project: str) -> Inbound | None:
    """`cg.v1.{project}.{channel}.cmd.agent.{agent}.{kind}`: what goes into an agent's inbox; our own is skipped."""
    if message.headers.get("CG-Sender") == headers.SENDER:
        return None
    *_, agent, kind = message.subject.split(".")
    body = _body(message)
    return _commanded(message, kind, commands.read(kind, body, target=agent), body)


def _internal_call(message: Message, project: str) -> Inbound | None:
    """`cg.v1.{project}.{channel}.cmd.sys.pmo.internal.{tool}`: a tool of our own; other servers answer their own."""
    server = settings.OPENVIBE.server
    if message.headers.get("CG-Sender") == headers.SENDER and message.headers.get(requests.SERVER, server) != server:
        return None
    tool = message.subject.rsplit(".", 1)[1]
    if tool not in internal.TOOLS:
        raise Malformed(f"{tool!r} is no tool of ours; there are: {', '.join(internal.TOOLS)}")
    body = _body(message)
    called = commands.read(commands.INTERNAL, body, target=None, more={"tool_name": tool})
    return _commanded(message, commands.INTERNAL, called, body)


def _commanded(message: Message, kind: str, command: commands.Command, body: Mapping[str, Any]) -> Inbound:
    _, _, project, channel, *_ = message.subject.split(".")
    answer_to = message.headers.get(requests.ANSWER_TO, "")
    if answer_to and not requests.answerable(answer_to, project):
        own = requests.ANSWERS.replace("*", project, 1)
        raise Malformed(f"{requests.ANSWER_TO} is {answer_to!r:.200}; a subject like {own} is needed")
    told = commands.Received(
        kind=kind,
        id=commands.name(command, names.known_as(body, message)),
        channel=channel,
        sender=(message.headers.get("CG-Sender") or command.agent_id)[:200],
        traceparent=headers.traceparent(message.headers),
        passed_on=headers.passed_on(message.headers),
        depth=headers.required_depth(message.headers),
        answer_to=answer_to,
        fields=command.model_dump(),
    )
    run_id = turns.run_of(getattr(command, "agent_turn_id", "")) if kind in commands.ABOUT_RUNS else ""
    return Inbound(project, inbox.COMMAND, f"{kind}:{told.id}", run_id, told.model_dump())


def _action(message: Message, project: str) -> Inbound:
    """`cg.v1.{project}.{channel}.cmd.sys.ui.action`: what somebody does at a user interface."""
    subject = _subject(message)
    action = actions.read(_body(message))
    user = message.headers.get(actions.USER) or subject.channel.removeprefix("u_")
    told = {
        "action": action,
        "user": user,
        "channel": subject.channel,
        "traceparent": headers.traceparent(message.headers),
        "passed_on": headers.passed_on(message.headers),
        # What is wrong with it its acknowledgement tells.
        "depth": storable(message.headers[headers.DEPTH])[:40] if headers.DEPTH in message.headers else None,
    }
    return Inbound(subject.project, inbox.ACTION, known_actions.name(user, action["action_id"]), "", told)


def _workflow(message: Message, project: str) -> Posting:
    """`workflow.<ns>.<name>.<uid>.agent.<agent>.<kind>` and `workflow.general.<kind>`: a foreign workflow runtime."""
    body = _body(message)
    for inside in ("message", "data"):
        if isinstance(body.get(inside), dict):
            envelope.check(body[inside])
    told = workflow.read(message.subject, body, prefixes=settings.OPENVIBE.workflow_prefix)
    run_id = workflow.run_id(project, told.identity.uid)
    extras = {"step_id": told.step_id, "sent_at": told.sent_at}
    if told.general:
        # A thread's run knows what its runtime calls it.
        extras |= told.identity.names
    return Posting(
        project=project,
        channel=subjects.PUBLIC if told.general else subjects.thread(run_id),
        kind=f"agent.{told.kind}",
        message_id=names.of_event(message, told.id or names.known_as({"timestamp": told.sent_at}, message)),
        actor=told.agent,
        content=told.content,
        data={"role": told.role, "attrs": told.attrs, **{name: value for name, value in extras.items() if value}},
        external=told.identity if told.identity.uid else None,
        ending=told.ending,
        traceparent=headers.traceparent(message.headers),
        passed_on=headers.passed_on(message.headers),
    )


#: What agents and approvers may say where.
SESSION_TYPES: Mapping[str, tuple[str, ...]] = {
    "results": ("result.success", "result.failure"),
    "approvals": ("approval.granted", "approval.rejected"),
}


def _session(message: Message, project: str) -> Posting | Inbound | None:
    """`sessions.{run}.results|approvals|events`, with or without a role after it; our own words are skipped."""
    _, session, kind = message.subject.split(".", 3)[:3]
    if kind == "events" and message.headers.get("CG-Sender") == headers.SENDER:
        return None
    body = _body(message)
    told = sessions.read(body)
    if subjects.token(told.session_id) != session:
        raise Malformed(f"session_id: {told.session_id!r} is not the session of {message.subject}")
    if kind == "events":
        return _session_event(message, project, told)
    if told.type == "approval.request":
        return None
    if told.type not in SESSION_TYPES[kind]:
        raise Malformed(f"type: {told.type!r} is none of {', '.join(SESSION_TYPES[kind])}, which {kind} takes")
    order = inbox.RESULT if kind == "results" else inbox.APPROVAL
    name = hashlib.sha256(f"{told.session_id}\n{told.id}".encode()).hexdigest()
    return Inbound(project, order, name, told.session_id, body | {"type": told.type, "payload": told.payload})


def _session_event(message: Message, project: str, told: sessions.SessionMessage) -> Posting:
    payload = told.payload
    return Posting(
        project=project,
        channel=subjects.thread(told.session_id),
        kind=f"agent.{told.type.removeprefix('event.').replace('.', '_')}",
        message_id=names.of_event(message, told.id),
        actor=str(payload.get("agent_id") or "agent"),
        content=str(payload.get("content") or payload.get("message") or payload.get("error") or told.type),
        data={"role": "assistant", "payload": payload},
        presence=_presence(told, project),
    )


def _presence(told: sessions.SessionMessage, project: str) -> Presence | None:
    if told.type not in (agents.STARTED, agents.STOPPED):
        return None
    texts = {name: str(told.payload.get(name) or "") for name in ("role", "container_id", "reason")}
    agent = told.payload["agent_id"]
    return Presence(project, told.session_id, told.type, agent, at=told.timestamp, **texts)


Read = Posting | Inbound | None
Reader = Callable[[Message, str], Read | list[Posting | Inbound]]

#: Subject pattern and reader; what the streams' durable readers hand out fits one of them.
DIALECTS: tuple[tuple[str, Reader], ...] = (
    *((f"cg.{subjects.VERSION}.*.*.evt.agent.*.{family}", _turn) for family in turns.FAMILIES),
    *((f"cg.{subjects.VERSION}.*.*.evt.{component}.*.>", _canonical) for component in ("agent", "user", "tool")),
    ("operators.*.events.>", _operator_event),
    (requests.ANSWERS, _reply),
    *((pattern, _command) for pattern in commands.PATTERNS),
    (actions.PATTERN, _action),
    (internal.PATTERN, _internal_call),
    *((f"sessions.*.{kind}{role}", _session) for kind in ("results", "approvals", "events") for role in ("", ".*")),
)


def read(message: Message, *, project: str) -> list[Posting | Inbound]:
    """Read a message: what it adds to a timeline, and what it may change; nothing if it concerns nobody.

    `project` is the tenant of the account that the message came in by, for subjects that name none.

    Raises:
        Malformed: it cannot be read; the text says why.
    """
    reader = _reader(message.subject, settings.OPENVIBE.workflow_prefix)
    if reader is None:
        return []
    # PostgreSQL keeps no text with a NUL in it.
    if "\0" in message.subject or (b"\\u0000" in message.data and _NUL.search(message.data)):
        raise Malformed("The subject or the body holds a NUL character")
    found = reader(message, project)
    return found if isinstance(found, list) else [found] if found is not None else []


def known(subject: str) -> bool:
    """Tell whether what comes on a subject is read at all."""
    return _reader(subject, settings.OPENVIBE.workflow_prefix) is not None


# An agent speaks often on one subject.
@lru_cache(maxsize=4096)
def _reader(subject: str, prefixes: tuple[str, ...]) -> Reader | None:
    foreign = tuple((f"{prefix}.>", _workflow) for prefix in prefixes)
    return next((reader for pattern, reader in (*DIALECTS, *foreign) if matches(pattern, subject)), None)


def _body(message: Message) -> dict[str, Any]:
    body = envelope.received(message.data)
    if misplaced := headers.misplaced(body):
        logger.warning("A message on %s has %s in its body; it counts in headers only", message.subject, misplaced)
    # The types of other dialects are whoever's sends them, or are looked at there.
    envelope.check(body, typed=message.subject.startswith("cg."))
    return body
