"""The operators that this process can play: read from modules once."""

from __future__ import annotations

import importlib
from functools import cache

from django.conf import settings

from openvibe import llm
from openvibe.errors import SetupError
from openvibe.llm import LLMProvider
from openvibe.registry import Registry

registry = Registry()


@cache
def load() -> None:
    """Register every operator of the modules that the settings name. A module offers a list called `OPERATORS`.

    Raises:
        SetupError: a module is missing, offers no operators, or holds a definition with a mistake.
    """
    for name in settings.OPENVIBE.operator_modules:
        try:
            module = importlib.import_module(name)
        except SetupError as error:
            raise SetupError(f"OPENVIBE_OPERATORS names {name!r}, which holds a mistake: {error}") from error
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise SetupError(f"OPENVIBE_OPERATORS names {name!r}, which cannot be imported: {told}") from error
        if not hasattr(module, "OPERATORS"):
            raise SetupError(f"OPENVIBE_OPERATORS names {name!r}, which offers no list called OPERATORS")
        for cls in module.OPERATORS:
            registry.register(cls)


@cache
def provider() -> LLMProvider:
    """Return this process's model provider, with its one pooled client."""
    chosen = settings.OPENVIBE
    if chosen.llm == "anthropic":
        return llm.provider(
            "anthropic", api_key=chosen.anthropic_api_key or None, base_url=chosen.anthropic_base_url or None
        )
    return llm.provider(chosen.llm, words_per_second=chosen.simulated_pace)
