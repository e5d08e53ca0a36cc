"""Boxes of turns: what a run was asked, and what a turn of it delivered, as lists of cards for agents elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from django.db import transaction

from openvibe import canonical
from openvibe.events import STEP_FINISHED
from openvibe.protocol import turns
from operators.errors import Misfit
from operators.models import Box, Card, Event, Project, Run
from operators.services import cards
from operators.services.masking import masked

#: What an agent's step shows of itself.
SHOWN = ("calls", "tool", "arguments", "result", "error")


def context(run: Run) -> str:
    """Keep what a run was asked for, its one instruction, and return the box's name."""
    name = turns.context_box(run.id)
    _keep(run.project_id, {name: [masked(run.input)]})
    return name


def deliver(project_id: str, outputs: Mapping[str, Any]) -> dict[str, str]:
    """Keep what turns delivered, by turn, beside what their runs were asked for; return the deliverables' cards.

    An agent's calls and its tools' results come first, in their order, and then the deliverable. Doing it again changes
    nothing.
    """
    runs = {turns.run_of(turn): turn for turn in outputs}
    given = Run.objects.filter(id__in=runs).values_list("id", "input")
    asked = {turns.context_box(run): [masked(value)] for run, value in given}
    said = _said(runs)
    delivered = {turns.output_box(turn): [*said[run], outputs[turn]] for run, turn in runs.items()}
    kept = _keep(project_id, {**asked, **delivered})
    return {turn: kept[turns.output_box(turn)][-1] for turn in outputs}


def _said(run_ids: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Return what agents called and what their tools answered, by run, in order."""
    said: dict[str, list[dict[str, Any]]] = defaultdict(list)
    steps = Event.objects.filter(run_id__in=run_ids, kind=STEP_FINISHED, data__has_any_keys=["calls", "tool"])
    for run_id, data in steps.order_by("seq").values_list("run_id", "data"):
        said[run_id].append({name: data[name] for name in SHOWN if name in data})
    return said


def known(project_id: str, name: str) -> bool:
    """Tell whether a project has a box, or else a card, of this name."""
    return Box.objects.filter(project_id=project_id, name=name).exists() or cards.known(project_id, name)


def content(project_id: str, name: str) -> Any:
    """Return what the cards of a box say together, objects as one object and texts as paragraphs; or what a card says.

    Raises `Card.DoesNotExist` if the project has neither.
    """
    box = Box.objects.filter(project_id=project_id, name=name).first()
    said = [cards.content(project_id, sha256) for sha256 in (box.cards if box else [name])]
    if len(said) == 1:
        return said[0]
    if all(isinstance(item, dict) for item in said):
        return {key: value for item in said for key, value in item.items()}
    return "\n\n".join(item if isinstance(item, str) else canonical.dumps(item) for item in said)


def make(project: Project, name: str, listed: Sequence[str]) -> Box:
    """Keep a list of cards under a name. Raises `Misfit` naming a card that there is not."""
    known = set(Card.objects.filter(project=project, sha256__in=listed).values_list("sha256", flat=True))
    if missing := [sha256 for sha256 in listed if sha256 not in known]:
        message = f"there is no card {missing[0]!r:.90}"
        raise Misfit(f"cards: {message}", errors=[{"field": "cards", "message": message}])
    return Box.objects.create(project=project, name=name, cards=list(listed))


def _keep(project_id: str, boxes: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    fresh: dict[str, Card] = {}
    lists = {name: [_named(project_id, value, fresh) for value in values] for name, values in boxes.items()}
    rows = [Box(project_id=project_id, name=name, cards=listed) for name, listed in lists.items()]
    with transaction.atomic():
        # In one order, so that two processes never wait for each other's rows.
        Card.objects.bulk_create([fresh[sha256] for sha256 in sorted(fresh)], ignore_conflicts=True)
        Box.objects.bulk_create(sorted(rows, key=str), ignore_conflicts=True)
    return lists


def _named(project_id: str, value: Any, fresh: dict[str, Card]) -> str:
    """Return the name of a value's card, and note the card unless the value is a pointer to one that is kept."""
    if cards.is_pointer(value):
        return str(value["card"])
    # Sorted, because a database gives keys back in an order of its own, and the same value is the same card.
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    sha256 = str(cards.pointer(text)["card"])
    fresh[sha256] = Card(project_id=project_id, sha256=sha256, content=value, size=len(text))
    return sha256
