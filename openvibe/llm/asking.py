"""Puts a node's question to a model: tries again where that helps, shows every failed try, and fits the answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError, create_model

from openvibe.errors import ModelError, TransientModelError, WrongUpdate
from openvibe.events import Usage
from openvibe.llm import LLMProvider, LLMResponse, aliases
from openvibe.specs import ModelSpec

#: Pause before the second try in seconds; it doubles with each further one, up to LONGEST_PAUSE.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


class Listener(Protocol):
    """Hears of a call while it runs."""

    def words(self, text: str) -> None:
        """The model said more."""

    def usage(self, usage: Usage) -> None:
        """A call came back and has cost something, whether or not its answer fits."""

    def attempt_failed(self, *, attempt: int, attempts: int, error: str, pause: float) -> None:
        """A try failed; another follows after `pause` seconds."""


@dataclass(frozen=True)
class Question:
    """What a node asks, and which state fields the answer goes to."""

    system: str
    user: str
    output_key: str = ""
    output_keys: Mapping[str, Any] = field(default_factory=dict)
    fallback: Callable[[str], Mapping[str, Any]] | None = None

    @classmethod
    def read(cls, node: str, returned: Any) -> Question:
        """Read what an `@llm_node` method returned.

        Raises:
            WrongUpdate: it is not of the form that `@llm_node` describes.
        """
        if not isinstance(returned, Mapping):
            raise WrongUpdate(f"Node {node!r} returned {type(returned).__name__}; return system, user and output_key")
        known = {"system", "user", "output_key", "output_keys", "fallback"}
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


def ask(
    question: Question, *, node: str, spec: ModelSpec, model: str, types: Mapping[str, Any], provider: LLMProvider,
    listener: Listener,
) -> dict[str, Any]:  # fmt: skip
    """Ask until an answer fits and return the update it stands for.

    Raises:
        ModelError: no try succeeded; the message tells the last fault.
    """
    fit = Fit(question, types, json=spec.output_format == "json")
    exact, user, content, error = aliases.resolve(model, provider=provider.name), question.user, "", ""
    for attempt in range(1, spec.attempts + 1):
        pause = 0.0
        try:
            response = provider.complete(
                system=question.system, user=user, model=exact, max_tokens=spec.max_tokens,
                temperature=spec.temperature, schema=fit.schema, on_words=listener.words,
            )  # fmt: skip
            listener.usage(_usage(response, provider))
            content = response.content
            return fit.update(content)
        except TransientModelError as fault:
            error, pause = str(fault), _pause(attempt, fault.retry_after)
        except ValidationError as misfit:
            error = f"The answer does not fit: {_problems(misfit)}"
            user = f"{question.user}\n\nYour last answer was:\n{content}\n\n{error}\nAnswer again, with that mended."
        if attempt < spec.attempts:
            listener.attempt_failed(attempt=attempt, attempts=spec.attempts, error=error, pause=pause)
            time.sleep(pause)
    if content and question.fallback:
        return dict(question.fallback(content))
    raise ModelError(f"Node {node!r} asked {exact} {spec.attempts} times: {error}")


def _usage(response: LLMResponse, provider: LLMProvider) -> Usage:
    return Usage(
        model=response.model,
        provider=provider.name,
        tokens_in=response.tokens_in,
        tokens_out=response.tokens_out,
        cost_usd=response.cost_usd,
        simulated=response.simulated,
    )


def _pause(attempt: int, retry_after: float | None) -> float:
    if retry_after is not None:
        return min(retry_after, LONGEST_PAUSE)
    # Half of the pause is random, so that many runs refused at once do not come back at once.
    return min(FIRST_PAUSE * (1 << (attempt - 1)), LONGEST_PAUSE) * (0.5 + random.random() / 2)


def _bare(content: str) -> str:
    """Strip the code fence that models like to put around JSON."""
    text = content.strip()
    if text.startswith("```") and text.endswith("```"):
        return text.partition("\n")[2].removesuffix("```")
    return text


def _problems(misfit: ValidationError) -> str:
    items: Iterable[Any] = misfit.errors(include_url=False)[:5]
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg']}" for item in items)
