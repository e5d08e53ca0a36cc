"""A message at which we fail holds nobody up: it comes again a few times and is a dead letter then."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection

from openvibe.bus import Message
from operators.bridge import dialects, ingest, postings, suspects, tries
from operators.bridge.letters import bury
from operators.models import DeadLetter, Suspect
from tests.bridge.conftest import Bridge, eventually, letters, said

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("project"),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="The fault is a trigger in SQLite's words"),
]

PUBLIC = "cg.v1.default.public.evt.agent.scout.message"
BAD = b"{not json"


@contextlib.contextmanager
def fault(on: str = "INSERT") -> Iterator[None]:
    """Let the database refuse a dead letter, unless its reason is that we failed."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TRIGGER fault BEFORE {on} ON operators_deadletter WHEN NEW.reason NOT LIKE 'It failed%' "
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
    bad = Message(PUBLIC, BAD)
    with fault():
        assert ingest.take([hello(1), bad, hello(2)]) == [bad]
    assert said() == ["hello 1", "hello 2"]
    assert letters() == []


@pytest.mark.usefixtures("memory")
def test_after_enough_failures_it_is_a_dead_letter_that_says_why() -> None:
    bad = Message(PUBLIC, BAD, position="a:1:1")
    with fault():
        for _ in range(tries.MOST - 1):
            assert list(ingest.take([hello(1), bad])) == [bad]
        assert ingest.take([hello(2), bad]) == []
    ((_, body, reason),) = letters()
    assert body == BAD
    assert reason.startswith(f"It failed {tries.MOST} times, at last so: IntegrityError: a fault of ours")
    assert said() == ["hello 1", "hello 2"]


@pytest.mark.usefixtures("memory")
def test_deliveries_while_the_database_was_away_are_no_failures() -> None:
    bad = Message(PUBLIC, BAD, position="a:2:1", deliveries=1_000)
    with fault():
        assert list(ingest.take([bad])) == [bad]
    assert letters() == []


@pytest.mark.usefixtures("memory")
def test_a_message_comes_again_later_each_time_until_it_is_dealt_with() -> None:
    bad = Message(PUBLIC, BAD, position="a:3:1")
    pauses = []
    with fault():
        for _ in range(tries.MOST - 1):
            ingest.take([bad])
            pauses.append(tries.pause(bad))
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert ingest.take([bad]) == []
    assert [letter[1] for letter in letters()] == [BAD]
    # A later fault is the first one again.
    assert tries.failed(bad) == 1
    tries.forget([bad])


def test_a_message_at_which_we_fail_holds_up_no_other(bridge: Bridge) -> None:
    with fault():
        bridge.send((PUBLIC, BAD))
        # By its fourth failure it would have held up its stream for seconds.
        eventually(lambda: max(tries._failed.values(), default=0) >= 3)
        began = time.monotonic()
        for number in range(5):
            bridge.send((PUBLIC, {"id": f"m{number}", "content": f"hello {number}"}))
            eventually(lambda number=number: f"hello {number}" in said())
        assert time.monotonic() - began < 2
        assert letters() == []


def test_on_a_real_server_the_others_arrive_and_it_comes_again_until_it_is_dealt_with(bridge: Bridge) -> None:
    with fault():
        bridge.send((PUBLIC, BAD), (PUBLIC, {"id": "m1", "content": "hello 1"}))
        eventually(lambda: said() == ["hello 1"])
        bridge.send((PUBLIC, {"id": "m2", "content": "hello 2"}))
        eventually(lambda: said() == ["hello 1", "hello 2"])
        assert letters() == []
    eventually(lambda: [letter[1] for letter in letters()] == [BAD])


class End(BaseException):
    """The end of a bridge: nothing of ours is done any more after it."""


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> None:
    read = dialects.read

    def fatal(message: Message, *, project: str) -> object:
        if b"deadly" in message.data:
            raise End
        return read(message, project=project)

    monkeypatch.setattr(dialects, "read", fatal)


@pytest.mark.usefixtures("memory", "deadly")
def test_a_message_that_ends_every_bridge_is_a_dead_letter_and_costs_no_other_its_place() -> None:
    deadly = Message(PUBLIC, b'{"id": "d", "content": "deadly"}', position="a:9:1")
    ends = 0
    for deliveries in range(1, 20):
        batch = [dataclasses.replace(one, deliveries=deliveries) for one in (deadly, hello(1))]
        try:
            assert list(ingest.take(batch)) == []
        except End:
            ends += 1
            continue
        break
    assert ends == suspects.OFTEN + suspects.MOST
    ((_, body, reason),) = letters()
    assert (body, reason) == (deadly.data, f"{suspects.MOST} times the bridge ended while it dealt with this")
    assert said() == ["hello 1"]
    assert not Suspect.objects.exists()


@pytest.mark.usefixtures("memory")
def test_what_came_often_for_other_reasons_is_dealt_with_and_leaves_no_mark() -> None:
    often = [dataclasses.replace(hello(number), deliveries=1_000, position=f"a:{number}:1") for number in (1, 2)]
    assert list(ingest.take([*often, hello(3)])) == []
    assert said() == ["hello 1", "hello 2", "hello 3"]
    assert not Suspect.objects.exists()


@pytest.mark.usefixtures("memory")
def test_a_database_that_goes_away_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    often = dataclasses.replace(hello(1), deliveries=1_000, position="a:1:1")
    keep = postings.keep
    for _ in range(2 * suspects.MOST):
        monkeypatch.setattr(postings, "keep", _away)
        with pytest.raises(OperationalError):
            ingest.take([often])
    monkeypatch.setattr(postings, "keep", keep)
    assert list(ingest.take([often])) == []
    assert (said(), letters()) == (["hello 1"], [])


def _away(heard: object) -> None:
    raise OperationalError("the database has gone")


@pytest.mark.usefixtures("memory")
def test_a_letter_at_which_we_fail_again_says_how() -> None:
    bury(Message(PUBLIC, BAD), "It failed 10 times")
    letter = DeadLetter.objects.get()
    with fault("UPDATE"):
        assert "a fault of ours" in ingest.replay(letter)
    assert "no JSON" in ingest.replay(letter)
    assert letter.replayed_at is None
