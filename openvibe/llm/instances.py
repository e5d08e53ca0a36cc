"""Values that obey a JSON Schema, made from dice: what the simulated model answers with."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from openvibe.llm import schemas

#: How far down a type that holds itself may go.
_DEPTH = 4

_WORDS = (
    "a real model would weigh this against what is known of the market",
    "nothing here rules out a first conversation this week",
    "the strongest signal comes first and the weakest last",
    "a careful reader would ask for one more source",
    "somebody must own the next step",
)
#: One text for each format that JSON Schema names and Pydantic reads; {n} makes them differ.
_FORMATS = {
    "date-time": "2026-01-{n:02d}T09:00:00Z",
    "date": "2026-01-{n:02d}",
    "time": "09:{n:02d}:00Z",
    "duration": "P{n}D",
    "email": "simulated.{n}@example.com",
    "hostname": "simulated-{n}.example.com",
    "uri": "https://example.com/simulated/{n}",
    "ipv4": "192.0.2.{n}",
    "ipv6": "2001:db8::{n:x}",
    "uuid": "00000000-0000-4000-8000-0000000000{n:02d}",
}


class Instance:
    """Makes one value that obeys a JSON Schema; of what JSON Schema can say, it reads all but `pattern` and `not`."""

    def __init__(self, schema: Mapping[str, Any], dice: random.Random) -> None:
        self._root = schema
        self._dice = dice

    def make(self) -> Any:
        """Return the value."""
        return self._value(self._root, name="value", depth=0)

    def _value(self, schema: Mapping[str, Any], *, name: str, depth: int) -> Any:
        schema = self._resolved(schema, depth=depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._dice.choice(list(schema["enum"]))
        kind = _kind(schema, deep=depth > _DEPTH)
        if kind == "null":
            return None
        if kind == "object":
            return self._object(schema, depth=depth)
        if kind == "array":
            return self._array(schema, name=name, depth=depth)
        if kind == "boolean":
            return self._dice.random() < 0.5
        return self._text(schema, name=name) if kind == "string" else self._number(kind, schema)

    def _resolved(self, schema: Mapping[str, Any], *, depth: int) -> Mapping[str, Any]:
        schema = schemas.resolved(schema, self._root)
        for every in schema.get("allOf", ()):
            schema = _merged(self._resolved(every, depth=depth), schema)
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                # Pydantic writes `Thing | None` with null last; far down, null is what ends a type that holds itself.
                chosen = self._resolved(schema[choice][-1 if depth > _DEPTH else 0], depth=depth)
                return _merged(chosen, {name: value for name, value in schema.items() if name != choice})
        return schema

    def _object(self, schema: Mapping[str, Any], *, depth: int) -> dict[str, Any]:
        parts = dict(schema.get("properties", {}))
        if depth > _DEPTH:
            parts = {name: part for name, part in parts.items() if name in schema.get("required", ())}
        for name in schema.get("required", ()):
            parts.setdefault(name, {})
        free = schema.get("additionalProperties", {})
        for number in range(len(parts), schema.get("minProperties", 0)):
            parts[f"simulated_{number + 1}"] = free if isinstance(free, Mapping) else {}
        return {name: self._value(part, name=name, depth=depth + 1) for name, part in parts.items()}

    def _array(self, schema: Mapping[str, Any], *, name: str, depth: int) -> list[Any]:
        kinds = list(schema.get("prefixItems", ()))
        least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        count = max(least, min(most, 3 if depth < _DEPTH and not kinds else 0))
        rest = schema.get("items", {})
        kinds += [rest if isinstance(rest, Mapping) else {}] * (count - len(kinds))
        values: list[Any] = []
        for number, kind in enumerate(kinds, start=1):
            value = self._value(kind, name=f"{name} {number}", depth=depth + 1)
            if schema.get("uniqueItems"):
                value = self._another(kind, value, values, name=f"{name} {number}", depth=depth + 1)
            values.append(value)
        return values

    def _another(self, kind: Mapping[str, Any], value: Any, taken: Sequence[Any], *, name: str, depth: int) -> Any:
        for _ in range(100):
            if value not in taken:
                break
            value = self._value(kind, name=name, depth=depth)
        return value

    def _number(self, kind: str, schema: Mapping[str, Any]) -> int | float:
        step = schema.get("multipleOf", 1 if kind == "integer" else 0)
        low, high = _bounds(schema, step=step)
        if step:
            value = self._dice.randint(math.ceil(low / step), math.floor(high / step)) * step
            return int(value) if kind == "integer" else value
        value = low + (high - low) * self._dice.uniform(0.05, 0.95)
        return round(value, 2) if low < round(value, 2) < high else value

    def _text(self, schema: Mapping[str, Any], *, name: str) -> str:
        if form := _FORMATS.get(schema.get("format", "")):
            return form.format(n=self._dice.randint(1, 28))
        text = f"Simulated {name.replace('_', ' ')}: {self._dice.choice(_WORDS)}."
        return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _kind(schema: Mapping[str, Any], *, deep: bool) -> str:
    kind = schema.get("type") or next((kind for word, kind in _TELLING.items() if word in schema), "string")
    if isinstance(kind, str):
        return kind
    return "null" if deep and "null" in kind else str(next((each for each in kind if each != "null"), "null"))


#: Keywords that tell the type where `type` is not given.
_TELLING = {"properties": "object", "items": "array", "prefixItems": "array", "minimum": "number", "maximum": "number"}


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    made = {**first, **second}
    for name in ("properties", "$defs"):
        if name in first and name in second:
            made[name] = {**first[name], **second[name]}
    if "required" in first and "required" in second:
        made["required"] = [*first["required"], *second["required"]]
    return made


def _bounds(schema: Mapping[str, Any], *, step: float) -> tuple[float, float]:
    """Return the least and the greatest value; an exclusive bound moves inwards by `step`."""
    low = schema.get("minimum", schema["exclusiveMinimum"] + step if "exclusiveMinimum" in schema else None)
    high = schema.get("maximum", schema["exclusiveMaximum"] - step if "exclusiveMaximum" in schema else None)
    if low is None:
        low = 0 if high is None or high > 0 else high - 100
    return low, low + max(100, 2 * step) if high is None else high
