"""Waits of one interrupt that are answered together: the run goes on once, when their rule is met."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.utils import timezone

from openvibe import configuration
from openvibe.llm import ToolCall
from openvibe.registry import define
from openvibe.testing import ScriptedProvider
from operators import clock, definitions
from operators.errors import AlreadyDecided, CountedAlready, NotAsked, NotWaiting
from operators.models import Membership, Operator, Project, Run, Wait
from operators.services import compiled, deliveries, inbox, intake, recalls, registration, waits
from operators.services import seats as places
from operators.services.inbox import Inbound
from tests.domain.board import PEOPLE, Board, seller
from tests.domain.lab import kinds, played, started, thread

APPROVE = waits.Answer("approve")
REJECT = waits.Answer("reject", notes="not yet")


@pytest.fixture
def board(project: Project) -> Iterator[Operator]:
    made = [define(cls) for cls in (Board, seller("north"), seller("south"))]
    for item in made:
        definitions.registry.add(item)
    registered = {item.spec.id: registration.register(project, item) for item in made}
    yield registered["board"]
    for item in made:
        definitions.registry.remove(item.spec.id)
    compiled.workflow.cache_clear()


@pytest.fixture
def finance(alice: User, bob: User) -> Group:
    group = Group.objects.create(name="finance")
    group.user_set.add(alice, bob)
    return group


def seats(run: Run) -> list[Wait]:
    return list(Wait.objects.select_related("run").filter(run=run).order_by("seat"))


def statuses(run: Run) -> list[str]:
    return [wait.status for wait in seats(run)]


def status(run: Run) -> str:
    return Run.objects.values_list("status", flat=True).get(pk=run.pk)


def asked(board: Operator, workflow: str) -> tuple[Run, list[Wait]]:
    run = played(started(board, workflow))
    assert run.status == "waiting", run.error
    return run, seats(run)


def test_a_run_waits_for_all_and_goes_on_with_the_last_yes(board, alice, bob, finance):
    run, (first, second) = asked(board, "all")
    assert (first.interrupt_id, first.payload_sha256) == (second.interrupt_id, second.payload_sha256)
    waits.answer(second, APPROVE, actor=bob)
    assert status(run) == "waiting"
    waits.answer(first, APPROVE, actor=alice)
    assert status(run) == "queued"
    run = played(run)
    assert (run.status, run.output["review"], run.output["letter"]) == ("completed", "approve", "sent")
    told = [event.data["group"] for event in thread(run) if event.kind == "gate.decided"]
    assert told == [
        {"rule": "all", "needed": 2, "decision": None, "open": ["alice"]},
        {"rule": "all", "needed": 2, "decision": "approve", "open": []},
    ]
    assert kinds(run).count("run.resumed") == 1


def test_one_no_ends_what_all_must_agree_to_and_cancels_the_others_at_once(board, alice, bob, finance):
    run, (first, second) = asked(board, "all")
    waits.answer(second, REJECT, actor=bob)
    assert (status(run), statuses(run)) == ("queued", ["cancelled", "resolved"])
    with pytest.raises(AlreadyDecided, match="decided without this answer: 'reject', last by bob"):
        waits.answer(Wait.objects.get(pk=first.pk), APPROVE, actor=alice)
    run = played(run)
    assert (run.status, run.error["message"]) == ("failed", "Rejected at review: finance: not yet")


def test_nobody_answers_what_is_asked_of_somebody_else(board, alice, bob, vera, finance):
    run, (first, second) = asked(board, "all")
    with pytest.raises(NotAsked, match="asked of 'alice' here, not of 'bob'"):
        waits.answer(first, APPROVE, actor=bob)
    with pytest.raises(NotAsked, match="asked of 'finance' here, not of 'vera'"):
        waits.answer(second, APPROVE, actor=vera)
    assert statuses(run) == ["pending", "pending"]


def test_the_owners_answer_what_is_asked_of_a_name_that_nobody_bears(board, alice, bob):
    run, (_, second) = asked(board, "all")
    with pytest.raises(NotAsked):
        waits.answer(second, APPROVE, actor=bob)
    waits.answer(second, APPROVE, actor=alice)
    assert statuses(run) == ["pending", "resolved"]


@pytest.mark.parametrize("members", [[], ["vera"]])
def test_the_owners_answer_what_is_asked_of_nobody_who_is_there_still(board, alice, bob, vera, members):
    left = Group.objects.create(name="finance")
    left.user_set.set(User.objects.filter(username__in=members))
    User.objects.filter(username="vera").update(is_active=False)
    Wait.objects.filter(approver="finance").update(approver="vera" if members else "finance")
    run, (_, second) = asked(board, "all")
    with pytest.raises(NotAsked):
        waits.answer(second, APPROVE, actor=bob)
    waits.answer(second, APPROVE, actor=alice)
    assert statuses(run) == ["pending", "resolved"]


@pytest.mark.parametrize("active", [True, False])
def test_what_is_asked_of_somebody_who_has_left_the_owners_answer(board, alice, bob, active):
    _, (_, second) = asked(board, "lenient")
    User.objects.filter(username="bob").update(is_active=active)
    assert places.may_answer(second, alice, "alice") is not active


def test_everybody_counts_once(board, alice, bob, finance):
    run, (first, second, third) = asked(board, "twins")
    waits.answer(first, APPROVE, actor=alice)
    with pytest.raises(CountedAlready, match="'alice' has answered at gate 'review' already"):
        waits.answer(second, APPROVE, actor=alice)
    assert statuses(run) == ["resolved", "pending", "pending"]
    waits.answer(third, APPROVE, actor=bob)
    assert (status(run), statuses(run)) == ("queued", ["resolved", "cancelled", "resolved"])


def test_a_double_click_is_no_second_vote(board, alice, bob, finance):
    run, (first, *_) = asked(board, "twins")
    for _ in range(3):
        waits.answer(Wait.objects.select_related("run").get(pk=first.pk), APPROVE, actor=alice)
    assert statuses(run) == ["resolved", "pending", "pending"]
    assert kinds(run).count("gate.decided") == 1


def test_over_the_bus_too_only_who_is_asked_answers(board, alice, bob, finance):
    run, (first, second) = asked(board, "all")

    def told(wait: Wait, by: str) -> None:
        body = {"type": "approval.granted", "payload": {"gate_id": wait.id, "approved_by": by}}
        for item in inbox.receive([Inbound(run.project_id, inbox.APPROVAL, f"{wait.id}/{by}", run.id, body)]):
            inbox.apply(item)

    told(first, "mallory")
    told(second, "mallory")
    assert statuses(run) == ["pending", "pending"]
    told(first, "alice")
    told(second, "bob")
    assert statuses(run) == ["resolved", "resolved"]


def test_over_the_bus_nobody_answers_in_the_name_of_somebody_who_has_left(board, alice, bob, finance):
    run, (first, second) = asked(board, "all")
    User.objects.filter(username__in=["alice", "bob"]).update(is_active=False)
    for wait, by in ((first, "alice"), (second, "bob")):
        with pytest.raises(NotAsked):
            waits.answer(wait, APPROVE, actor=None, decider=by)
    assert statuses(run) == ["pending", "pending"]


def test_a_group_that_is_silent_is_passed_on_once_and_that_one_answers_for_all_of_them(board, alice, bob):
    run, (first, *_) = asked(board, "passed_on")
    waits.answer(first, APPROVE, actor=alice)
    for _ in range(2):
        Wait.objects.pending().filter(assignee="").update(deadline=timezone.now() - timedelta(seconds=1))
        clock.tick()
    assert [(wait.approver, wait.assignee) for wait in seats(run)] == [
        ("alice", ""),
        ("finance", "bob"),
        ("law", "bob"),
    ]
    assert kinds(run).count("gate.escalated") == 2
    for wait in seats(run)[1:]:
        waits.answer(wait, APPROVE, actor=bob)
    assert played(run).status == "completed"


@pytest.mark.parametrize(("workflow", "outcome"), [("lenient", "completed"), ("all", "failed")])
def test_at_the_deadline_the_default_answer_stands_for_those_who_were_silent(board, alice, workflow, outcome):
    run, (first, _) = asked(board, workflow)
    waits.answer(first, APPROVE, actor=alice)
    Wait.objects.pending().update(deadline=timezone.now() - timedelta(seconds=1))
    clock.tick()
    clock.tick()
    run = played(run)
    assert (run.status, statuses(run)) == (outcome, ["resolved", "expired"])
    assert kinds(run).count("gate.expired") == 1


def test_a_person_who_is_called_clock_is_not_the_clock(board, finance):
    person = User.objects.create_user("clock")
    finance.user_set.add(person)
    (voted, (_, his)), (silent, (first, second)) = asked(board, "all"), asked(board, "lenient")
    waits.answer(his, APPROVE, actor=person)
    Wait.objects.filter(approver="bob").update(approver="clock")
    Wait.objects.filter(approver="alice").update(deadline=timezone.now() - timedelta(seconds=1))
    clock.meet_deadlines()
    assert (statuses(voted), statuses(silent)) == (["expired", "resolved"], ["expired", "pending"])
    # Nor is what the clock decided his answer.
    assert places.own(first, person) == second


def test_cancelling_closes_a_whole_group(board, alice, bob, finance):
    run, (first, second) = asked(board, "all")
    waits.answer(first, APPROVE, actor=alice)
    intake.cancel(run, actor=alice)
    assert statuses(run) == ["resolved", "cancelled"]
    with pytest.raises(NotWaiting, match="its run was cancelled"):
        waits.answer(Wait.objects.select_related("run").get(pk=second.pk), APPROVE, actor=bob)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("yes", "outcome"), [(20, "completed"), (11, "failed"), (0, "failed")])
def test_twenty_people_at_once_let_the_run_go_on_once(board, project, yes, outcome):
    people = [User.objects.create_user(name) for name in PEOPLE]
    for person in people:
        Membership.objects.create(project=project, user=person, role=Membership.Role.OPERATOR)
    run, places = asked(board, "crowd")
    # Eleven who say no leave nine, and ten are needed.
    given = [APPROVE if number < yes - (yes == 11) * 2 else REJECT for number in range(20)]

    def answer(number: int) -> str:
        try:
            waits.answer(places[number], given[number], actor=people[number])
            return "counted"
        except AlreadyDecided:
            return "late"
        finally:
            connection.close()

    with ThreadPoolExecutor(20) as pool:
        told = list(pool.map(answer, range(20)))
    closed = seats(run)
    counted = [wait.status for wait in closed].count("resolved")
    assert told.count("counted") == counted == kinds(run).count("gate.decided")
    assert [wait.status for wait in closed].count("cancelled") == 20 - counted
    ends = [event.data["group"]["decision"] for event in thread(run) if event.kind == "gate.decided"]
    assert [word for word in ends if word] == [ends[-1]] == ["approve" if outcome == "completed" else "reject"]
    assert status(run) == "queued"
    run = played(run)
    assert (run.status, run.epoch, kinds(run).count("run.resumed")) == (outcome, 2, 1)


@pytest.mark.django_db(transaction=True)
def test_one_person_who_answers_two_seats_at_once_counts_once(board, alice, bob, finance):
    run, places = asked(board, "twins")

    def answer(place: Wait) -> bool:
        try:
            waits.answer(place, APPROVE, actor=alice)
            return True
        except CountedAlready:
            return False
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(answer, places)) == [False, False, True]
    assert sorted(statuses(run)) == ["pending", "pending", "resolved"]


@pytest.fixture
def _calls_twice() -> Iterator[None]:
    calls = [ToolCall("1", "read", {"url": "a"}), ToolCall("2", "ring", {"whom": "b"})]
    before = configuration.current().llm
    definitions.provider.cache_clear()
    configuration.configure(llm=ScriptedProvider([calls, "Both are fine."]))
    yield
    configuration.configure(llm=before)
    definitions.provider.cache_clear()


@pytest.mark.usefixtures("_calls_twice")
def test_the_tools_of_one_turn_are_called_together_and_waited_for_together(board):
    run, (read, ring) = asked(board, "advised")
    assert [wait.payload["tool"] for wait in (read, ring)] == ["read", "ring"]
    assert waits.settle(ring, error="nobody picks up", by="ring")
    assert status(run) == "waiting"
    assert waits.settle(read, result={"text": "hello"}, by="read")
    assert not waits.settle(read, result={"text": "again"}, by="read")
    run = played(run)
    assert (run.status, run.output["answer"]) == ("completed", "Both are fine.")
    [told] = [event for event in thread(run) if event.kind == "step.finished" and event.node == "advise.tools"]
    assert [(item["tool"], item["result"], item["error"]) for item in told.data["made"]] == [
        ("read", '{"text":"hello"}', False), ("ring", "nobody picks up", True),
    ]  # fmt: skip
    assert kinds(run).count("run.resumed") == 1


def test_of_several_operators_the_first_good_answer_is_taken_and_the_others_are_not_waited_for(board):
    run, (north, south) = asked(board, "buy")
    assert {wait.kind for wait in (north, south)} == {"reply"}
    for wait in (north, south):
        deliveries.ask(wait.id)
    slow, fast = Run.objects.filter(parent=run).order_by("operator__slug")
    played(fast)
    deliveries.reply(fast.id)
    assert (status(run), statuses(run)) == ("queued", ["cancelled", "resolved"])
    played(slow)
    deliveries.reply(slow.id)
    run = played(run)
    assert {name: offer["price"] for name, offer in run.output["offers"].items()} == {"south": 5}


def test_the_run_of_an_operator_whose_answer_is_not_needed_is_cancelled(board):
    run, asked_of = asked(board, "buy")
    for wait in asked_of:
        deliveries.ask(wait.id)
    slow, fast = Run.objects.filter(parent=run).order_by("operator__slug")
    played(fast)
    deliveries.reply(fast.id)
    recalls.recall_all(run.id)
    slow.refresh_from_db()
    assert (slow.status, list(thread(slow))[-1].actor) == ("cancelled", "board")
    assert played(run).status == "completed"
