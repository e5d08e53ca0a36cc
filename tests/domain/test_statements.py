"""Statements of our own go by the index that is meant for them."""

from __future__ import annotations

import json

import pytest
from django.db import connection, models
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from operators.models import Box, Card, Event
from operators.models.statements import present

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
