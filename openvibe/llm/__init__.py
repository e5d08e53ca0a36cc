"""Asking models, through one protocol whichever vendor answers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from openvibe.errors import SetupError

#: Provider names and the modules that implement them; a module is imported when its provider is asked for, so that
#: nobody pays for a vendor's package that is not used.
PROVIDERS = {"simulated": "openvibe.llm.simulated", "anthropic": "openvibe.llm.anthropic"}


@dataclass(frozen=True, slots=True)
class LLMResponse:
    """A model's whole answer. `cost_usd` is None when the price of `model` is not known, never zero then."""

    content: str
    tokens_in: int
    tokens_out: int
    model: str
    cost_usd: Decimal | None
    simulated: bool = False


class LLMProvider(Protocol):
    """What a model vendor must offer. Implementations are thread-safe and keep their own pooled client."""

    name: str

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
        """Ask once and return the whole answer, handing out its words as they arrive.

        `schema` is a JSON Schema that the answer must obey, where the vendor can enforce one.

        Raises:
            TransientModelError: the same call may succeed later.
            ModelError: it will not.
        """
        ...


def provider(name: str, **options: Any) -> LLMProvider:
    """Make the provider of that name; `options` go to its constructor.

    Raises:
        SetupError: no such provider, its package is not installed, or it lacks its key.
    """
    module = PROVIDERS.get(name)
    if module is None:
        raise SetupError(f"No model provider is called {name!r}; use one of: {', '.join(PROVIDERS)}")
    try:
        made: LLMProvider = importlib.import_module(module).provider(**options)
    except ImportError as error:
        raise SetupError(f"Provider {name!r} needs a package: pip install openvibe[{name}] ({error})") from error
    return made
