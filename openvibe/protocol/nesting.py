"""How deep lists and objects of a JSON value may lie within each other."""

from __future__ import annotations

from typing import Any

#: Readers in many languages give up soon after.
MOST_LEVELS = 100


#: What is wrong with a value that has more.
FAULT = f"has more than {MOST_LEVELS} levels of lists and objects"


def deep(value: Any, *, most: int = MOST_LEVELS) -> bool:
    """Tell whether a value has more levels than are taken."""
    level = [value]
    for _ in range(most + 1):
        level = [
            item
            for part in level
            if isinstance(part, (list, tuple, dict))
            for item in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return False
    return True
