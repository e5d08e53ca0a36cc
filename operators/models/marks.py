"""How far the bus has taken the events of many runs, written down without keeping anybody waiting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from django.db import connection, transaction

#: A run's number rises over what follows it without a gap. Whatever changes a run takes `told` back; a run that is
#: about to be played is not marked, so that it stays in the index in which its next change would put it again.
_CHANGE = (
    "announced_seq = {last}, "
    "told = (last_seq = {last} AND status <> 'queued' AND (status <> 'running' OR lease_until IS NULL))"
)
# Nothing but these texts of ours stands in the statements; every value is a parameter.
_ONE = f"UPDATE operators_run SET {_CHANGE} WHERE id = %s AND announced_seq >= %s AND announced_seq < %s"  # noqa: S608
# Whoever claims a run or commits a step does not wait for this, nor this for him.
_MANY = f"""
WITH given AS (
    SELECT run.id, part.last
    FROM jsonb_to_recordset(%s::jsonb) AS part(id text, first int, last int) JOIN operators_run run ON run.id = part.id
    WHERE run.announced_seq >= part.first - 1 AND run.announced_seq < part.last
    FOR NO KEY UPDATE OF run SKIP LOCKED
)
UPDATE operators_run SET {_CHANGE.format(last="given.last")} FROM given WHERE operators_run.id = given.id
RETURNING operators_run.id
"""  # noqa: S608


def mark(taken: Iterable[tuple[str, int, int]]) -> set[str]:
    """Raise the announced numbers of runs over these parts (run id, first and last number); return whose were raised.

    A run is left out whose numbers before the part are not announced, and, on PostgreSQL, one that somebody else
    writes at this moment.
    """
    if connection.vendor == "postgresql":
        given = [{"id": run_id, "first": first, "last": last} for run_id, first, last in taken]
        with connection.cursor() as cursor:
            cursor.execute(_MANY, [orjson.dumps(given).decode()])
            return {run_id for (run_id,) in cursor.fetchall()}
    with transaction.atomic(), connection.cursor() as cursor:
        return {run_id for run_id, first, last in taken if _marked(cursor, run_id, first, last)}


def _marked(cursor: Any, run_id: str, first: int, last: int) -> bool:
    cursor.execute(_ONE.format(last="%s"), [last, last, run_id, first - 1, last])
    return bool(cursor.rowcount)
