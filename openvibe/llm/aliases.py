"""Short names for models, resolved to each provider's exact ids at the moment of the call."""

from __future__ import annotations

_ANTHROPIC = {
    "haiku": "claude-haiku-4-5-20251001",
    "sonnet": "claude-sonnet-4-5-20250929",
    "opus": "claude-opus-4-6",
    "fast": "claude-haiku-4-5-20251001",
    "smart": "claude-opus-4-6",
}

ALIASES: dict[str, dict[str, str]] = {
    "anthropic": _ANTHROPIC,
    # The simulated model stands in for whichever one was named, so it keeps the alias visible.
    "simulated": {alias: f"simulated-{alias}" for alias in _ANTHROPIC},
}


def resolve(model: str, *, provider: str) -> str:
    """Return the exact id that `model` stands for; an exact id stands for itself."""
    return ALIASES.get(provider, {}).get(model, model)
