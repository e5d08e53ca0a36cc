"""Times that come from outside."""

from __future__ import annotations

from datetime import UTC, datetime

from django.utils.dateparse import parse_datetime


def moment(text: str) -> datetime | None:
    """Return an ISO 8601 time with its offset by UTC; None if it is none, or one for which UTC has no name."""
    try:
        found = parse_datetime(text)
        return found.astimezone(UTC) if found and found.tzinfo else None
    except (ValueError, OverflowError):
        return None
