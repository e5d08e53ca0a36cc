"""Statements of our own go by the index that is meant for them."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import connection, models
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from operators.models import Box, Card, Event, Run
from operators.models.renewals import renew
from operators.models.statements import present
from operators.services import leases
from tests.domain.lab import started

PLACE = ("project_id", "channel", "message_id")


def told(project, message_id: str | None, seq: int) -> None:
    fields = {"channel": "public", "seq": seq, "kind": "message", "message_id": message_id}
    Event.objects.create(project_id=project.id, created_at=timezone.now(), **fields)


def test_what_is_present_is_found_and_nothing_else(project):
    told(project, "a", 1)
    told(project, None, 2)
    keys = [(project.id, "public", name) for name in ("a", "b", "None")]
    assert present(Event, PLACE, keys) == {(project.id, "public", "a")}


def test_messages_are_looked_up_by_their_index(project):
    keys = [(project.id, "public", f"m{number}") for number in range(50)]
    with CaptureQueriesContext(connection) as asked:
        present(Event, PLACE, keys)
    assert "one_event_per_message" in plan(asked[0]["sql"])


@pytest.mark.parametrize("model", [Box, Card])
def test_what_a_unique_key_begins_with_costs_no_index_of_its_own(project, model: type[models.Model]) -> None:
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, model._meta.db_table)
    indexes = [told["columns"] for told in found.values() if told["index"] or told["unique"]]
    assert ["project_id"] not in indexes
    assert [columns for columns in indexes if columns[0] == "project_id"]


def plan(sql: str) -> str:
    """Return how the database would go about a question if it read no whole table."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}")
            return json.dumps(cursor.fetchall())
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        return str(cursor.fetchall())


def test_leases_of_claims_that_hold_are_prolonged_together_and_no_others(lab):
    now = timezone.now()
    runs = [started(lab, "four") for _ in range(3)]
    for run in runs:
        leases.take(run.id)
    held, lost, ended = runs
    Run.objects.update(lease_until=now)
    Run.objects.filter(pk=ended.pk).update(status=Run.Status.CANCELLED)

    renew({held.id: 1, lost.id: 0, ended.id: 1, "run_none": 1}, until=now + timedelta(minutes=1))

    assert dict(Run.objects.values_list("id", "lease_until")) == {
        held.id: now + timedelta(minutes=1), lost.id: now, ended.id: now,
    }  # fmt: skip
