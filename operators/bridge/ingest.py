"""Writes what agents said into the database: each message once, in the order of arrival, whole batches at a time."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence

from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from openvibe.bus import Message
from openvibe.protocol import subjects
from openvibe.protocol.envelope import Malformed
from operators.bridge import dialects
from operators.bridge.dialects import Posting
from operators.models import DeadLetter, Event, Project, Run
from operators.models.project import DEFAULT
from operators.services import announcements, cards

logger = logging.getLogger(__name__)


def take(messages: Sequence[Message]) -> None:
    """Keep every message, as an event or as a dead letter; when this returns they may be acknowledged."""
    postings: dict[tuple[str, str], list[Posting]] = defaultdict(list)
    for message in messages:
        try:
            posting = dialects.read(message, project=DEFAULT)
        except Malformed as error:
            bury(message, str(error))
            continue
        if posting is not None:
            postings[posting.project, posting.channel].append(posting)
    for (project, channel), group in postings.items():
        _write(project, channel, group)
    if connection.vendor != "sqlite":
        connection.close()


def _write(project: str, channel: str, group: list[Posting]) -> None:
    if not Project.objects.filter(id=project).exists():
        for posting in group:
            _bury_posting(posting, f"There is no project {project!r}")
        return
    with transaction.atomic():
        if channel == subjects.PUBLIC:
            written = _publicly(project, group)
        elif run_id := _run_of(project, channel):
            written = _in_thread(project, channel, run_id, group)
        else:
            for posting in group:
                _bury_posting(posting, f"Nobody knows the channel {channel!r}")
            return
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


def _run_of(project: str, channel: str) -> str | None:
    run_id = channel.removeprefix("t_")
    exists = channel.startswith("t_") and Run.objects.filter(id=run_id, project_id=project).exists()
    return run_id if exists else None


def _fresh(project: str, channel: str, group: list[Posting]) -> list[Posting]:
    """Drop what is known already and what comes twice in this very batch."""
    ids = {item.message_id[:200] for item in group}
    rows = Event.objects.filter(project_id=project, channel=channel, message_id__in=ids)
    known = set(rows.values_list("message_id", flat=True))
    first = {item.message_id[:200]: item for item in reversed(group)}
    return [item for item in group if item.message_id[:200] not in known and first[item.message_id[:200]] is item]


def _event(item: Posting, *, run_id: str | None = None) -> Event:
    return Event(
        project_id=item.project,
        channel=item.channel,
        kind=item.kind[:80],
        run_id=run_id,
        actor=item.actor[:200],
        data=cards.stowed(item.project, {"content": item.content, **item.data}),
        message_id=item.message_id[:200],
        created_at=timezone.now(),
    )


def bury(message: Message, reason: str) -> None:
    """Keep a message that cannot be read, whole, once."""
    digest = hashlib.sha256(message.subject.encode() + b"\n" + message.data).hexdigest()
    letter = DeadLetter(
        subject=message.subject[:500], headers=dict(message.headers), body=message.data, reason=reason, digest=digest
    )
    DeadLetter.objects.bulk_create([letter], ignore_conflicts=True)
    logger.warning("Dead letter from %s: %s", message.subject, reason)


def _bury_posting(posting: Posting, reason: str) -> None:
    body = posting.content.encode()
    bury(Message(posting.message_id.rpartition(":")[0], body), reason)
