"""Short names for models, resolved to each provider's exact ids at the moment of the call."""

from __future__ import annotations

from collections.abc import Mapping

_ANTHROPIC = {
    "haiku": "claude-haiku-4-5-20251001",
    "sonnet": "claude-sonnet-4-5-20250929",
    "opus": "claude-opus-4-6",
    "fast": "claude-haiku-4-5-20251001",
    "smart": "claude-opus-4-6",
}

ALIASES: dict[str, dict[str, str]] = {
    "anthropic": _ANTHROPIC,
    "openai": {"haiku": "gpt-4o-mini", "sonnet": "gpt-4o", "opus": "o3", "fast": "gpt-4o-mini", "smart": "o3"},
    # One family in three sizes, because all of it calls tools and obeys schemas; what a machine can hold differs, so
    # the provider's `aliases` option is there to choose others.
    "ollama": {
        "haiku": "llama3.2",
        "sonnet": "llama3.1",
        "opus": "llama3.3",
        "fast": "llama3.2",
        "smart": "llama3.3",
    },
    # The simulated model stands in for whichever one was named, so it keeps the alias visible.
    "simulated": {alias: f"simulated-{alias}" for alias in _ANTHROPIC},
}


def resolve(model: str, *, provider: str, own: Mapping[str, str] | None = None) -> str:
    """Return the exact id that `model` stands for, by `own` aliases first; an exact id stands for itself."""
    return {**ALIASES.get(provider, {}), **(own or {})}.get(model, model)
