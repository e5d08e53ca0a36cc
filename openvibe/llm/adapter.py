"""Turns a custom provider, plain or async, whole or minimal, into one that takes everything."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from decimal import Decimal
from queue import SimpleQueue
from typing import Any, TypeGuard

from openvibe import line, loop
from openvibe.errors import ModelError, SetupError
from openvibe.llm import schemas
from openvibe.llm.protocol import LLMProvider, LLMResponse, Tool, Turn

_NEEDED = {"system", "user", "model", "max_tokens"}
_ALL = _NEEDED | {"temperature", "schema", "on_words", "history", "tools"}


def is_ready(thing: Any) -> TypeGuard[LLMProvider]:
    """Tell whether an object is a whole, plain provider."""
    complete = getattr(thing, "complete", None)
    named = isinstance(getattr(thing, "name", None), str)
    return named and callable(complete) and not _is_async(complete) and _taken(complete) == _ALL


class Adapter:
    """A provider around an object that offers less than the protocol asks."""

    def __init__(self, thing: Any) -> None:
        complete: Any = getattr(thing, "complete", None)
        if not callable(complete) or isinstance(thing, type):
            raise SetupError(f"{thing!r} is no model provider: it needs a `complete` method, on an instance")
        self._complete: Callable[..., Any] = complete
        self._taken = _taken(complete)
        if lacking := sorted(_NEEDED - self._taken):
            raise SetupError(f"{type(thing).__name__}.complete must take {', '.join(lacking)}")
        self.name = str(getattr(thing, "name", None) or type(thing).__name__)
        self.aliases: Mapping[str, str] = getattr(thing, "aliases", {})

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
        """Ask the object once, with what it takes."""
        if (history or tools) and not {"history", "tools"} <= self._taken:
            raise ModelError(f"Provider {self.name!r} takes no tools: its `complete` needs `history` and `tools`")
        if schema is not None and "schema" not in self._taken:
            system = schemas.told(system, schema)
        given = {
            "system": system, "user": user, "model": model, "max_tokens": max_tokens, "temperature": temperature,
            "schema": schema, "history": history, "tools": tools,
        }  # fmt: skip
        options = {name: value for name, value in given.items() if name in self._taken}
        streams = "on_words" in self._taken
        if not _is_async(self._complete):
            answer = self._complete(**options, **({"on_words": on_words} if streams else {}))
        elif streams and on_words:
            answer = _heard(self._complete, options, on_words)
        else:
            answer = _awaited(self._complete(**options, **({"on_words": None} if streams else {})))
        if on_words and not streams and answer.content:
            on_words(answer.content)
        return _response(answer)


def _heard(
    complete: Callable[..., Coroutine[Any, Any, Any]], options: Mapping[str, Any], on_words: Callable[[str], None]
) -> Any:
    """Run it on the loop, and hand out its words on the caller's thread, where they may take their time."""
    words: SimpleQueue[str | None] = SimpleQueue()
    future = loop.submit(complete(**options, on_words=words.put))
    future.add_done_callback(lambda _: words.put(None))
    try:
        with line.current().held(future.cancel):
            while (text := words.get()) is not None:
                on_words(text)
            return future.result()
    except BaseException:
        future.cancel()
        raise


def _awaited(answer: Coroutine[Any, Any, Any]) -> Any:
    future = loop.submit(answer)
    try:
        with line.current().held(future.cancel):
            return future.result()
    except BaseException:
        future.cancel()
        raise


def _response(answer: Any) -> LLMResponse:
    if isinstance(answer, LLMResponse):
        return answer
    cost = getattr(answer, "cost_usd", None)
    return LLMResponse(
        content=answer.content,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        model=answer.model,
        # By way of text, because a float's own digits are not what its author wrote.
        cost_usd=None if cost is None else Decimal(str(cost)),
        simulated=getattr(answer, "simulated", False),
        tool_calls=tuple(getattr(answer, "tool_calls", ())),
        tokens_cached=getattr(answer, "tokens_cached", 0),
    )


def _is_async(complete: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(complete))


def _taken(complete: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(complete).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return set(_ALL)
    return _ALL & {each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY}
