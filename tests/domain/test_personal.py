"""The channels of people: what gates ask of each, numbered without holes, and told to nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.db.models import F
from django.utils import timezone

from openvibe.bus import Message
from openvibe.bus.memory import MemoryBus
from openvibe.protocol import subjects
from openvibe.protocol.streams import STREAMS
from openvibe.registry import define
from operators import clock, definitions
from operators.link import link
from operators.models import Channel, Event, Membership, Operator, Project, Wait
from operators.services import announcements, compiled, overrides, personal, registration, retention, timeline, waits
from tests.domain.board import Board
from tests.domain.lab import played, started, thread

pytestmark = pytest.mark.django_db(transaction=True)
APPROVE = waits.Answer("approve")


@pytest.fixture
def board(project: Project) -> Iterator[Operator]:
    made = define(Board)
    definitions.registry.add(made)
    yield registration.register(project, made)
    definitions.registry.remove("board")
    compiled.workflow.cache_clear()


@pytest.fixture
def finance(bob: User) -> Group:
    group = Group.objects.create(name="finance")
    group.user_set.add(bob)
    return group


def told(user: str) -> list[tuple[int, str]]:
    assert announcements.settle(20)
    return [(event.seq, event.kind) for event in timeline.read("default", f"u_{user}")]


def test_a_gate_is_told_to_those_who_may_answer_and_to_nobody_else(alice, bob, vera, charlie, gate):
    assert told("alice") == told("bob") == [(1, "gate.opened")]
    assert (told("vera"), told("charlie")) == ([], [])
    [event] = timeline.read("default", "u_alice")
    opened = next(item for item in thread(gate.run) if item.kind == "gate.opened")
    assert (event.run_id, event.node, event.data, event.created_at) == (
        gate.run_id, gate.node, opened.data, opened.created_at
    )  # fmt: skip
    waits.answer(gate, APPROVE, actor=alice)
    assert told("alice") == told("bob") == [(1, "gate.opened"), (2, "gate.decided")]


def test_a_gate_that_was_overridden_is_told_anew_to_those_who_may_answer(alice, bob, vera, gate):
    Membership.objects.filter(user=alice).update(may_override=True)
    values = {"personalized_sequence": gate.payload["personalized_sequence"][:1]}
    overrides.override(gate, values=values, reason="one is enough", version=1, actor=alice)
    played(gate.run)
    assert [kind for _, kind in told("bob")] == ["gate.opened", "gate.overridden", "gate.opened"]
    assert told("vera") == []


def test_a_gate_of_several_is_told_to_each_of_them_once(alice, bob, vera, finance, board):
    run = played(started(board, "all"))
    assert told("alice") == [(1, "gate.opened")]
    assert told("bob") == [(1, "gate.opened")]
    assert [event.data["approver"] for name in ("alice", "bob") for event in timeline.read("default", f"u_{name}")] == [
        "alice", "finance",
    ]  # fmt: skip
    assert run.status == "waiting"


def test_what_is_asked_of_a_name_that_nobody_bears_is_told_to_the_owners(board, alice, bob):
    played(started(board, "all"))
    assert told("alice") == [(1, "gate.opened"), (2, "gate.opened")]
    assert [event.data["approver"] for event in timeline.read("default", "u_alice")] == ["alice", "finance"]
    assert told("bob") == []


def test_what_is_asked_of_a_group_in_which_nobody_is_left_is_told_to_the_owners(board, alice, bob, finance):
    User.objects.filter(username="bob").update(is_active=False)
    played(started(board, "all"))
    assert [kind for _, kind in told("alice")] == ["gate.opened", "gate.opened"]


def test_whom_a_gate_is_passed_on_to_hears_of_it(board, alice, bob, finance):
    played(started(board, "passed_on"))
    Wait.objects.update(deadline=timezone.now() - timedelta(seconds=1))
    assert "gate.escalated" not in [kind for _, kind in told("bob")]
    clock.meet_deadlines()
    assert [kind for _, kind in told("bob")].count("gate.escalated") == 3
    assert [kind for _, kind in told("alice")].count("gate.escalated") == 1


def test_it_is_announced_on_the_channels_own_subject(engagement, alice):
    bus, heard = MemoryBus(), []

    async def hear(message: Message) -> None:
        heard.append(message)

    async def listen() -> None:
        await bus.connect()
        await bus.ensure(STREAMS)
        await bus.subscribe("cg.v1.default.u_alice.>", hear)

    link.use(bus)
    link.submit(listen()).result(10)
    played(engagement)
    assert told("alice") == [(1, "gate.opened")]
    [message] = heard
    assert message.subject == "cg.v1.default.u_alice.evt.sys.timeline.recorded"
    [event] = json.loads(message.data)["payload"]["events"]
    assert (event["seq"], event["type"], event["channel"]) == (1, "gate.opened", "u_alice")
    assert Channel.objects.get(name="u_alice").announced_seq == 1


def test_whoever_tells_it_again_tells_it_once_and_without_a_hole(board, alice, bob):
    runs = [played(started(board, "lenient")) for _ in range(3)]
    assert announcements.settle(20)
    news = [event for run in runs for event in thread(run) if event.kind in personal.KINDS]

    def again(_: int) -> None:
        try:
            personal.repeated(news)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(again, range(8)))
    assert [seq for seq, _ in told("alice")] == [1, 2, 3]
    assert [seq for seq, _ in told("bob")] == [1, 2, 3]


def test_a_clock_announces_what_was_not_announced_and_repeats_it_nowhere(alice, bob, gate):
    assert announcements.settle(20)
    before = Event.objects.count()
    Channel.objects.update(announced_seq=0)
    Event.objects.update(created_at=timezone.now() - timedelta(minutes=1))
    clock.tick()
    assert announcements.settle(20)
    assert Event.objects.count() == before


def test_an_odd_name_has_a_channel_too(project, gate):
    assert subjects.personal("ada") == "u_ada"
    names = ("ada@example.com", "x" * 63, "ä")
    for name in names:
        # As it stands in a row it stands in a subject.
        assert subjects.personal(name) in subjects.recorded("default", subjects.personal(name))
        User.objects.create_superuser(name)
    channels = [subjects.personal(name) for name in names]
    assert personal.owners("default", [*channels, "u_nobody", "t_run", "public"]) == set(channels)


def test_retention_takes_out_the_oldest(alice, gate):
    assert [seq for seq, _ in told("alice")] == [1]
    Project.objects.update(keep_events_days=1)
    Channel.objects.update(announced_seq=F("last_seq"))
    retention.sweep(timezone.now() + timedelta(days=3))
    assert told("alice") == []
    waits.answer(gate, APPROVE, actor=alice)
    assert told("alice") == [(2, "gate.decided")]
