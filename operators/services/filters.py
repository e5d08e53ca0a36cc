"""Which events of a channel somebody wants: asked of the database for what was, of each event for what happens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import Q

from openvibe.protocol.workflow import ATTRIBUTES
from operators.models import Run
from operators.models.event import EventQuerySet
from operators.numbers import natural
from operators.services import kinds, watching

Wire = dict[str, Any]

#: How many runs' operators a filter keeps in mind.
MOST_RUNS = 10_000


@dataclass
class Filter:
    """Events of these kinds, of runs of this operator (its key), with these attributes in any spelling; empty: all."""

    kinds: Sequence[str] = ()
    operator_id: int | None = None
    attrs: Mapping[str, str] = field(default_factory=dict)
    _operators: dict[str, int] = field(default_factory=dict)

    def narrowed(self, rows: EventQuerySet) -> EventQuerySet:
        """Return those rows that are wanted, and perhaps some that `passing` still sorts out."""
        if self.kinds and "*" not in self.kinds:
            rows = rows.filter(_any(_of_kind(pattern) for pattern in self.kinds))
        if self.operator_id is not None:
            rows = rows.filter(run__operator_id=self.operator_id)
        for name, text in self.attrs.items():
            rows = rows.filter(
                _any(Q(**{f"data__attrs__{spelling}": value}) for spelling in _spelled(name) for value in _values(text))
            )
        return rows

    async def passing(self, events: list[Wire]) -> list[Wire]:
        """Return those of the events that are wanted."""
        if self.kinds:
            events = [event for event in events if kinds.fits(event["type"], self.kinds)]
        if self.attrs:
            events = [event for event in events if self._speaks_of(event["data"].get("attrs"))]
        if self.operator_id is None:
            return events
        unknown = {event["run_id"] for event in events if event["run_id"]} - self._operators.keys()
        if unknown:
            if len(self._operators) > MOST_RUNS:
                self._operators.clear()
            self._operators |= await watching.in_thread(_operators, unknown)
        return [event for event in events if self._operators.get(event["run_id"]) == self.operator_id]

    def _speaks_of(self, attrs: Any) -> bool:
        return isinstance(attrs, dict) and all(
            any(attrs.get(spelling) in _values(text) for spelling in _spelled(name))
            for name, text in self.attrs.items()
        )


def _any(conditions: Iterable[Q]) -> Q:
    return reduce(or_, conditions)


def _of_kind(pattern: str) -> Q:
    return Q(kind__startswith=pattern[:-1]) if pattern.endswith(".*") else Q(kind=pattern)


def _spelled(name: str) -> Sequence[str]:
    return ATTRIBUTES.get(name, (name,))


def _values(text: str) -> list[str | int]:
    """Return what JSON may hold where an address has this text: an issue's number comes as either."""
    number = natural(text)
    return [text] if number is None else [text, number]


def _operators(run_ids: set[str]) -> dict[str, int]:
    return dict(Run.objects.filter(id__in=run_ids).values_list("id", "operator_id"))
