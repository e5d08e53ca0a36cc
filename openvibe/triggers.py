"""Reads what starts a workflow, and what it listens to, emits and serves, into one spelling."""

from __future__ import annotations

import re

from openvibe import subscriptions
from openvibe.errors import SetupError
from openvibe.marks import WorkflowMark, spec_of
from openvibe.scheduler.cron import Cron
from openvibe.specs import ID, TriggerSpec
from openvibe.subscriptions import Listen

_KINDS = (
    "on_demand, cron:<five fields>, webhook:<source>, event:<operator>.<type>, request:<capability>; "
    "for example cron:0 9 * * 1-5"
)


def trigger(where: str, mark: WorkflowMark, *, owner: str) -> TriggerSpec:
    """Return the trigger that `@workflow` names.

    Raises:
        SetupError: it is of no known kind, or its schedule or its event's name is wrong.
    """
    kind, _, source = mark.trigger.partition(":")
    if (kind == "on_demand") == bool(source) or kind not in ("on_demand", "cron", "webhook", "event", "request"):
        raise SetupError(f"{where}: trigger {mark.trigger!r} is none of {_KINDS}")
    source = source.strip()
    if kind == "cron" and (problem := Cron.problem(source)):
        raise SetupError(f"{where}: trigger {mark.trigger!r}: {problem}")
    if kind == "event":
        source = _pattern(where, source, owner=owner)
    if kind == "webhook":
        source = source.replace(":", "_")
    if kind in ("webhook", "request") and not re.fullmatch(ID, source):
        raise SetupError(f"{where}: trigger {mark.trigger!r}: name its source by lower-case letters, digits and _")
    return spec_of(where, TriggerSpec, id=mark.trigger_id, kind=kind, source=source)


def listens(where: str, mark: WorkflowMark, *, owner: str, inputs: tuple[str, ...]) -> tuple[Listen, ...]:
    """Return a workflow's further subscriptions.

    Raises:
        SetupError: an event's name is wrong, or `takes` fills what is no input.
    """
    found = []
    for item in mark.listens:
        given = item if isinstance(item, Listen) else Listen(item)
        if strange := sorted(set(given.takes) - set(inputs)):
            raise SetupError(f"{where}: listens= fills {strange} from {given.event!r}; its inputs are {list(inputs)}")
        event = _pattern(where, given.event, owner=owner)
        found.append(Listen(event, where=given.where, takes=given.takes))
    return tuple(found)


def emits(where: str, mark: WorkflowMark, *, owner: str) -> tuple[str, ...]:
    """Return the names of the events that a workflow's completion emits, each once.

    Raises:
        SetupError: a name is no event type.
    """
    try:
        return tuple(dict.fromkeys(subscriptions.canonical(name, owner=owner) for name in mark.emits))
    except ValueError as error:
        raise SetupError(f"{where}: emits= names {error}") from error


def _pattern(where: str, text: str, *, owner: str) -> str:
    try:
        return subscriptions.pattern(text, owner=owner)
    except ValueError as error:
        raise SetupError(f"{where}: {error}") from error
