"""Keeps secrets out of what is stored and sent: values of secret variables, and what the configured patterns fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings

#: A step's id is ours: a pattern that happens to fit a part of it would tear it from its step.
OWN = "step_id"
#: What stands in a secret's place.
MASK = "•••"


@dataclass(frozen=True)
class Masker:
    """Hides these secrets, and what these regular expressions fit.

    `secrets` come longest first, so that one that contains another is hidden whole.
    """

    secrets: tuple[str, ...]
    _literal: re.Pattern[str] | None
    _pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, secrets: Sequence[str], patterns: Sequence[str]) -> Masker:
        """Return a masker whose expressions are compiled once."""
        ordered = tuple(sorted(set(secrets), key=len, reverse=True))
        literal = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        pattern = re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None
        return cls(ordered, literal, pattern)

    def text(self, text: str) -> str:
        """Return a text without its secrets."""
        # Looking for each secret is many times faster than an expression with all of them, and hardly ever finds one.
        if self._literal and any(secret in text for secret in self.secrets):
            text = self._literal.sub(MASK, text)
        return self._pattern.sub(MASK, text) if self._pattern else text

    def value(self, value: Any) -> Any:
        """Return a JSON value without its secrets; keys of objects are texts too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): item if key == OWN else self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def unclear(self, text: str) -> int:
        """Return how many characters at a text's end may be the beginning of a secret that goes on."""
        longest = max((len(secret) - 1 for secret in self.secrets), default=0)
        for length in range(min(longest, len(text)), 0, -1):
            if any(secret.startswith(text[-length:]) for secret in self.secrets if len(secret) > length):
                return length
        return 0


@cache
def masker() -> Masker:
    """Return this process's masker."""
    return Masker.of(settings.OPENVIBE.secrets, settings.OPENVIBE.masked)


def masked(value: Any) -> Any:
    """Return a JSON value without its secrets."""
    known = masker()
    return known.value(value) if known.secrets or settings.OPENVIBE.masked else value
