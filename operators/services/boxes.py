"""Boxes of turns: what a run was asked, and what a turn of it delivered, as lists of cards for agents elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from openvibe import canonical
from openvibe.events import STEP_FINISHED
from openvibe.protocol import turns
from operators.errors import Misfit
from operators.models import Box, Card, Event, Project, Run
from operators.models.statements import insert
from operators.models.stroke import Insert
from operators.services import cards
from operators.services.masking import masked

#: By what one knows an agent's step: that it called, or was called.
CALLED = ("calls", "tool")
#: What an agent's step shows of itself.
SHOWN = ("calls", "tool", "arguments", "result", "error")


def context(run: Run) -> str:
    """Keep what a run was asked for, its one instruction, and return the box's name."""
    name = turns.context_box(run.id)
    _keep(run.project_id, {name: [masked(run.input)]})
    return name


def delivery(run: Run, output: Any, said: Sequence[Mapping[str, Any]], *, now: datetime) -> list[Insert]:
    """Return the rows that keep what a run's turn delivered, beside what the run was asked for.

    What its agents called and their tools' results (`said`) comes first, in order, and then the deliverable. They
    belong to the commit that ends the run.
    """
    boxes = {
        turns.context_box(run.id): [masked(run.input)],
        turns.output_box(run.turn_id): [*said, output],
    }
    lists, fresh = _rows(run.project_id, boxes, now=now)
    return [Insert(Card, fresh, on_conflict="ignore"), Insert(Box, lists, on_conflict="ignore")]


def said(run_id: str, facts: Iterable[Any]) -> list[dict[str, Any]]:
    """Return what a run's agents called and what their tools answered, in order, up to these facts."""
    steps = Event.objects.filter(run_id=run_id, kind=STEP_FINISHED, data__has_any_keys=CALLED)
    earlier = list(steps.order_by("seq").values_list("data", flat=True))
    latest = [fact.data for fact in facts if fact.kind == STEP_FINISHED and not fact.data.keys().isdisjoint(CALLED)]
    return [{name: data[name] for name in SHOWN if name in data} for data in (*earlier, *latest)]


def deliverable(output: Any) -> str:
    """Return the name of the card that holds what a turn delivered."""
    return str(output["card"]) if cards.is_pointer(output) else cards.name(output)


def delivered(run: Run) -> str:
    """Return the name of the card that holds what a completed run's last turn delivered."""
    return str(Box.objects.get(project_id=run.project_id, name=turns.output_box(run.turn_id)).cards[-1])


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


def _keep(project_id: str, boxes: Mapping[str, Sequence[Any]]) -> None:
    lists, fresh = _rows(project_id, boxes, now=timezone.now())
    with transaction.atomic():
        insert(Card, fresh, on_conflict="ignore")
        insert(Box, lists, on_conflict="ignore")


def _rows(project_id: str, boxes: Mapping[str, Sequence[Any]], *, now: datetime) -> tuple[list[Box], list[Card]]:
    """Return the rows of boxes and of what is in them, in one order, so that no two processes wait for each other."""
    fresh: dict[str, Card] = {}
    lists = []
    for name in sorted(boxes):
        listed = [deliverable(value) for value in boxes[name]]
        lists.append(Box(project_id=project_id, name=name, cards=listed, created_at=now))
        for sha256, value in zip(listed, boxes[name], strict=True):
            # What is a pointer already points at a card that is kept.
            if sha256 not in fresh and not cards.is_pointer(value):
                size = len(canonical.text(value))
                fresh[sha256] = Card(project_id=project_id, sha256=sha256, content=value, size=size, created_at=now)
    return lists, [fresh[sha256] for sha256 in sorted(fresh)]
