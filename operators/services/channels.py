"""Channels that no run numbers: the general channel of a project, and the channel of each of its people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from django.db import IntegrityError, transaction
from django.db.models import F

from openvibe.protocol import subjects
from operators.models import Channel, Event
from operators.models.event import EventRow, Told
from operators.models.statements import insert
from operators.models.stroke import Change, Insert, strike


def locked(project_id: str, name: str = subjects.PUBLIC) -> Channel:
    """Return a channel's row, locked until the caller's transaction ends: whoever holds it may number events.

    Whoever needs several takes them in the order of their names.
    """
    rows = Channel.objects.select_for_update().filter(project_id=project_id, name=name)
    if (found := rows.first()) is None:
        Channel.objects.bulk_create([Channel(project_id=project_id, name=name)], ignore_conflicts=True)
        found = rows.get()
    return found


def repeat(project_id: str, name: str, copies: Sequence[EventRow]) -> list[EventRow]:
    """Write copies of runs' events into a channel, each once, and return those that were not there yet.

    They are most likely new; then it is one statement.
    """
    numbered = [Insert(Event, copies, numbered="seq")]
    change = Change(
        Channel,
        where={"project_id": project_id, "name": name},
        put={},
        add={"last_seq": len(copies)},
        counter="last_seq",
        inserts=numbered,
    )
    try:
        return list(copies) if strike(change) is not None else once(project_id, name, copies)
    except IntegrityError:
        return once(project_id, name, copies)


@transaction.atomic
def once(project_id: str, name: str, copies: Sequence[EventRow]) -> list[EventRow]:
    """Write into a channel what it does not tell yet, by `message_id`, and return that."""
    return append_new(locked(project_id, name), copies)


def append(channel: Channel, events: Sequence[EventRow]) -> list[EventRow]:
    """Number events and write them into a channel whose row the caller has locked."""
    if not events:
        return []
    for position, event in enumerate(events, start=channel.last_seq + 1):
        event.seq = position
    Channel.objects.filter(pk=channel.pk).update(last_seq=F("last_seq") + len(events))
    insert(Event, events)
    return list(events)


def append_new(channel: Channel, events: Sequence[EventRow]) -> list[EventRow]:
    """Do the same for those that are not there already, and return them."""
    ids = [event.message_id for event in events]
    rows = Event.objects.filter(project_id=channel.project_id, channel=channel.name, message_id__in=ids)
    known = set(rows.values_list("message_id", flat=True))
    return append(channel, [event for event in events if event.message_id not in known])


def copy(event: Told, channel: str) -> EventRow:
    """Return what repeats a run's event on another channel, still without a number."""
    return EventRow(
        project_id=event.project_id,
        channel=channel,
        kind=event.kind,
        run_id=event.run_id,
        node=event.node,
        step_id=event.step_id,
        actor=event.actor,
        data=content(event),
        message_id=f"{event.run_id}:{event.seq}",
        created_at=event.created_at,
    )


def content(event: Told) -> dict[str, Any]:
    """Return what an event tells."""
    data: dict[str, Any] = orjson.loads(event.data) if isinstance(event.data, bytes) else event.data
    return data


def by_project(events: Iterable[Told]) -> dict[str, list[Told]]:
    """Return events by the projects that they belong to."""
    groups: dict[str, list[Told]] = defaultdict(list)
    for event in events:
        groups[event.project_id].append(event)
    return groups
