"""How PostgreSQL lays out a table of ours; other databases need no word."""

from __future__ import annotations

from typing import Any

from django.db import connections

#: Half of each page stays free for a run's later versions, so that a step's change stays within it.
RUNS = "ALTER TABLE operators_run SET (fillfactor = 50)"


def lay_out(*, using: str, **_: Any) -> None:
    """Say it after every migration: the same word again changes nothing."""
    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as cursor:
            cursor.execute(RUNS)
