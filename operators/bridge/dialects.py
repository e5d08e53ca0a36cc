"""Foreign messages read into one form: a small table of subjects, one reader each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from openvibe.bus import Message, matches
from openvibe.protocol import envelope, headers, sessions, subjects
from openvibe.protocol.envelope import Malformed
from operators.services import inbox
from operators.services.inbox import Inbound

#: As wide as the column of `Event.message_id`.
LONGEST_ID = 200
# An escaped NUL: an odd number of backslashes before it. JSON allows no other.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True)
class Posting:
    """What an agent said, ready for the timeline. `channel` is `public` or a run's thread."""

    project: str
    channel: str
    kind: str
    message_id: str
    actor: str
    content: str
    data: dict[str, Any]


def _canonical(message: Message, project: str) -> Posting | None:
    """`cg.v1.{project}.{channel}.evt.{component}.{target}.{suffix}`; our own announcements are skipped."""
    subject = subjects.parse(message.subject)
    if subject is None:
        raise Malformed(f"{message.subject} is no subject of cg.{subjects.VERSION}")
    if subject.component == "sys":
        return None
    body = envelope.read(envelope.loads(message.data))
    return Posting(
        project=subject.project,
        channel=subject.channel,
        kind=f"agent.{body.kind or subject.suffix}",
        message_id=_message_id(message, body.id),
        actor=body.operator_id or subject.target,
        content=body.content,
        data={"role": body.role or "assistant", "payload": body.payload, "step_id": body.step_id},
    )


def _operator_event(message: Message, project: str) -> list[Posting | Inbound]:
    """`operators.{id}.events.{type}`: the subject says who and what, the body is the payload or an envelope.

    Whatever listens to the event is started, unless it is our own, whose listeners were started when it was emitted.
    """
    _, operator, _, kind = message.subject.split(".", 3)
    body = envelope.loads(message.data)
    payload = body.get("payload") if isinstance(body.get("payload"), dict) else body
    posting = Posting(
        project=project,
        channel=subjects.PUBLIC,
        kind="agent.event",
        message_id=_message_id(message, _id(body, message)),
        actor=operator,
        content=str(body.get("content") or f"{operator} emitted {kind}"),
        data={"event": kind, "payload": payload},
    )
    if message.headers.get("CG-Sender") == headers.SENDER:
        return [posting]
    told = {"name": f"{operator}.{kind.replace('.', '_')}", "payload": payload, "depth": headers.depth(message.headers)}
    return [posting, Inbound(project, inbox.EVENT, posting.message_id, "", told)]


def _general(message: Message, project: str) -> Posting:
    """`workflow.general.{kind}`: an external workflow runtime speaks to everybody."""
    body = envelope.loads(message.data)
    content = next((body[key] for key in ("content", "text", "message", "status", "error") if body.get(key)), None)
    if not isinstance(content, str):
        raise Malformed("content: a text is needed (content, text, message, status or error)")
    return Posting(
        project=project,
        channel=subjects.PUBLIC,
        kind=f"agent.{message.subject.split('.', 2)[2].replace('.', '_')}",
        message_id=_message_id(message, _id(body, message)),
        actor=str(body.get("agent_id") or body.get("agentId") or body.get("workflow_name") or "agent"),
        content=content,
        data={"role": str(body.get("role") or "assistant"), "attrs": body.get("attrs") or {}},
    )


def _session(message: Message, project: str) -> Posting | Inbound | None:
    """`sessions.{run}.results|approvals|events`, with or without a role after it; our own requests are skipped."""
    _, session, kind = message.subject.split(".", 3)[:3]
    body = envelope.loads(message.data)
    told = sessions.read(body)
    if subjects.token(told.session_id) != session:
        raise Malformed(f"session_id: {told.session_id!r} is not the session of {message.subject}")
    if kind == "events":
        return _session_event(message, project, told)
    wanted = {"results": ("result.success", "result.failure"), "approvals": ("approval.granted", "approval.rejected")}
    if told.type == "approval.request":
        return None
    if told.type not in wanted[kind]:
        raise Malformed(f"type: {told.type!r} is none of {', '.join(wanted[kind])}, which {kind} takes")
    order = inbox.RESULT if kind == "results" else inbox.APPROVAL
    name = hashlib.sha256(f"{told.session_id}\n{told.id}".encode()).hexdigest()
    return Inbound(project, order, name, told.session_id, body | {"type": told.type})


def _session_event(message: Message, project: str, told: sessions.SessionMessage) -> Posting:
    payload = told.payload
    return Posting(
        project=project,
        channel=subjects.thread(told.session_id),
        kind=f"agent.{told.type.removeprefix('event.').replace('.', '_')}",
        message_id=_message_id(message, told.id),
        actor=str(payload.get("agent_id") or "agent"),
        content=str(payload.get("content") or payload.get("message") or payload.get("error") or told.type),
        data={"role": "assistant", "payload": payload},
    )


Read = Posting | Inbound | None
Reader = Callable[[Message, str], Read | list[Posting | Inbound]]

#: Stream, subject pattern, reader: what the bridge listens to.
DIALECTS: tuple[tuple[str, str, Reader], ...] = (
    (f"cg_evt_{subjects.VERSION}", f"cg.{subjects.VERSION}.*.*.evt.agent.*.>", _canonical),
    (f"cg_evt_{subjects.VERSION}", f"cg.{subjects.VERSION}.*.*.evt.user.*.>", _canonical),
    (f"cg_evt_{subjects.VERSION}", f"cg.{subjects.VERSION}.*.*.evt.tool.*.>", _canonical),
    ("operators", "operators.*.events.>", _operator_event),
    ("agent-comms", "workflow.general.>", _general),
    *(
        ("sessions", f"sessions.*.{kind}{role}", _session)
        for kind in ("results", "approvals", "events")
        for role in ("", ".*")
    ),
)


def read(message: Message, *, project: str) -> list[Posting | Inbound]:
    """Read a message: what it adds to a timeline, and what it may change; nothing if it concerns nobody.

    `project` is the tenant of the account that the message came in by, for subjects that name none.

    Raises:
        Malformed: it cannot be read; the text says why.
    """
    for _, pattern, reader in DIALECTS:
        if matches(pattern, message.subject):
            # PostgreSQL keeps no text with a NUL in it.
            if "\0" in message.subject or _NUL.search(message.data):
                raise Malformed("The subject or the body holds a NUL character")
            found = reader(message, project)
            return found if isinstance(found, list) else [found] if found is not None else []
    return []


def _message_id(message: Message, id: str) -> str:
    """Name what must become one event; too long a name is hashed, not cut, because its end is what tells it apart."""
    name = f"{message.subject}:{id}"
    return name if len(name) <= LONGEST_ID else envelope.message_id(message.subject, id)


def _id(body: Mapping[str, Any], message: Message) -> str:
    """Return a message's own id, else a hash of its bytes: the same message twice is one event either way."""
    for key in ("id", "message_id", "messageId"):
        if isinstance(body.get(key), str) and body[key]:
            return str(body[key])
    return hashlib.sha256(message.data).hexdigest()[:32]
