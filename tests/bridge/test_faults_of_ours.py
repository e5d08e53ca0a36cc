"""A message at which we fail holds nobody up: it comes again a few times and is a dead letter then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from django.db import connection

from openvibe.bus import Message
from operators.bridge import ingest
from tests.bridge.conftest import Bridge, eventually, letters, said

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("project"),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="The fault is a trigger in SQLite's words"),
]

PUBLIC = "cg.v1.default.public.evt.agent.scout.message"
BAD = b"{not json"


@contextlib.contextmanager
def fault() -> Iterator[None]:
    """Let the database refuse a dead letter, unless its reason is that we failed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER fault BEFORE INSERT ON operators_deadletter WHEN NEW.reason NOT LIKE 'It failed%' "
            "BEGIN SELECT RAISE(ABORT, 'a fault of ours'); END"
        )
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER fault")


def hello(number: int) -> Message:
    return Message(PUBLIC, b'{"id": "m%d", "content": "hello %d"}' % (number, number))


@pytest.mark.usefixtures("memory")
def test_only_the_message_to_blame_comes_again() -> None:
    bad = Message(PUBLIC, BAD, deliveries=1)
    with fault():
        assert ingest.take([hello(1), bad, hello(2)]) == [bad]
    assert said() == ["hello 1", "hello 2"]
    assert letters() == []


@pytest.mark.usefixtures("memory")
def test_after_enough_deliveries_it_is_a_dead_letter_that_says_why() -> None:
    with fault():
        assert len(ingest.take([Message(PUBLIC, BAD, deliveries=ingest.MOST_DELIVERIES - 1)])) == 1
        assert ingest.take([hello(1), Message(PUBLIC, BAD, deliveries=ingest.MOST_DELIVERIES)]) == []
    ((_, body, reason),) = letters()
    assert body == BAD
    assert reason.startswith(f"It failed {ingest.MOST_DELIVERIES} times, at last so: IntegrityError: a fault of ours")
    assert said() == ["hello 1"]


def test_on_a_real_server_the_others_arrive_and_it_comes_again_until_it_is_dealt_with(bridge: Bridge) -> None:
    with fault():
        bridge.send((PUBLIC, BAD), (PUBLIC, {"id": "m1", "content": "hello 1"}))
        eventually(lambda: said() == ["hello 1"])
        bridge.send((PUBLIC, {"id": "m2", "content": "hello 2"}))
        eventually(lambda: said() == ["hello 1", "hello 2"])
        assert letters() == []
    eventually(lambda: [letter[1] for letter in letters()] == [BAD])
