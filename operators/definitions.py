"""The operators that this process can play: read from modules once."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.conf import settings

from openvibe import configuration, llm, sources, tracing
from openvibe.llm import LLMProvider
from openvibe.registry import OperatorDefinition, Registry
from openvibe.tracing import Tracer

registry = Registry()
#: What this process has read from the database: an operator's id, and the hash of the text behind it.
from_database: dict[str, str] = {}


@cache
def load() -> None:
    """Register the operators that this server serves, from the modules and files that the settings name.

    Raises:
        SetupError: a source is missing, offers no operators, or holds a definition with a mistake.
    """
    chosen = settings.OPENVIBE
    for definition in sources.operators(chosen.operator_modules, only=chosen.only):
        registry.add(definition)


def from_code() -> list[OperatorDefinition]:
    """Return the operators that come from modules and files."""
    return [definition for definition in registry if definition.spec.id not in from_database]


@cache
def provider() -> LLMProvider:
    """Return this process's model provider, with its one pooled client.

    A script that calls `configure(llm=…)` before `serve(…)` has its say before the environment.
    """
    scripted, chosen = configuration.current(), settings.OPENVIBE
    if scripted.llm != configuration.Configuration().llm:
        return scripted.provider()
    known: dict[str, dict[str, Any]] = {
        "simulated": {"words_per_second": chosen.simulated_pace},
        "anthropic": {"api_key": chosen.anthropic_api_key, "base_url": chosen.anthropic_base_url},
        "openai": {"api_key": chosen.openai_api_key, "base_url": chosen.openai_base_url},
        "ollama": {"base_url": chosen.ollama_host},
    }
    return llm.provider(chosen.llm, **{name: value for name, value in known[chosen.llm].items() if value})


@cache
def tracer() -> Tracer:
    """Return this process's tracer; a script's own choice goes before the environment's."""
    scripted = configuration.current()
    if scripted.tracing != "none":
        return tracing.tracer(scripted.tracing, scripted.tracing_project)
    return tracing.tracer(settings.OPENVIBE.tracing, settings.OPENVIBE.tracing_project)
