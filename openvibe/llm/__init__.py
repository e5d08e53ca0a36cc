"""Asking models, through one protocol whichever vendor answers."""

from __future__ import annotations

import importlib
from typing import Any

from openvibe.errors import SetupError
from openvibe.llm.adapter import Adapter, is_ready
from openvibe.llm.protocol import LLMProvider, LLMResponse, Role, Tool, ToolCall, Turn

__all__ = ["PROVIDERS", "LLMProvider", "LLMResponse", "Role", "Tool", "ToolCall", "Turn", "adapted", "provider"]

#: Provider names and the modules that implement them; a module is imported when its provider is asked for, so that
#: nobody pays for a vendor's package that is not used.
PROVIDERS = {
    "simulated": "openvibe.llm.simulated",
    "anthropic": "openvibe.llm.anthropic",
    "openai": "openvibe.llm.openai",
    "ollama": "openvibe.llm.ollama",
}


#: Providers that must not be reached now; `openvibe.testing.forbid_real_models` fills it.
forbidden: set[str] = set()


def provider(name: str, **options: Any) -> LLMProvider:
    """Make the provider of that name; `options` go to its constructor.

    Raises:
        SetupError: no such provider, its package is not installed, it lacks its key or does not know an option.
    """
    module = PROVIDERS.get(name)
    if module is None:
        raise SetupError(f"No model provider is called {name!r}; use one of: {', '.join(PROVIDERS)}")
    _permit(name)
    try:
        made: LLMProvider = importlib.import_module(module).provider(**options)
    except ImportError as error:
        raise SetupError(f"Provider {name!r} needs a package: pip install openvibe[{name}] ({error})") from error
    except TypeError as error:
        raise SetupError(f"Provider {name!r} does not take these options: {error}") from error
    return made


def adapted(thing: Any, **options: Any) -> LLMProvider:
    """Return a provider, whatever was given: a name (with `options`), a provider, or an object with less.

    What has a plain `complete` that takes everything is returned as it is. An `async def complete` is run on the
    process's loop; one without `schema` is told the schema in its system text, one without `on_words` hands out its
    answer in one piece, one without `temperature` does not hear of it, and one without `history` and `tools` refuses
    agent nodes.

    Raises:
        SetupError: it is neither a provider's name nor an object with a `complete` method.
    """
    if isinstance(thing, str):
        return provider(thing, **options)
    made: LLMProvider = thing if is_ready(thing) else Adapter(thing)
    _permit(made.name)
    return made


def _permit(name: str) -> None:
    if name in forbidden:
        raise SetupError(f"Provider {name!r} is forbidden here: this program must reach no real model")
