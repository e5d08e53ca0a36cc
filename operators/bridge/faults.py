"""Tells a session of a message that could not be read: recorded on its thread, and published as `event.error`."""

from __future__ import annotations

from typing import Any

from openvibe.bus import Message, matches
from openvibe.events import Event as Fact
from openvibe.protocol import envelope, headers, sessions, tenancy
from openvibe.protocol.envelope import Malformed
from operators.models import DeadLetter, Project, Run
from operators.services import notices, timeline

SESSIONS = "sessions.>"
MALFORMED = "malformed"


def tell(letter: DeadLetter, message: Message, *, code: str) -> None:
    """Do it for a letter that is new; part of the transaction that keeps it. Letters of other dialects tell nobody."""
    project, subject = tenancy.inward(message.subject)
    if not (matches(SESSIONS, subject) or subject == sessions.HEALTH):
        return
    if not Project.objects.filter(id=project).exists():
        # It belongs to nobody whose agents could be told.
        return
    session = sessions.SYSTEM if subject == sessions.HEALTH else subject.split(".")[1]
    run = Run.objects.filter(id=session, project_id=project).first()
    payload = {
        "error": letter.reason,
        "code": code or MALFORMED,
        "subject": letter.subject,
        "dead_letter": letter.pk,
        **_named(message),
    }
    if run is not None:
        data = {"content": letter.reason, "role": "system", "payload": payload}
        timeline.note(run.id, Fact("agent.error", data=data), actor=headers.SENDER)
    # The same on every server that reads the message: a stream keeps one of them.
    name = f"error_{letter.digest}"
    notices.write("event.error", payload, project_id=project, session_id=session, id=name, run=run)


def _named(message: Message) -> dict[str, str]:
    """Return what the message calls itself, as far as that can be read."""
    try:
        body: dict[str, Any] = envelope.loads(message.data)
    except Malformed:
        return {}
    found = {"message_id": body.get("id"), "message_type": body.get("type")}
    return {name: value[:200].replace("\0", "") for name, value in found.items() if isinstance(value, str)}
