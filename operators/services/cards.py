"""Puts large values aside: what is over the limit becomes a card, and a pointer travels in its place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from django.db.models import Value
from django.utils.timezone import now

from openvibe import canonical
from openvibe.bus import MOST_BYTES
from operators.models import Card
from operators.models.jsonfield import JSONField
from operators.models.stroke import Insert

#: The largest value that an event carries itself, in bytes of JSON.
INLINE_LIMIT = 32 * 1024
#: What the payload of a message may have, in bytes of JSON; the bus takes 1 MiB with everything around it.
MESSAGE_LIMIT = 768 * 1024
#: What a value of the shared context may have in NATS KV, where little is around it.
VALUE_LIMIT = MOST_BYTES - 4096


def stowed(project_id: str, data: Mapping[str, Any], *, into: list[Card] | None = None) -> dict[str, Any]:
    """Return `data` with every large value replaced by `{"card": sha256, "size": bytes}`; also one level down.

    Of values that are large only together the largest ones are, so that a message carries the others. The cards are
    kept at once or, if they are put `into` a list, by the caller, in the commit of what points at them.
    """
    if len(orjson.dumps(data)) <= INLINE_LIMIT:
        return dict(data)
    inside = {key: _stowed_inside(project_id, value, into) for key, value in data.items()}
    return carried(project_id, {key: light(project_id, value, into=into) for key, value in inside.items()}, into=into)


def pointed(project_id: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `data` with the same pointers as `stowed`, without keeping anything: the events have done that."""
    texts = {key: orjson.dumps(value) for key, value in data.items()}
    large = {key: pointer(data[key], text) for key, text in texts.items() if len(text) > INLINE_LIMIT}
    # A card that was kept before all were called by their canonical text is called by its bytes.
    older = {key: hashlib.sha256(texts[key]).hexdigest() for key in large}
    known = Card.objects.filter(project_id=project_id, sha256__in=older.values()) if older else Card.objects.none()
    names = set(known.values_list("sha256", flat=True))
    return {
        **data,
        **{key: item | ({"card": older[key]} if older[key] in names else {}) for key, item in large.items()},
    }


def rows(kept: Sequence[Card]) -> Insert:
    """Return how cards are written with what points at them: in one order, against deadlocks."""
    return Insert(Card, sorted(kept, key=lambda card: card.sha256), on_conflict="ignore")


def _stowed_inside(project_id: str, value: Any, into: list[Card] | None) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: light(project_id, item, into=into) for key, item in value.items()}


def known(project_id: str, pointer: str) -> bool:
    """Tell whether a project has a card of this name."""
    return Card.objects.filter(project_id=project_id, sha256=pointer).exists()


def content(project_id: str, pointer: str) -> Any:
    """Return what a card holds. Raises `Card.DoesNotExist` if the project has none of this name."""
    return Card.objects.get(project_id=project_id, sha256=pointer).content


def keep(project_id: str, value: Any, text: bytes, *, into: list[Card] | None = None) -> dict[str, Any]:
    """Keep a value, of which this is some text, as a card and return its pointer; see `stowed` for `into`."""
    found = pointer(value, text)
    if into is not None:
        into.append(Card(project_id=project_id, sha256=found["card"], content=value, size=len(text), created_at=now()))
        return found
    # Null is a value like any other, and no column without one.
    content = Value(None, JSONField()) if value is None else value
    card = Card(project_id=project_id, sha256=found["card"], content=content, size=len(text))
    Card.objects.bulk_create([card], ignore_conflicts=True)
    return found


def light(project_id: str, value: Any, *, into: list[Card] | None = None) -> Any:
    """Return a value or, if it is large, keep it as a card and return the pointer to it."""
    text = orjson.dumps(value)
    return value if len(text) <= INLINE_LIMIT else keep(project_id, value, text, into=into)


def carried(project_id: str, data: Mapping[str, Any], *, into: list[Card] | None = None) -> dict[str, Any]:
    """Return `data` as a message can carry it: as it is or, if that is too much, with pointers in place of much."""
    sizes = {key: len(orjson.dumps(value, default=str)) for key, value in data.items()}
    carried, left = dict(data), sum(sizes.values())
    for key in sorted(sizes, key=lambda key: -sizes[key]):
        if left <= MESSAGE_LIMIT:
            break
        value = orjson.loads(orjson.dumps(data[key], default=str))
        carried[key], left = keep(project_id, value, orjson.dumps(value), into=into), left - sizes[key]
    return carried


def is_pointer(value: Any) -> bool:
    """Tell whether this stands in a card's place."""
    return isinstance(value, dict) and value.keys() == {"card", "size"} and isinstance(value["card"], str)


def whole(project_id: str, value: Any) -> Any:
    """Return what a value of NATS KV stands for: a pointer to a card that is too large for it, for what that holds."""
    if not (is_pointer(value) and isinstance(value["size"], int) and value["size"] > VALUE_LIMIT):
        return value
    card = Card.objects.filter(project_id=project_id, sha256=value["card"]).first()
    return card.content if card else value


def pointer(value: Any, text: bytes) -> dict[str, Any]:
    """Return the pointer to the card of a value, of which this is some text."""
    return {"card": name(value), "size": len(text)}


def name(value: Any) -> str:
    """Return what the card of a value is called: the SHA-256 of its canonical text, which any reader can check."""
    return hashlib.sha256(canonical.text(value)).hexdigest()
