"""How deep lists and objects of a JSON value may lie within each other."""

from __future__ import annotations

from typing import Any

#: Readers in many languages give up soon after.
MOST_LEVELS = 100


def deep(value: Any) -> bool:
    """Tell whether a value has more levels than are taken."""
    level = [value]
    for _ in range(MOST_LEVELS + 1):
        level = [
            item
            for part in level
            if isinstance(part, (list, dict))
            for item in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return False
    return True
