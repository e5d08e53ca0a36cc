"""What arrives at the webhook door: events, and the run that each one starts in each workflow that waits for it."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db import transaction

from openvibe import canonical
from operators.errors import Misfit, Unknown
from operators.models import Run, Workflow
from operators.services import intake

#: Events in one body; HubSpot sends no more.
MOST_EVENTS = 100
PREFIX = "webhook:"
LONGEST_KEY = Run._meta.get_field("key").max_length or 0


@dataclass(frozen=True)
class Occurrence:
    """One event as its sender tells it. `id` is the sender's or, without one, the hash of the event."""

    id: str
    kind: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Start:
    """One run that an event asks for."""

    event_id: str
    workflow: Workflow
    input: dict[str, Any]


def start(
    source: str,
    body: Any,
    *,
    workflows: Iterable[Workflow],
    actor: AbstractUser | None,
    traceparent: str = "",
    passed_on: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[str, Run]]:
    """Start the workflows whose trigger is the source or, with an event's type behind it, `<source>_<type>`.

    All events start their runs, or none does. An event that comes again finds the runs that it has started.

    Raises:
        Unknown: no workflow waits for this source.
        Misfit: the body holds no events, or values that do not fit; each misfit is named.
    """
    doors = _doors(workflows)
    name = normal(source)
    if not any(door == name or door.startswith(f"{name}_") for door in doors):
        known = ", ".join(sorted(doors)) or "none"
        raise Unknown(f"No workflow that you may start waits for the webhook {source!r}; there are: {known}")
    starts = _starts(name, events(body), doors)
    with transaction.atomic():
        # Always in one order, so that the same events, arriving twice, cannot wait for each other.
        runs = {
            key: intake.request(
                asked.workflow,
                input=asked.input,
                actor=actor,
                trigger="webhook",
                traceparent=traceparent,
                passed_on=passed_on,
                key=key,
            )
            for key, asked in sorted(starts.items(), key=operator.itemgetter(0))
        }
    return [(asked.event_id, runs[key]) for key, asked in starts.items()]


def events(body: Any) -> list[Occurrence]:
    """Read one event, or a list of them. Raises `Misfit` naming the place."""
    listed = body if isinstance(body, list) else [body]
    if not 0 < len(listed) <= MOST_EVENTS:
        raise _misfit("", f"holds {len(listed)} events; send 1 to {MOST_EVENTS}")
    places = [str(number) for number in range(len(listed))] if isinstance(body, list) else [""]
    return [_event(item, place) for place, item in zip(places, listed, strict=True)]


def normal(text: str) -> str:
    """Return a name as triggers are compared: `hubspot:new_lead`, `hubspot_new_lead` and `HubSpot.new-lead` are one."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _event(item: Any, place: str) -> Occurrence:
    if not isinstance(item, dict):
        raise _misfit(place, "is no JSON object: { ... }")
    # HubSpot's words first; a generic sender has the others.
    given = next((item[name] for name in ("eventId", "id") if item.get(name) is not None), None)
    kind = next((item[name] for name in ("subscriptionType", "type") if item.get(name) is not None), "")
    if isinstance(given, bool) or not isinstance(given, (str, int, type(None))) or given == "":
        raise _misfit(f"{place}.id".strip("."), "takes a text or a whole number")
    if not isinstance(kind, str):
        raise _misfit(f"{place}.type".strip("."), "takes a text")
    event_id = canonical.sha256(item) if given is None else str(canonical.jsonable(str(given)))
    return Occurrence(event_id, kind, item)


def _doors(workflows: Iterable[Workflow]) -> dict[str, list[Workflow]]:
    doors: dict[str, list[Workflow]] = {}
    for workflow in workflows:
        if workflow.trigger.startswith(PREFIX):
            doors.setdefault(normal(workflow.trigger.removeprefix(PREFIX)), []).append(workflow)
    return doors


def _starts(source: str, occurrences: Iterable[Occurrence], doors: Mapping[str, list[Workflow]]) -> dict[str, Start]:
    starts: dict[str, Start] = {}
    problems: list[dict[str, str]] = []
    for occurrence in occurrences:
        for door, workflow in _waiting(source, occurrence, doors):
            asked = Start(occurrence.id, workflow, _input(workflow, occurrence))
            starts.setdefault(_key(door, occurrence, workflow), asked)
            problems.extend(_problems(asked))
    if problems:
        told = "; ".join(f"event {item['event_id']}: {item['field']}: {item['message']}" for item in problems)
        raise Misfit(told, errors=problems)
    return starts


def _waiting(
    source: str, occurrence: Occurrence, doors: Mapping[str, list[Workflow]]
) -> Iterator[tuple[str, Workflow]]:
    kind = normal(occurrence.kind)
    for door in dict.fromkeys((source, f"{source}_{kind}" if kind else source)):
        for workflow in doors.get(door, ()):
            yield door, workflow


def _input(workflow: Workflow, occurrence: Occurrence) -> dict[str, Any]:
    """Return the event's fields that are inputs of the workflow; HubSpot's object is the contact, if none is named."""
    properties = workflow.input_schema.get("properties", {})
    fields = dict(occurrence.fields)
    if "objectId" in fields:
        fields.setdefault("contact_id", fields["objectId"])
    return {name: _coerced(fields[name], schema) for name, schema in properties.items() if name in fields}


def _coerced(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return a number as text where only a text fits: senders count what we name."""
    types = {option.get("type") for option in (schema, *schema.get("anyOf", ()))}
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if number and "string" in types and not types & {"number", "integer"} else value


def _problems(asked: Start) -> list[dict[str, str]]:
    try:
        intake.checked(asked.workflow, asked.input)
    except Misfit as error:
        return [{**problem, "event_id": asked.event_id} for problem in error.detail["errors"]]
    return []


def _key(door: str, occurrence: Occurrence, workflow: Workflow) -> str:
    key = f"{PREFIX}{door}:{occurrence.id}:{workflow.operator.slug}.{workflow.slug}"
    return key if len(key) <= LONGEST_KEY else f"{PREFIX}{canonical.sha256(key)}"


def _misfit(place: str, message: str) -> Misfit:
    where = f"Event {place}" if place else "The body"
    return Misfit(f"{where} {message}", errors=[{"field": place, "message": message}])
