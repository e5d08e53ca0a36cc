"""What a site's database holds, read past all of its code."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.acceptance.site import Site

Row = dict[str, Any]

#: The tables, and of each the columns that hold JSON, which SQLite gives back as text.
TABLES = {
    "workflow": {"spec"},
    "run": {"input", "output", "error"},
    "event": {"data"},
    "wait": {"payload", "values", "result", "decisions"},
    "effect": {"result"},
    "emission": {"payload"},
    "inboxitem": {"body"},
    "channel": set[str](),
}

ACTING = """
    SELECT 1 FROM operators_effect JOIN operators_run ON operators_run.id = operators_effect.run_id
    WHERE operators_effect.state = 'attempted' AND operators_run.status = 'running' LIMIT 1
"""


@dataclass(frozen=True)
class Records:
    """All rows of the tables that tell of runs, at one moment."""

    workflows: list[Row]
    runs: list[Row]
    events: list[Row]
    waits: list[Row]
    effects: list[Row]
    emissions: list[Row]
    inbox: list[Row]
    channels: list[Row]

    def threads(self) -> dict[str, list[Row]]:
        """Return each run's own events, in the order of their numbers."""
        return {
            run_id: sorted((row for row in rows if row["channel"] == f"t_{run_id}"), key=lambda row: row["seq"])
            for run_id, rows in by_run(self.events).items()
        }


def by_run(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return rows by the run that they are about."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["run_id"]:
            found[row["run_id"]].append(row)
    return found


def read(site: Site) -> Records:
    """Read everything, in one transaction."""
    url = site.environment.get("DATABASE_URL", "")
    return Records(*(_postgres(url) if url else _sqlite(site)))


def acting(site: Site) -> bool:
    """Tell whether a worker is in the middle of an act at this moment."""
    if url := site.environment.get("DATABASE_URL", ""):
        with psycopg.connect(url) as connection:
            return bool(connection.execute(ACTING).fetchall())
    with closing(sqlite3.connect(site.home / "openvibe.db", timeout=30)) as connection:
        return bool(connection.execute(ACTING).fetchall())


def _sqlite(site: Site) -> list[list[Row]]:
    with closing(sqlite3.connect(site.home / "openvibe.db", timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        found = [[dict(row) for row in connection.execute(f"SELECT * FROM operators_{name}")] for name in TABLES]
    return [[_parsed(row, json_in) for row in rows] for rows, json_in in zip(found, TABLES.values(), strict=True)]


def _postgres(url: str) -> list[list[Row]]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return [connection.execute(f"SELECT * FROM operators_{name}".encode()).fetchall() for name in TABLES]


def _parsed(row: Row, json_in: set[str]) -> Row:
    return {name: json.loads(value) if name in json_in and value is not None else value for name, value in row.items()}
