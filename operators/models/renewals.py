"""The leases of many runs, prolonged: on PostgreSQL in one statement, which waits for nobody."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import orjson
from django.db import connection

from operators.models.run import Run

# A run whose row somebody else holds at this moment is committing a step, which prolongs its lease by itself.
_MANY = """
WITH held AS (
    SELECT run.id
    FROM jsonb_to_recordset(%s::jsonb) AS claim(id text, epoch int) JOIN operators_run run ON run.id = claim.id
    WHERE run.epoch = claim.epoch AND run.status = 'running'
    FOR NO KEY UPDATE OF run SKIP LOCKED
)
UPDATE operators_run SET lease_until = %s FROM held WHERE operators_run.id = held.id
"""


def renew(claims: Mapping[str, int], *, until: datetime) -> None:
    """Prolong the leases of those of these claims (run id and epoch) that still hold."""
    if claims and connection.vendor == "postgresql":
        given = [{"id": run_id, "epoch": epoch} for run_id, epoch in claims.items()]
        with connection.cursor() as cursor:
            cursor.execute(_MANY, [orjson.dumps(given).decode(), until])
        return
    for run_id, epoch in claims.items():
        Run.objects.claimed(run_id, epoch).update(lease_until=until)
