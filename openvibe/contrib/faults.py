"""Turns what an HTTP service answered into errors that say whether another try may help."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from openvibe.errors import OutsideServiceError, TransientServiceError

_TRANSIENT = {408, 425, 429}


def refusal(service: str, status: int, text: str, retry_after: str | None = None) -> OutsideServiceError:
    """Return the error for an HTTP status of 400 or more; `retry_after` is the header of that name."""
    message = f"{service} answered {status}: {text[:500] or 'no reason given'}"
    if status in _TRANSIENT or status >= 500:
        return TransientServiceError(message, seconds(retry_after))
    return OutsideServiceError(message)


def seconds(retry_after: str | None) -> float | None:
    """Return the pause that a `retry-after` header asks for, in seconds or as a date (RFC 9110 §10.2.3)."""
    if not retry_after:
        return None
    try:
        return max(float(retry_after), 0.0)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max((moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
