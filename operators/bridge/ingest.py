"""Writes what agents said into the database: each message once, in the order of arrival, whole batches at a time."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence

from django.db import InterfaceError, InternalError, OperationalError, connection, transaction
from django.db.models import F
from django.utils import timezone

from openvibe.bus import Message
from openvibe.protocol import subjects
from openvibe.protocol.envelope import Malformed
from openvibe.protocol.workflow import run_id
from operators.bridge import dialects
from operators.bridge.dialects import Posting
from operators.models import DeadLetter, Event, Project, Run
from operators.models.project import DEFAULT
from operators.services import announcements, cards, inbox
from operators.services import external as runs
from operators.services.inbox import Inbound

logger = logging.getLogger(__name__)

Heard = tuple[Message, Posting]

#: The database is away or busy. That is no message's fault: they stay in their stream and are delivered again.
AWAY = (OperationalError, InterfaceError, InternalError)
#: After how many deliveries a message that we fail at becomes a dead letter.
MOST_DELIVERIES = 10


def take(messages: Sequence[Message]) -> Sequence[Message]:
    """Keep messages, each as an event or as a dead letter, so that they may be acknowledged.

    Returns those at which we failed: they are to be delivered again, and become dead letters in the end.
    """
    try:
        return _taken(messages)
    finally:
        if connection.vendor != "sqlite":
            connection.close()


def _taken(messages: Sequence[Message]) -> Sequence[Message]:
    try:
        _take(messages)
    except AWAY:
        raise
    except Exception as error:
        if len(messages) > 1:
            # One of them is to blame, and must not hold the others up.
            return [again for message in messages for again in _taken([message])]
        message = messages[0]
        logger.exception("A message on %s could not be dealt with (delivery %s)", message.subject, message.deliveries)
        if message.deliveries < MOST_DELIVERIES:
            return messages
        bury(message, f"It failed {message.deliveries} times, at last so: {type(error).__name__}: {error}")
    return []


def _take(messages: Sequence[Message]) -> None:
    groups, inbound = _sorted(messages)
    # Threads first: what everybody hears of a run may be the first that we hear of it.
    for project, channel in sorted(groups, key=lambda place: place[1] == subjects.PUBLIC):
        _keep(project, channel, groups[project, channel])
    _receive(inbound)


@transaction.atomic
def replay(letter: DeadLetter) -> bool:
    """Deal with a dead letter's message once more; True if it is what it should be now, else the letter stays."""
    message = Message(letter.subject, bytes(letter.body), letter.headers)
    if _digest(message) != letter.digest:
        # Its subject is too long for the column, and not known whole.
        return False
    DeadLetter.objects.filter(pk=letter.pk).update(replayed_at=timezone.now())
    if _taken([message]):
        DeadLetter.objects.filter(pk=letter.pk).update(replayed_at=None)
    letter.refresh_from_db()
    return letter.replayed_at is not None


def _sorted(
    messages: Sequence[Message],
) -> tuple[dict[tuple[str, str], list[Heard]], list[tuple[Message, Inbound]]]:
    groups: dict[tuple[str, str], list[Heard]] = defaultdict(list)
    inbound: list[tuple[Message, Inbound]] = []
    for message in messages:
        try:
            found = dialects.read(message, project=DEFAULT)
        except Malformed as error:
            bury(message, str(error), code=error.code)
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
    try:
        external = group[0][1].external if channel != subjects.PUBLIC else None
        if external and Project.objects.filter(id=project).exists():
            runs.begin(project, external, traceparent=group[0][1].traceparent)
        if reason := _unknown(project, channel):
            for message, _ in group:
                bury(message, reason)
            return
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
        for item in group:
            if item.ending and channel != subjects.PUBLIC:
                runs.end(_run_of(channel), item.ending, reason=item.content, actor=item.actor)


def _publicly(project: str, group: list[Posting]) -> list[Event]:
    channel = announcements.locked_channel(project)
    fresh = _fresh(project, channel.name, group)
    spoken_of = {run_id(project, item.external.uid) for item in fresh if item.external}
    known = set(Run.objects.filter(id__in=spoken_of).values_list("id", flat=True)) if spoken_of else set()
    return announcements.append(channel, [_event(item, run=_known(item, known)) for item in fresh])


def _known(item: Posting, runs: set[str]) -> str | None:
    found = run_id(item.project, item.external.uid) if item.external else ""
    return found if found in runs else None


def _in_thread(project: str, channel: str, run: str, group: list[Posting]) -> list[Event]:
    # The run's row is locked first, so that nobody numbers events between the look and the write.
    Run.objects.select_for_update().get(id=run)
    fresh = _fresh(project, channel, group)
    if not fresh:
        return []
    now = timezone.now()
    changed = Run.objects.filter(id=run).change("last_seq", last_seq=F("last_seq") + len(fresh), updated_at=now)
    assert changed is not None
    events = [_event(item, run=run) for item in fresh]
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


def _event(item: Posting, *, run: str | None = None) -> Event:
    return Event(
        project_id=item.project,
        channel=item.channel,
        kind=item.kind[:80],
        run_id=run,
        actor=item.actor[:200],
        data=cards.stowed(item.project, {"content": item.content, **item.data}),
        message_id=item.message_id,
        created_at=timezone.now(),
    )


@transaction.atomic
def bury(message: Message, reason: str, *, code: str = "") -> None:
    """Keep a message that cannot be read, whole, once, and tell the general channel."""
    subject = _storable(message.subject)
    reason = f"{code}: {reason}" if code else reason
    letter, new = DeadLetter.objects.get_or_create(
        digest=_digest(message),
        defaults={
            "subject": subject[:500],
            "headers": {_storable(name): _storable(value) for name, value in message.headers.items()},
            "body": message.data,
            "reason": _storable(reason),
        },
    )
    if new:
        logger.warning("Dead letter from %s: %s", subject, reason)
        _tell(letter, code)
    else:
        # What was read meanwhile and is refused again is a dead letter again.
        DeadLetter.objects.filter(pk=letter.pk).update(reason=_storable(reason), replayed_at=None)


def _digest(message: Message) -> str:
    return hashlib.sha256(_storable(message.subject).encode() + b"\n" + message.data).hexdigest()


def _tell(letter: DeadLetter, code: str) -> None:
    if not Project.objects.filter(id=DEFAULT).exists():
        return
    event = Event(
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
    written = announcements.append(announcements.locked_channel(DEFAULT), [event])
    transaction.on_commit(lambda: announcements.tell(written))


def _storable(text: str) -> str:
    # What no database keeps in a text becomes a mark; the body is bytes and stays what it was.
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
