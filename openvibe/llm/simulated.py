"""A model that is none: deterministic, offline, and open about it. It knows nothing of what it is asked for."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from openvibe.llm.instances import Instance
from openvibe.llm.protocol import LLMResponse, Tool, ToolCall, Turn

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
        history: Sequence[Turn] = (),
        tools: Sequence[Tool] = (),
    ) -> LLMResponse:
        """Call each of `tools` once, one in each answer; then answer with prose, or with JSON that obeys `schema`."""
        asked: list[Any] = [system, user, model, schema]
        if history or tools:
            asked += [[turn.as_json() for turn in history], [tool.as_json() for tool in tools]]
        dice = random.Random(hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).digest())
        content, calls = "", _call(tools, history, dice)
        if not calls:
            content = _prose(user, dice) if schema is None else json.dumps(Instance(schema, dice).make(), indent=2)
            content = self._say(content.split(" ")[:max_tokens], on_words)
        said = content + "".join(json.dumps(call.as_json()) for call in calls)
        return LLMResponse(
            content=content,
            tokens_in=_tokens(" ".join([system, user, *(turn.content for turn in history)])),
            tokens_out=_tokens(said),
            model=model,
            cost_usd=Decimal(0),
            simulated=True,
            tool_calls=calls,
        )

    def _say(self, words: Sequence[str], on_words: Callable[[str], None] | None) -> str:
        for position, word in enumerate(words):
            if on_words:
                on_words(word if position == 0 else f" {word}")
            if self._pause:
                time.sleep(self._pause)
        return " ".join(words)


def provider(**options: Any) -> SimulatedProvider:
    """Make the provider (called by `openvibe.llm.provider`)."""
    return SimulatedProvider(**options)


def _prose(user: str, dice: random.Random) -> str:
    words = user.split()
    topics = [" ".join(words[at : at + 4]).strip(".,:;") for at in range(0, len(words), 4)] or ["the request"]
    lines = [dice.choice(_OPENINGS)]
    lines += [sentence.format(topic=f"“{dice.choice(topics)}”") for sentence in dice.sample(_SENTENCES, 4)]
    return " ".join(lines)


def _call(tools: Sequence[Tool], history: Sequence[Turn], dice: random.Random) -> tuple[ToolCall, ...]:
    called = {call.name for turn in history for call in turn.calls}
    for tool in tools:
        if tool.name not in called:
            return (ToolCall(f"call_{dice.getrandbits(96):024x}", tool.name, Instance(tool.schema, dice).make()),)
    return ()


def _tokens(text: str) -> int:
    return round(len(text.split()) * _TOKENS_PER_WORD)
