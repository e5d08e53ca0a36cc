"""What a vendor's HTTP answer says when it is no answer: whether and when the same call is worth another try."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime
from typing import Protocol

from openvibe.errors import ModelError, TransientModelError

#: Timeouts, conflicts and rate limits; beside them every fault of the server itself.
_TRANSIENT = {408, 409, 425, 429}


class Headers(Protocol):
    """Finds a header's value by its name in any case, as HTTP libraries do."""

    def get(self, name: str, /) -> str | None:
        """Return it, or None."""


def translated(vendor: str, status: int, message: str, headers: Headers) -> ModelError:
    """Return the error that a refusal stands for."""
    text = f"{vendor} answered {status}: {message}"
    if headers.get("x-should-retry") == "false" or (status not in _TRANSIENT and status < 500):
        return ModelError(text)
    return TransientModelError(text, retry_after=retry_after(headers))


def retry_after(headers: Headers) -> float | None:
    """Return the pause in seconds that the headers ask for, or None if they ask for none.

    It may be written in seconds or as a date (RFC 9110, 10.2.3), or in milliseconds as OpenAI and Anthropic also do.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        seconds = _number(value) if value else None
        if seconds is not None:
            return seconds * unit if seconds > 0 else None
    return _until(headers.get("retry-after"))


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _until(date: str | None) -> float | None:
    try:
        seconds = parsedate_to_datetime(date).timestamp() - time.time() if date else 0.0
    except ValueError:
        return None
    return seconds if seconds > 0 else None
