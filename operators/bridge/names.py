"""What a message is known by, however often it comes: its own name for itself, else what is the same each time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from openvibe.bus import Message
from openvibe.protocol import envelope, workflow

#: As wide as the column of `Event.message_id`.
LONGEST_ID = 200
#: What a message calls itself.
OWN_IDS = ("id", "message_id", "messageId")


def of_event(message: Message, id: str) -> str:
    """Name what must become one event; too long a name is hashed, not cut, because its end is what tells it apart."""
    name = f"{message.subject}:{id}"
    return name if len(name) <= LONGEST_ID else envelope.message_id(message.subject, id)


def known_as(body: Mapping[str, Any], message: Message, *, bare: bool = False) -> str:
    """Return what a message is known by: its own id, else what its sender or its stream calls it, else its bytes.

    A `bare` body is all payload: the `id` in it is that of whatever the message is about, of which there is more to
    say. What names that, or the time, counts as the same only with everything else that it says.
    """
    if found := own(body, OWN_IDS[1:] if bare else OWN_IDS) or message.headers.get("Nats-Msg-Id"):
        return found
    told_apart = any(body.get(name) for name in (*workflow.ALIASES["sent_at"], *OWN_IDS))
    return message.position if message.position and not told_apart else digest(message)


def own(body: Mapping[str, Any], names: Sequence[str] = OWN_IDS) -> str:
    """Return what a body calls itself, or an empty text."""
    return next((body[name] for name in names if isinstance(body.get(name), str) and body[name]), "")


def digest(message: Message) -> str:
    """Return what tells a message's body from every other one."""
    return hashlib.sha256(message.data).hexdigest()[:32]
