"""Which kinds of events somebody wants to hear of: `run.completed`, `run.*`, or `*` for all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from operators.errors import Misfit

#: Patterns in one request.
MOST = 50
_PATTERN = re.compile(r"\*|[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?")


def patterns(given: Iterable[str], *, field: str = "kinds") -> list[str]:
    """Return patterns that can be kept, each once. Raises `Misfit` naming one that is none."""
    found = list(dict.fromkeys(given))
    for pattern in found:
        if len(pattern) > 80 or not _PATTERN.fullmatch(pattern):
            raise _misfit(field, f"{pattern!r:.90} is no kind of event; use one such as run.completed, or run.*, or *")
    if len(found) > MOST:
        raise _misfit(field, f"has {len(found)} kinds; {MOST} are taken")
    return found


def fits(kind: str, wanted: Sequence[str]) -> bool:
    """Tell whether a kind is one of those wanted."""
    return any(
        pattern in ("*", kind) or (pattern.endswith(".*") and kind.startswith(pattern[:-1])) for pattern in wanted
    )


def _misfit(field: str, message: str) -> Misfit:
    return Misfit(f"{field}: {message}", errors=[{"field": field, "message": message}])
