"""Puts a node's question to a model: tries again where that helps, shows every failed try, and fits the answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError, create_model

from openvibe.errors import Backoff, ModelError, TransientModelError, WrongUpdate
from openvibe.events import Usage
from openvibe.llm import LLMProvider, LLMResponse, Tool, Turn, aliases
from openvibe.specs import ModelSpec

#: Pause before the second try in seconds; it doubles with each further one, up to LONGEST_PAUSE.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
#: The longest pause for which the step holds its thread, in seconds, unless the caller says otherwise.
PATIENCE = 60.0

T = TypeVar("T")


class Listener(Protocol):
    """Hears of a call while it runs."""

    def words(self, text: str) -> None:
        """The model said more."""

    def usage(self, usage: Usage) -> None:
        """A call came back and has cost something, whether or not its answer fits."""

    def attempt_failed(self, *, attempt: int, attempts: int, error: str, pause: float) -> None:
        """A try failed; another follows after `pause` seconds."""

    def calling(self) -> AbstractContextManager[None]:
        """A call runs inside this block; who has the right to may hang up."""


@dataclass(frozen=True)
class Question:
    """What a node asks, which state fields the answer goes to, and the `update` that the node writes beside it."""

    system: str
    user: str
    output_key: str = ""
    output_keys: Mapping[str, Any] = field(default_factory=dict)
    fallback: Callable[[str], Mapping[str, Any]] | None = None
    update: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, node: str, returned: Any) -> Question:
        """Read what an `@llm_node` method returned.

        Raises:
            WrongUpdate: it is not of the form that `@llm_node` describes.
        """
        if not isinstance(returned, Mapping):
            raise WrongUpdate(f"Node {node!r} returned {type(returned).__name__}; return system, user and output_key")
        known = {"system", "user", "output_key", "output_keys", "fallback", "update"}
        if unknown := sorted(set(returned) - known):
            raise WrongUpdate(f"Node {node!r} returned {unknown}; an @llm_node returns only {sorted(known)}")
        question = cls(**{"system": "", "user": "", **returned})
        if bool(question.output_key) == bool(question.output_keys) or not question.user:
            raise WrongUpdate(f"Node {node!r} must return `user` and one of `output_key` and `output_keys`")
        return question


class Fit:
    """Turns an answer's text into an update of state fields."""

    def __init__(self, question: Question, types: Mapping[str, Any], *, json: bool) -> None:
        self._question = question
        wanted = question.output_keys or ({question.output_key: types.get(question.output_key, str)} if json else {})
        parts: dict[str, Any] = {name: (hint, ...) for name, hint in wanted.items()}
        self._model: type[BaseModel] | None = create_model("Answer", **parts) if wanted else None

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON Schema to ask for, or None where any text will do."""
        return self._model.model_json_schema() if self._model else None

    def update(self, content: str) -> dict[str, Any]:
        """Return the update that an answer stands for; raises `ValidationError` if it does not fit."""
        if self._model is None:
            return {self._question.output_key: content}
        return self._model.model_validate_json(_bare(content)).model_dump()


class OutOfTries(ModelError):
    """No try succeeded; the message tells the last fault."""


def ask(
    question: Question, *, node: str, spec: ModelSpec, model: str, types: Mapping[str, Any], provider: LLMProvider,
    listener: Listener, tried: int = 0, patience: float = PATIENCE,
) -> dict[str, Any]:  # fmt: skip
    """Ask until an answer fits and return the update it stands for; `tried` is how many tries failed before.

    Raises:
        ModelError: no try succeeded; the message tells the last fault.
        Backoff: another try follows after a pause longer than `patience` seconds.
    """
    fit = Fit(question, types, json=spec.output_format == "json")
    answers: list[str] = []

    def update(response: LLMResponse) -> dict[str, Any]:
        answers.append(response.content)
        return fit.update(response.content)

    caller = _Caller(
        node=node, spec=spec, model=model, provider=provider, listener=listener, tried=tried, patience=patience
    )
    try:
        answered = caller.ask(update, system=question.system, user=question.user, schema=fit.schema)
        return {**question.update, **answered}
    except OutOfTries:
        if answers and answers[-1] and question.fallback:
            return {**question.update, **question.fallback(answers[-1])}
        raise


def converse(
    *, node: str, spec: ModelSpec, model: str, provider: LLMProvider, listener: Listener, system: str, user: str,
    history: Sequence[Turn] = (), tools: Sequence[Tool] = (), tried: int = 0, patience: float = PATIENCE,
) -> LLMResponse:  # fmt: skip
    """Ask for an agent's next turn: words, tool calls or both, trying again as `ask` does.

    Raises:
        ModelError: no try succeeded; the message tells the last fault.
        Backoff: another try follows after a pause longer than `patience` seconds.
    """
    caller = _Caller(
        node=node, spec=spec, model=model, provider=provider, listener=listener, tried=tried, patience=patience
    )
    return caller.ask(lambda response: response, system=system, user=user, history=history, tools=tools)


class _Caller:
    """Calls a provider for one node, again and again until what came back can be read."""

    def __init__(
        self, *, node: str, spec: ModelSpec, model: str, provider: LLMProvider, listener: Listener, tried: int,
        patience: float,
    ) -> None:  # fmt: skip
        self._node, self._spec, self._provider, self._listener = node, spec, provider, listener
        # What a crash repeats is one try more, however many there were.
        self._first, self._patience = min(tried + 1, spec.attempts), patience
        self._model = aliases.resolve(model, provider=provider.name, own=getattr(provider, "aliases", None))

    def ask(self, read: Callable[[LLMResponse], T], *, user: str, **parts: Any) -> T:
        """Return what `read` makes of the answer; a `ValidationError` of it is shown to the model in the next try."""
        asked, error, attempts = user, "", self._spec.attempts
        for attempt in range(self._first, attempts + 1):
            pause = 0.0
            try:
                response = self._call(user=asked, **parts)
                try:
                    return read(response)
                except ValidationError as misfit:
                    error = self._misfit(misfit, response)
                    asked = f"{user}\n\n{_again(response.content, error)}"
            except TransientModelError as fault:
                error, pause = str(fault), _pause(attempt, fault)
            if attempt < attempts:
                self._listener.attempt_failed(attempt=attempt, attempts=attempts, error=error, pause=pause)
                if pause > self._patience:
                    raise Backoff(pause, error)
                time.sleep(pause)
        raise OutOfTries(f"Node {self._node!r} asked {self._model} {attempts} times: {error}")

    def _call(self, **parts: Any) -> LLMResponse:
        with self._listener.calling():
            response = self._provider.complete(
                model=self._model, max_tokens=self._spec.max_tokens, temperature=self._spec.temperature,
                on_words=self._listener.words, **parts,
            )  # fmt: skip
        self._listener.usage(_usage(response, self._provider))
        if self._is_cut_off(response) and not response.content.strip() and not response.tool_calls:
            # A model that thinks first may spend all it has on that.
            raise ModelError(
                f"{self._model} used up max_tokens={self._spec.max_tokens} before its first word; raise it"
            )
        return response

    def _is_cut_off(self, response: LLMResponse) -> bool:
        return response.tokens_out >= self._spec.max_tokens

    def _misfit(self, misfit: ValidationError, response: LLMResponse) -> str:
        cut = f"; it was cut off at max_tokens={self._spec.max_tokens}" if self._is_cut_off(response) else ""
        return f"The answer does not fit: {_problems(misfit)}{cut}"


def _usage(response: LLMResponse, provider: LLMProvider) -> Usage:
    return Usage(
        model=response.model,
        provider=provider.name,
        tokens_in=response.tokens_in,
        tokens_out=response.tokens_out,
        cost_usd=response.cost_usd,
        simulated=response.simulated,
    )


def _pause(attempt: int, fault: TransientModelError) -> float:
    if fault.retry_after is not None:
        return fault.retry_after
    # Half of the pause is random, so that many runs refused at once do not come back at once.
    return min(FIRST_PAUSE * (1 << (attempt - 1)), LONGEST_PAUSE) * (0.5 + random.random() / 2)


def _again(answer: str, error: str) -> str:
    return f"Your last answer was:\n{answer}\n\n{error}\nAnswer again, with that mended."


def _bare(content: str) -> str:
    """Strip the code fence that models like to put around JSON."""
    text = content.strip()
    if text.startswith("```") and text.endswith("```"):
        return text.partition("\n")[2].removesuffix("```")
    return text


def _problems(misfit: ValidationError) -> str:
    items: Iterable[Any] = misfit.errors(include_url=False)[:5]
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg']}" for item in items)
