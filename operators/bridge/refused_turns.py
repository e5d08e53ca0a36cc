"""Answers turns that could not even be taken in; what is wrong with a command shows before it is kept in the inbox."""

from __future__ import annotations

from typing import Any

from openvibe.bus import Message, matches
from openvibe.protocol import commands, envelope, headers, subjects
from openvibe.protocol.envelope import Malformed
from operators.bridge import names, texts
from operators.models import InboxItem, Project
from operators.services import inbox, refusals


def tell(message: Message, reason: str, *, code: str) -> None:
    """Tell whoever asked for a turn by this message that it has failed; part of the transaction that buries it.

    Of a turn that was taken in before, its run tells how it goes, whatever is said of it later.
    """
    subject = subjects.parse(message.subject)
    if subject is None or not matches(commands.TURNS, message.subject):
        return
    project = texts.storable(subject.project)
    name = texts.storable(_name(message))
    taken = InboxItem.objects.filter(project_id=project, type=inbox.COMMAND, correlation_id=f"turn:{name}")
    if taken.exists() or not Project.objects.filter(id=project).exists():
        return
    refusals.tell(
        project,
        subject.channel,
        subject.target,
        name=name,
        code=code,
        reason=reason,
        traceparent=headers.traceparent(message.headers),
        depth=headers.depth(message.headers),
        passed_on=headers.passed_on(message.headers),
    )


def _name(message: Message) -> str:
    try:
        body: dict[str, Any] = envelope.loads(message.data)
    except Malformed:
        body = {}
    return commands.turn_name(body, names.known_as(body, message))
