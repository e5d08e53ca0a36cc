"""Messages that can be read but not kept are dead letters, and cost no other."""

from __future__ import annotations

import pytest
from django.db import DataError

from openvibe.protocol import envelope
from operators.bridge import ingest, postings
from operators.models import Event, Run
from operators.models.event import EventRow
from tests.bridge.conftest import letters, said
from tests.bridge.test_ingest import hello, message, thread

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project", "memory")]


def test_a_message_that_cannot_be_kept_costs_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write = postings._write

    def written(rows: list[EventRow]) -> None:
        if any("poison" in str(row.data) for row in rows):
            raise DataError("no database keeps this")
        write(rows)

    monkeypatch.setattr(postings, "_write", written)
    poison = message(thread(run.id), {"id": "p", "content": "poison"})
    ingest.take([hello(1, subject=thread(run.id)), poison, hello(2, subject=thread(run.id)), hello(3)])
    assert (said(f"t_{run.id}"), said()) == (["hello 1", "hello 2"], ["hello 3"])
    assert [(letter[0], letter[1]) for letter in letters()] == [(poison.subject, poison.data)]
    assert "cannot be kept" in letters()[0][2]
    run.refresh_from_db()
    assert run.last_seq == 5


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_time_for_which_utc_has_no_name_is_refused(run: Run, when: str) -> None:
    told = {"version": "1", "session_id": run.id, "timestamp": when, "type": "event.agent.started", "id": "m"}
    agent = {"agent_id": "coder-1", "role": "coder"}
    poison = message(f"sessions.{run.id}.events", {**told, "payload": agent})
    ingest.take([poison, hello(1, subject=thread(run.id))])
    assert "hello 1" in said(f"t_{run.id}")
    assert [(letter[0], letter[1]) for letter in letters()] == [(poison.subject, poison.data)]
    assert "between the years 1 and 9999" in letters()[0][2]


@pytest.mark.parametrize("number", ["1e30", "-1e25", "12345678901234567890123", "1e308"])
def test_a_number_that_databases_spell_otherwise_is_told_to_others_as_it_came(run: Run, number: str) -> None:
    ingest.take([message(thread(run.id), b'{"id": "m", "content": "much", "payload": {"much": %b}}' % number.encode())])
    [event] = Event.objects.filter(channel=f"t_{run.id}", kind__startswith="agent.")
    assert event.data["payload"] == {"much": float(number)}
    assert envelope.loads(envelope.dumps(event.wire()))["data"]["payload"] == {"much": float(number)}
