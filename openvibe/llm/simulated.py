"""A model that is none: deterministic, offline, and open about it. It knows nothing of what it is asked for."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from openvibe.llm import LLMResponse

_OPENINGS = ("Simulated answer.", "This is simulated text.", "No model was asked; these words are simulated.")
_SENTENCES = (
    "The request mentions {topic}.",
    "A real model would weigh {topic} against what is known of the market.",
    "Three points follow from {topic}: the need is plain, the timing fits, and somebody must own the next step.",
    "Nothing in {topic} rules out a first conversation this week.",
    "The strongest signal is {topic}; the weakest is how little was said about the budget.",
    "A careful reader would ask for one more source on {topic}.",
)
_TOKENS_PER_WORD = 1.3

#: How far down a type that holds itself may go.
_DEPTH = 4


class SimulatedProvider:
    """Answers from the question's hash: the same question gets the same answer, on every machine.

    `words_per_second` paces the stream so that a page can be watched; 0 answers at once.
    """

    name = "simulated"

    def __init__(self, *, words_per_second: float = 0) -> None:
        self._pause = 1 / words_per_second if words_per_second else 0.0

    def complete(
        self,
        *,
        system: str,
        user: str,
        model: str,
        max_tokens: int = 4096,
        temperature: float | None = None,
        schema: Mapping[str, Any] | None = None,
        on_words: Callable[[str], None] | None = None,
    ) -> LLMResponse:
        """Answer with prose, or with JSON that obeys `schema`."""
        question = json.dumps([system, user, model, schema], sort_keys=True, default=str)
        dice = random.Random(hashlib.sha256(question.encode()).digest())
        content = _prose(user, dice) if schema is None else json.dumps(Instance(schema, dice).make(), indent=2)
        words = content.split(" ")[:max_tokens]
        for position, word in enumerate(words):
            if on_words:
                on_words(word if position == 0 else f" {word}")
            if self._pause:
                time.sleep(self._pause)
        return LLMResponse(
            content=" ".join(words),
            tokens_in=round(len(f"{system} {user}".split()) * _TOKENS_PER_WORD),
            tokens_out=round(len(words) * _TOKENS_PER_WORD),
            model=model,
            cost_usd=Decimal(0),
            simulated=True,
        )


def provider(**options: Any) -> SimulatedProvider:
    """Make the provider (called by `openvibe.llm.provider`)."""
    return SimulatedProvider(**options)


def _prose(user: str, dice: random.Random) -> str:
    words = user.split()
    topics = [" ".join(words[at : at + 4]).strip(".,:;") for at in range(0, len(words), 4)] or ["the request"]
    lines = [dice.choice(_OPENINGS)]
    lines += [sentence.format(topic=f"“{dice.choice(topics)}”") for sentence in dice.sample(_SENTENCES, 4)]
    return " ".join(lines)


class Instance:
    """Makes one value that obeys a JSON Schema of the kind that Pydantic writes."""

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
        kind = schema.get("type", "string")
        if kind == "null":
            return None
        if kind == "object":
            return self._object(schema, depth=depth)
        if kind == "array":
            return self._array(schema, name=name, depth=depth)
        return self._scalar(kind, schema, name=name)

    def _resolved(self, schema: Mapping[str, Any], *, depth: int) -> Mapping[str, Any]:
        if "$ref" in schema:
            return self._resolved(self._root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], depth=depth)
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                # Pydantic writes `Thing | None` with null last; far down, null is what ends a type that holds itself.
                return self._resolved(schema[choice][-1 if depth > _DEPTH else 0], depth=depth)
        return schema

    def _object(self, schema: Mapping[str, Any], *, depth: int) -> dict[str, Any]:
        parts = schema.get("properties", {})
        return {name: self._value(part, name=name, depth=depth + 1) for name, part in parts.items()}

    def _array(self, schema: Mapping[str, Any], *, name: str, depth: int) -> list[Any]:
        kinds = schema.get("prefixItems")
        if kinds is None:
            count = max(schema.get("minItems", 0), min(schema.get("maxItems", 3), 3 if depth < _DEPTH else 0))
            kinds = [schema.get("items", {})] * count
        return [self._value(kind, name=f"{name} {n + 1}", depth=depth + 1) for n, kind in enumerate(kinds)]

    def _scalar(self, kind: str, schema: Mapping[str, Any], *, name: str) -> Any:
        low, high = _bounds(schema, step=1 if kind == "integer" else 0)
        if kind == "integer":
            return self._dice.randint(math.ceil(low), math.floor(high))
        if kind == "number":
            value = low + (high - low) * self._dice.uniform(0.05, 0.95)
            return round(value, 2) if low < round(value, 2) < high else value
        if kind == "boolean":
            return self._dice.random() < 0.5
        text = f"Simulated {name.replace('_', ' ')}: {self._dice.choice(_SENTENCES).format(topic='this')}"
        return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _bounds(schema: Mapping[str, Any], *, step: int) -> tuple[float, float]:
    """Return the least and the greatest value; an exclusive bound moves inwards by `step`."""
    low = schema.get("minimum", schema["exclusiveMinimum"] + step if "exclusiveMinimum" in schema else None)
    high = schema.get("maximum", schema["exclusiveMaximum"] - step if "exclusiveMaximum" in schema else None)
    if low is None:
        low = 0 if high is None or high > 0 else high - 100
    return low, low + 100 if high is None else high
