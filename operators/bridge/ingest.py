"""Writes what agents said into the database: each message once, in the order of arrival, whole batches at a time."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence

from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F
from django.utils import timezone

from openvibe.bus import Message
from openvibe.protocol import subjects
from openvibe.protocol.envelope import Malformed
from operators.bridge import dialects
from operators.bridge.dialects import Posting
from operators.models import DeadLetter, Event, Project, Run
from operators.models.project import DEFAULT
from operators.services import announcements, cards, inbox
from operators.services.inbox import Inbound

logger = logging.getLogger(__name__)

Heard = tuple[Message, Posting]

#: The database is away or busy. That is no message's fault: they stay in their stream and are delivered again.
AWAY = (OperationalError, InterfaceError)


def take(messages: Sequence[Message]) -> None:
    """Keep every message, as an event or as a dead letter; when this returns they may be acknowledged."""
    try:
        groups, inbound = _sorted(messages)
        for (project, channel), group in groups.items():
            _keep(project, channel, group)
        _receive(inbound)
    finally:
        if connection.vendor != "sqlite":
            connection.close()


def _sorted(
    messages: Sequence[Message],
) -> tuple[dict[tuple[str, str], list[Heard]], list[tuple[Message, Inbound]]]:
    groups: dict[tuple[str, str], list[Heard]] = defaultdict(list)
    inbound: list[tuple[Message, Inbound]] = []
    for message in messages:
        try:
            found = dialects.read(message, project=DEFAULT)
        except Malformed as error:
            bury(message, str(error))
        except Exception as error:
            logger.exception("A message on %s could not be read", message.subject)
            bury(message, f"It cannot be read: {type(error).__name__}: {error}")
        else:
            for item in found:
                if isinstance(item, Inbound):
                    inbound.append((message, item))
                else:
                    groups[item.project, item.channel].append((message, item))
    return groups, inbound


def _receive(heard: Sequence[tuple[Message, Inbound]]) -> None:
    """Keep what may change a run, then apply it; what cannot be applied now is applied by the clock."""
    known = [(message, item) for message, item in heard if not item.run_id or inbox.knows(item.project, item.run_id)]
    for message, item in heard:
        if (message, item) not in known:
            bury(message, f"Nobody knows the session {item.run_id!r}")
    for item_id in _received(known):
        try:
            inbox.apply(item_id)
        except AWAY:
            raise
        except Exception:
            logger.exception("Inbox item %s could not be applied; the clock tries again", item_id)


def _received(heard: Sequence[tuple[Message, Inbound]]) -> list[int]:
    """Write a group; if the database refuses it, one by one, so that a message it cannot take costs no other."""
    if not heard:
        return []
    try:
        with transaction.atomic():
            return inbox.receive([item for _, item in heard])
    except AWAY:
        raise
    except Exception as error:
        if len(heard) > 1:
            return [item_id for one in heard for item_id in _received([one])]
        bury(heard[0][0], f"It cannot be kept: {type(error).__name__}: {error}")
        return []


def _keep(project: str, channel: str, group: list[Heard]) -> None:
    """Write a group; if the database refuses it, one by one, so that a message it cannot take costs no other."""
    if reason := _unknown(project, channel):
        for message, _ in group:
            bury(message, reason)
        return
    try:
        _write(project, channel, [posting for _, posting in group])
    except AWAY:
        raise
    except Exception as error:
        if len(group) > 1:
            for heard in group:
                _keep(project, channel, [heard])
            return
        message, _ = group[0]
        logger.exception("A message on %s could not be kept", message.subject)
        bury(message, f"It cannot be kept: {type(error).__name__}: {error}")


def _unknown(project: str, channel: str) -> str:
    if not Project.objects.filter(id=project).exists():
        return f"There is no project {project!r}"
    known = channel == subjects.PUBLIC or (
        channel.startswith("t_") and Run.objects.filter(id=_run_of(channel), project_id=project).exists()
    )
    return "" if known else f"Nobody knows the channel {channel!r}"


def _write(project: str, channel: str, group: list[Posting]) -> None:
    with transaction.atomic():
        if channel == subjects.PUBLIC:
            written = _publicly(project, group)
        else:
            written = _in_thread(project, channel, _run_of(channel), group)
        transaction.on_commit(lambda: announcements.tell(written) if written else None)


def _publicly(project: str, group: list[Posting]) -> list[Event]:
    channel = announcements.locked_channel(project)
    return announcements.append(channel, [_event(item) for item in _fresh(project, channel.name, group)])


def _in_thread(project: str, channel: str, run_id: str, group: list[Posting]) -> list[Event]:
    # The run's row is locked first, so that nobody numbers events between the look and the write.
    Run.objects.select_for_update().get(id=run_id)
    fresh = _fresh(project, channel, group)
    if not fresh:
        return []
    now = timezone.now()
    changed = Run.objects.filter(id=run_id).change("last_seq", last_seq=F("last_seq") + len(fresh), updated_at=now)
    assert changed is not None
    events = [_event(item, run_id=run_id) for item in fresh]
    for position, event in enumerate(events, start=changed[0] - len(fresh) + 1):
        event.seq = position
    return Event.objects.bulk_create(events)


def _run_of(channel: str) -> str:
    return channel.removeprefix("t_")


def _fresh(project: str, channel: str, group: list[Posting]) -> list[Posting]:
    """Drop what is known already and what comes twice in this very batch."""
    ids = {item.message_id for item in group}
    rows = Event.objects.filter(project_id=project, channel=channel, message_id__in=ids)
    known = set(rows.values_list("message_id", flat=True))
    first = {item.message_id: item for item in reversed(group)}
    return [item for item in group if item.message_id not in known and first[item.message_id] is item]


def _event(item: Posting, *, run_id: str | None = None) -> Event:
    return Event(
        project_id=item.project,
        channel=item.channel,
        kind=item.kind[:80],
        run_id=run_id,
        actor=item.actor[:200],
        data=cards.stowed(item.project, {"content": item.content, **item.data}),
        message_id=item.message_id,
        created_at=timezone.now(),
    )


@transaction.atomic
def bury(message: Message, reason: str) -> None:
    """Keep a message that cannot be read, whole, once, and tell the general channel."""
    subject = _storable(message.subject)
    letter, new = DeadLetter.objects.get_or_create(
        digest=hashlib.sha256(subject.encode() + b"\n" + message.data).hexdigest(),
        defaults={
            "subject": subject[:500],
            "headers": {_storable(name): _storable(value) for name, value in message.headers.items()},
            "body": message.data,
            "reason": _storable(reason),
        },
    )
    if new:
        logger.warning("Dead letter from %s: %s", subject, reason)
        _tell(letter)


def _tell(letter: DeadLetter) -> None:
    if not Project.objects.filter(id=DEFAULT).exists():
        return
    event = Event(
        project_id=DEFAULT,
        channel=subjects.PUBLIC,
        kind="error",
        data={"subject": letter.subject, "reason": letter.reason, "dead_letter": letter.pk},
        message_id=f"dead_letter:{letter.digest}",
        created_at=timezone.now(),
    )
    written = announcements.append(announcements.locked_channel(DEFAULT), [event])
    transaction.on_commit(lambda: announcements.tell(written))


def _storable(text: str) -> str:
    # What no database keeps in a text becomes a mark; the body is bytes and stays what it was.
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
