"""Numbers that strangers send as text."""

from __future__ import annotations

#: No number of ours has more digits; Python refuses to read some thousands of them.
MOST_DIGITS = 18


def natural(text: str) -> int | None:
    """Return the natural number that a text spells, or None if it spells none that could be ours."""
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None
