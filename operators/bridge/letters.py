"""Dead letters: what cannot be read or kept stays whole, once, with the reason, and the general channel is told."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import InterfaceError, InternalError, OperationalError, transaction
from django.utils import timezone

from openvibe.bus import Message
from openvibe.protocol import subjects
from operators.bridge import faults
from operators.models import DeadLetter, Project
from operators.models.event import EventRow
from operators.models.project import DEFAULT
from operators.services import announcements

logger = logging.getLogger(__name__)

#: The database is away or busy. That is no message's fault: they stay in their stream and are delivered again.
AWAY = (OperationalError, InterfaceError, InternalError)


@dataclass(frozen=True)
class Refusal:
    """A message that becomes a dead letter. `code` is the rule of the protocol that it breaks, if one.

    `malformed` says that whoever sent it is to blame: its session, if it has one, is told.
    """

    message: Message
    reason: str
    code: str = ""
    malformed: bool = False

    @property
    def told(self) -> str:
        """The whole reason, fit for a database."""
        return storable(f"{self.code}: {self.reason}" if self.code else self.reason)


def bury(message: Message, reason: str, *, code: str = "", malformed: bool = False) -> None:
    """Keep one message that cannot be read."""
    bury_all([Refusal(message, reason, code, malformed)])


@transaction.atomic
def bury_all(refusals: Sequence[Refusal]) -> None:
    """Keep messages that cannot be read, each whole and once, and tell the general channel of those that are new."""
    if not refusals:
        return
    refused = {digest(item.message): item for item in refusals}
    told = Project.objects.filter(id=DEFAULT).exists()
    # Whoever holds the channel is the only one who buries.
    channel = announcements.locked_channel(DEFAULT) if told else None
    known = set(DeadLetter.objects.filter(digest__in=refused).values_list("digest", flat=True))
    rows = [_letter(digest, item) for digest, item in refused.items() if digest not in known]
    DeadLetter.objects.bulk_create(rows, ignore_conflicts=True)
    # What was read meanwhile and is refused again is a dead letter again.
    for again in known:
        DeadLetter.objects.filter(digest=again).update(reason=refused[again].told, replayed_at=None)
    fresh = DeadLetter.objects.filter(digest__in=[row.digest for row in rows]).order_by("pk")
    if channel is not None and rows:
        events = [_event(letter, refused[letter.digest].code) for letter in fresh]
        written = announcements.append(channel, events)
        transaction.on_commit(lambda: announcements.tell(written))
    for letter in fresh if any(item.malformed for item in refusals) else ():
        if (refusal := refused[letter.digest]).malformed:
            faults.tell(letter, refusal.message, code=refusal.code)


def digest(message: Message) -> str:
    """Return what tells a message from every other one."""
    return hashlib.sha256(storable(message.subject).encode() + b"\n" + message.data).hexdigest()


def storable(text: str) -> str:
    """Return a text as a database keeps it: what none keeps in a text becomes a mark."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _letter(digest: str, refusal: Refusal) -> DeadLetter:
    message = refusal.message
    logger.warning("Dead letter from %s: %s", storable(message.subject), refusal.told)
    return DeadLetter(
        digest=digest,
        subject=storable(message.subject)[:500],
        headers={storable(name): storable(value) for name, value in message.headers.items()},
        # The body is bytes and stays what it was.
        body=message.data,
        reason=refusal.told,
        received_at=timezone.now(),
    )


def _event(letter: DeadLetter, code: str) -> EventRow:
    return EventRow(
        run_id=None,
        project_id=DEFAULT,
        channel=subjects.PUBLIC,
        kind="error",
        data={
            "subject": letter.subject,
            "reason": letter.reason,
            "dead_letter": letter.pk,
            **({"code": code} if code else {}),
        },
        message_id=f"dead_letter:{letter.digest}",
        created_at=timezone.now(),
    )
