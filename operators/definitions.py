"""The operators that this process can play: read from modules once."""

from __future__ import annotations

from functools import cache

from django.conf import settings

from openvibe import llm, sources
from openvibe.llm import LLMProvider
from openvibe.registry import Registry

registry = Registry()


@cache
def load() -> None:
    """Register the operators that this server serves, from the modules and files that the settings name.

    Raises:
        SetupError: a source is missing, offers no operators, or holds a definition with a mistake.
    """
    chosen = settings.OPENVIBE
    for definition in sources.operators(chosen.operator_modules, only=chosen.only):
        registry.add(definition)


@cache
def provider() -> LLMProvider:
    """Return this process's model provider, with its one pooled client."""
    chosen = settings.OPENVIBE
    if chosen.llm == "anthropic":
        return llm.provider(
            "anthropic", api_key=chosen.anthropic_api_key or None, base_url=chosen.anthropic_base_url or None
        )
    return llm.provider(chosen.llm, words_per_second=chosen.simulated_pace)
