"""A model that answers from a script, for tests: it says what it was told to say, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from threading import Lock
from typing import Any

from openvibe.errors import ModelError
from openvibe.llm.protocol import LLMResponse, Tool, ToolCall, Turn

#: A text, a mapping (given as JSON), a tool call or several, a whole response, or an error that is raised.
Answer = str | Mapping[str, Any] | ToolCall | Sequence[ToolCall] | LLMResponse | BaseException


@dataclass(frozen=True, slots=True)
class Asked:
    """One call as it reached the provider."""

    system: str
    user: str
    model: str
    max_tokens: int
    temperature: float | None
    schema: Mapping[str, Any] | None
    history: tuple[Turn, ...]
    tools: tuple[Tool, ...]


class ScriptedProvider:
    """Gives its answers in order, one for each call, and keeps the calls in `calls`.

    Answers that are no whole response cost nothing, count 10 tokens in and 5 out, and are marked simulated. A call
    after the last answer is a `ModelError`.

    Example:
        >>> model = ScriptedProvider([{"score": 7}, "A warm letter.", TransientModelError("busy")])
    """

    def __init__(self, answers: Iterable[Answer], *, name: str = "scripted") -> None:
        self.name = name
        self.calls: list[Asked] = []
        self._answers = list(answers)
        self._lock = Lock()

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
        """Give the next answer, its words in one piece."""
        asked = Asked(system, user, model, max_tokens, temperature, schema, tuple(history), tuple(tools))
        with self._lock:
            self.calls.append(asked)
            number = len(self.calls)
        if number > len(self._answers):
            raise ModelError(f"The script holds {len(self._answers)} answers and was asked for one more: {user:.80}")
        answer = self._answers[number - 1]
        if isinstance(answer, BaseException):
            raise answer
        response = _response(answer, model)
        if on_words and response.content:
            on_words(response.content)
        return response


def _response(answer: Any, model: str) -> LLMResponse:
    if isinstance(answer, LLMResponse):
        return answer
    blank = LLMResponse("", tokens_in=10, tokens_out=5, model=model, cost_usd=Decimal(0), simulated=True)
    if isinstance(answer, ToolCall):
        return replace(blank, tool_calls=(answer,))
    if isinstance(answer, str):
        return replace(blank, content=answer)
    if isinstance(answer, Mapping):
        return replace(blank, content=json.dumps(answer))
    return replace(blank, tool_calls=tuple(answer))
