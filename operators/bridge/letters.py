"""Dead letters: what cannot be read or kept stays whole, once, with the reason, and its project's channel is told."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from django.db import InterfaceError, InternalError, OperationalError, transaction
from django.utils import timezone

from openvibe.bus import Message
from openvibe.protocol import subjects, tenancy
from operators.bridge import faults, refused_turns
from operators.bridge.texts import storable
from operators.models import Channel, DeadLetter, Project
from operators.models.event import EventRow
from operators.models.project import DEFAULT
from operators.services import announcements, channels

logger = logging.getLogger(__name__)

#: The database is away or busy. That is no message's fault: they stay in their stream and are delivered again.
AWAY = (OperationalError, InterfaceError, InternalError)
#: Headers that another copy of the same message may have otherwise, as may any that NATS adds: when and in which trace
#: it was sent. Of NATS's own only the name counts, which the sender gives.
OF_A_COPY = frozenset({"CG-Timestamp", "traceparent", "tracestate"})
NAME = "Nats-Msg-Id"


@dataclass(frozen=True)
class Refusal:
    """A message that becomes a dead letter. `code` is the rule of the protocol that it breaks, if one.

    `malformed` says that whoever sent it is to blame: its session, if it has one, is told. `project` is whose the
    message is, where its subject does not say so.
    """

    message: Message
    reason: str
    code: str = ""
    malformed: bool = False
    project: str = ""

    @property
    def owner(self) -> str:
        """Whose the message is: what its subject says, if that is not known otherwise."""
        return self.project or tenancy.owner(self.message.subject)

    @property
    def told(self) -> str:
        """The whole reason, fit for a database."""
        return storable(f"{self.code}: {self.reason}" if self.code else self.reason)


def bury(message: Message, reason: str, *, code: str = "", malformed: bool = False, project: str = "") -> None:
    """Keep one message that cannot be read."""
    bury_all([Refusal(message, reason, code, malformed, project)])


def bury_all(refusals: Sequence[Refusal]) -> None:
    """Keep messages that cannot be read, each whole and once, and tell their projects of those that are new.

    What is of no project that there is concerns whoever runs the server: `default` is told.
    """
    # On SQLite a transaction is the one lock for all.
    if refusals:
        _bury(refusals)


@transaction.atomic
def _bury(refusals: Sequence[Refusal]) -> None:
    refused = {digest(item.message): item for item in refusals}
    # Whoever holds a project's channel is the only one who buries there; everybody takes them in the same order.
    projects = set(
        Project.objects.filter(id__in={DEFAULT, *(item.owner for item in refusals)}).values_list("id", flat=True)
    )
    owners = {name: item.owner if item.owner in projects else DEFAULT for name, item in refused.items()}
    places = [channels.locked(name) for name in sorted(projects & set(owners.values()))]
    known = set(DeadLetter.objects.filter(digest__in=refused).values_list("digest", flat=True))
    rows = [_letter(digest, item) for digest, item in refused.items() if digest not in known]
    DeadLetter.objects.bulk_create(rows, ignore_conflicts=True)
    # What was read meanwhile and is refused again is a dead letter again.
    for again in known:
        DeadLetter.objects.filter(digest=again).update(reason=refused[again].told, replayed_at=None)
    fresh = list(DeadLetter.objects.filter(digest__in=[row.digest for row in rows]).order_by("pk"))
    for channel in places:
        _tell(
            channel,
            [(letter, refused[letter.digest].code) for letter in fresh if owners[letter.digest] == channel.project_id],
        )
    for letter in fresh:
        _answer(letter, refused[letter.digest])


def _answer(letter: DeadLetter, refusal: Refusal) -> None:
    message, fault = refusal.message, "protocol_violation" if refusal.malformed else "internal_error"
    if refusal.malformed:
        faults.tell(letter, message, code=refusal.code)
    refused_turns.tell(message, refusal.reason, code=refusal.code or fault)


def _tell(channel: Channel, buried: Sequence[tuple[DeadLetter, str]]) -> None:
    if buried:
        written = channels.append(channel, [_event(channel.project_id, letter, code) for letter, code in buried])
        transaction.on_commit(lambda: announcements.tell(written))


def digest(message: Message) -> str:
    """Return what tells a message from every other one: its subject, its body, and those headers that say something."""
    said = sorted(item for item in _headers(message).items() if _says_something(item[0]))
    return hashlib.sha256(orjson.dumps([storable(message.subject), said]) + b"\n" + message.data).hexdigest()


def _says_something(header: str) -> bool:
    return header == NAME or not (header in OF_A_COPY or header.startswith("Nats-"))


def _headers(message: Message) -> dict[str, str]:
    return {storable(name): storable(value) for name, value in message.headers.items()}


def _letter(digest: str, refusal: Refusal) -> DeadLetter:
    message = refusal.message
    logger.warning("Dead letter from %s: %s", storable(message.subject), refusal.told)
    return DeadLetter(
        digest=digest,
        subject=storable(message.subject),
        headers=_headers(message),
        # The body is bytes and stays what it was.
        body=message.data,
        reason=refusal.told,
        received_at=timezone.now(),
    )


def _event(project_id: str, letter: DeadLetter, code: str) -> EventRow:
    return EventRow(
        run_id=None,
        project_id=project_id,
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
