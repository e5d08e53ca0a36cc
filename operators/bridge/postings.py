"""Writes what agents said as events: a batch in few statements, each message once, in the order of arrival."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

import orjson
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from openvibe.bus import Message
from openvibe.protocol import subjects
from openvibe.protocol.workflow import run_id
from operators.bridge import letters
from operators.bridge.dialects import Posting
from operators.bridge.letters import AWAY, Refusal
from operators.models import Channel, Event, Project, Run
from operators.models.event import EventRow
from operators.models.statements import load, present, quoted
from operators.services import agents, announcements, cards, channels, personal
from operators.services import external as runs

logger = logging.getLogger(__name__)

Heard = tuple[Message, Posting]
#: Project and name of a channel.
Place = tuple[str, str]
COLUMNS = ("project_id", "channel", "seq", "kind", "run_id", "node", "step_id", "actor", "data", "message_id",
           "created_at")  # fmt: skip


def keep(heard: Sequence[Heard]) -> None:
    """Write what was heard; if the database refuses it, one by one, so that a message it cannot take costs no other."""
    if not heard:
        return
    try:
        _keep(heard)
    except AWAY:
        raise
    except Exception as error:
        if len(heard) > 1:
            for one in heard:
                keep([one])
            return
        message, _ = heard[0]
        logger.exception("A message on %s could not be kept", message.subject)
        letters.bury(message, f"It cannot be kept: {type(error).__name__}: {error}")


def _keep(heard: Sequence[Heard]) -> None:
    known, people = _known_runs(heard), _known_people(heard)
    projects = set(Project.objects.filter(id__in={item.project for _, item in heard}).values_list("id", flat=True))
    groups: dict[Place, list[Posting]] = defaultdict(list)
    refused: list[Refusal] = []
    for message, item in heard:
        # Asked anew for each: a run may be known from its first message on.
        if reason := _unknown(item, projects, known, people):
            refused.append(Refusal(message, reason))
        else:
            groups[item.project, item.channel].append(item)
    others = {place: groups.pop(place) for place in sorted(groups) if not subjects.is_thread(place[1])}
    # Threads first: what everybody hears of a run may be the first that we hear of it.
    for place in _in_threads(groups, patiently=len(groups) == 1):
        if _in_threads({place: groups[place]}, patiently=True):
            # Deleted since it was looked up. Whoever asks again is told so.
            raise Run.DoesNotExist(_run_of(place[1]))
    for place, group in others.items():
        _aside(place, group, known)
    letters.bury_all(refused)


def _known_runs(heard: Sequence[Heard]) -> dict[str, str]:
    """Return the projects of the runs that are spoken to or of, as far as they are known."""
    ids = {_run_of(item.channel) for _, item in heard if item.channel.startswith("t_")}
    ids |= {run_id(item.project, item.external.uid) for _, item in heard if item.external}
    return dict(Run.objects.filter(id__in=ids).values_list("id", "project_id")) if ids else {}


def _known_people(heard: Sequence[Heard]) -> set[Place]:
    """Return the channels of people that are spoken on, as far as they are known."""
    asked: dict[str, set[str]] = defaultdict(set)
    for _, item in heard:
        if item.channel.startswith(subjects.PERSONAL):
            asked[item.project].add(item.channel)
    return {(project, name) for project, names in asked.items() for name in personal.owners(project, names)}


def _unknown(item: Posting, projects: set[str], known: dict[str, str], people: set[Place]) -> str:
    """Return why a message cannot be kept. The first message of an external run makes the run known."""
    if item.project not in projects:
        return f"There is no project {item.project!r}"
    if item.channel == subjects.PUBLIC or (item.project, item.channel) in people:
        return ""
    run = _run_of(item.channel)
    if item.external and run not in known:
        begun = runs.begin(item.project, item.external, traceparent=item.traceparent, passed_on=item.passed_on)
        known[begun] = item.project
    if item.channel.startswith("t_") and known.get(run) == item.project:
        return ""
    return f"Nobody knows the channel {item.channel!r}"


def _in_threads(groups: Mapping[Place, list[Posting]], *, patiently: bool) -> list[Place]:
    """Write into runs' threads, and return those whose runs somebody else holds; `patiently` waits for him instead.

    Whoever waits for one run while he holds others could wait for ever for somebody who does the same.
    """
    if not groups:
        return []
    with transaction.atomic():
        numbers, now = _locked({_run_of(channel) for _, channel in groups}, patiently=patiently), timezone.now()
        free = {place: group for place, group in groups.items() if _run_of(place[1]) in numbers}
        lines: list[EventRow] = []
        fresh = _fresh(free)
        for (_, channel), group in fresh.items():
            run = _run_of(channel)
            lines += _numbered([_row(item, run=run, at=now) for item in group], after=numbers[run])
        _write(lines)
        last = {line.run_id: line.seq for line in lines}
        with connection.cursor() as cursor:
            table = quoted(Run)
            sql = f"UPDATE {table} SET last_seq = %s, updated_at = %s, told = false WHERE id = %s"  # noqa: S608  # our own model's name
            stamp = connection.ops.adapt_datetimefield_value(now)
            cursor.executemany(sql, [(seq, stamp, run) for run, seq in last.items()])
        agents.told([item.presence for group in fresh.values() for item in group if item.presence], now=now)
    for item in (item for group in free.values() for item in group if item.ending):
        with transaction.atomic():
            runs.end(_run_of(item.channel), item.ending, reason=item.content, actor=item.actor, turn=item.turn)
    return [place for place in groups if place not in free]


def _locked(ids: set[str], *, patiently: bool) -> dict[str, int]:
    """Lock runs, so that nobody else numbers their events, and return their last numbers."""
    rows = Run.objects.filter(id__in=ids).select_for_update(skip_locked=not patiently, no_key=True)
    return dict(rows.order_by("id").values_list("id", "last_seq"))


@transaction.atomic
def _aside(place: Place, group: list[Posting], known: Mapping[str, str]) -> None:
    """Write into a channel that no run numbers."""
    channel, now = channels.locked(*place), timezone.now()
    fresh = _fresh({place: group}).get(place, [])
    rows = [_row(item, run=_spoken_of(item, known), at=now) for item in fresh]
    lines = _numbered(rows, after=channel.last_seq)
    _write(lines)
    Channel.objects.filter(pk=channel.pk).update(last_seq=F("last_seq") + len(lines))


def _spoken_of(item: Posting, known: Mapping[str, str]) -> str | None:
    found = run_id(item.project, item.external.uid) if item.external else ""
    return found if found in known else None


def _run_of(channel: str) -> str:
    return channel.removeprefix("t_")


def _fresh(groups: Mapping[Place, list[Posting]]) -> dict[Place, list[Posting]]:
    """Drop what is known already and what comes twice in this very batch."""
    first = {(*place, item.message_id): item for place, group in groups.items() for item in reversed(group)}
    known = present(Event, ("project_id", "channel", "message_id"), list(first))
    return {
        place: fresh
        for place, group in groups.items()
        if (fresh := [item for item in group if first[key := (*place, item.message_id)] is item and key not in known])
    }


def _numbered(lines: list[EventRow], *, after: int) -> list[EventRow]:
    for position, line in enumerate(lines, start=after + 1):
        line.seq = position
    return lines


def _row(item: Posting, *, run: str | None, at: datetime) -> EventRow:
    data = {"content": item.content, **item.data}
    text = orjson.dumps(data)
    return EventRow(
        project_id=item.project,
        channel=item.channel,
        kind=item.kind[:80],
        run_id=run,
        actor=item.actor[:200],
        data=text if len(text) <= cards.INLINE_LIMIT else orjson.dumps(cards.stowed(item.project, data)),
        message_id=item.message_id,
        created_at=at,
    )


def _write(lines: list[EventRow]) -> None:
    if not lines:
        return
    # A time is the same text for all of its microsecond's lines; the database need not be told of its type.
    at = connection.ops.adapt_datetimefield_value
    load(Event, COLUMNS, [
        (line.project_id, line.channel, line.seq, line.kind, line.run_id, "", "", line.actor, line.text.decode(),
         line.message_id, at(line.created_at))
        for line in lines
    ])  # fmt: skip
    transaction.on_commit(lambda: announcements.tell(lines))
