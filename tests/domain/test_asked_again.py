"""A run that failed of a bad answer, or of none, asks again when it is let try again: that answer, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from openvibe import RunError, human_in_the_loop, node, operator, remote_node, workflow
from operators import clock
from operators.errors import AlreadyDecided, NotRetryable
from operators.models import Operator, Project, Run, Wait
from operators.services import intake, waits
from tests.domain.lab import kinds, played, served, started


@operator(id="shopper")
class Shopper:
    prices: list[str] = []

    @workflow(id="twice", inputs=())
    class Twice:
        @node
        def ask(self, state, ctx):
            return {"prices": [ctx.request("north", "price"), ctx.request("south", "price")]}

    @workflow(id="caught", inputs=())
    class Caught:
        @node
        def ask(self, state, ctx):
            try:
                first = ctx.request("north", "price")
            except RunError:
                first = "none"
            return {"prices": [first, ctx.request("south", "price"), *broken()]}

    @workflow(id="all_of_them", inputs=())
    class AllOfThem:
        @node
        def ask(self, state, ctx):
            return {"prices": [*ctx.request_each(["north", "south"], "price").values()]}

    @workflow(id="send", inputs=())
    class Send:
        @remote_node(role="shopping", timeout=timedelta(hours=1))
        def buy(self, state):
            return {"task": {"what": "bread"}, "output_key": "prices"}

    @workflow(id="asks", inputs=())
    class Asks:
        @human_in_the_loop(prompt="Buy it?", timeout=timedelta(hours=1))
        def buy(self, state):
            return {}

    @workflow(id="asks_two", inputs=())
    class AsksTwo:
        @human_in_the_loop(prompt="Buy it?", approvers=("alice", "bob"), timeout=timedelta(hours=1))
        def buy(self, state):
            return {}


accidents: list[str] = []


def broken() -> list[str]:
    if accidents:
        raise RuntimeError(accidents.pop())
    return []


@pytest.fixture
def shopper(project: Project) -> Iterator[Operator]:
    with served(project, Shopper) as found:
        yield found
    accidents.clear()


def asked(run: Run) -> list[Wait]:
    return list(Wait.objects.pending().select_related("run").filter(run=run).order_by("seat"))


def answered(run: Run, result: str = "", error: str = "") -> Run:
    [wait] = asked(run)
    assert waits.settle(wait, result=result, error=error, by="somebody")
    return played(run)


def tried_again(run: Run, alice: User) -> Run:
    run.refresh_from_db()
    assert run.status == "failed"
    intake.retry(run, actor=alice)
    return played(run)


def test_an_agent_that_was_silent_is_asked_again(shopper, alice):
    run = played(started(shopper, "send"))
    Wait.objects.update(deadline=timezone.now())
    clock.tick()
    run = tried_again(played(run), alice)
    assert run.status == "waiting"
    assert answered(run, result=["2 coins"]).output == {"prices": ["2 coins"]}
    assert kinds(run).count("work.requested") == 2


def test_a_person_who_was_silent_is_asked_again(shopper, alice):
    run = played(started(shopper, "asks"))
    for _ in range(2):
        [gate] = asked(run)
        Wait.objects.pending().update(deadline=timezone.now())
        clock.tick()
        run = tried_again(played(run), alice)
        with pytest.raises(AlreadyDecided, match="by clock"):
            waits.answer(gate, waits.Answer("approve"), actor=alice)
        assert run.status == "waiting"
    [gate] = asked(run)
    waits.answer(gate, waits.Answer("approve"), actor=alice)
    assert played(run).status == "completed"
    assert (kinds(run).count("gate.opened"), kinds(run).count("gate.expired")) == (3, 2)


@pytest.mark.parametrize("said", ["approve", "reject"])
def test_several_of_whom_one_was_silent_are_asked_again_unless_somebody_said_no(shopper, alice, bob, said):
    run = played(started(shopper, "asks_two"))
    waits.answer(asked(run)[0], waits.Answer(said), actor=alice)
    Wait.objects.pending().update(deadline=timezone.now())
    clock.tick()
    run = played(run)
    assert run.error["kind"] == "GateRejected"
    if said == "reject":
        with pytest.raises(NotRetryable, match="rejected by a person"):
            intake.retry(run, actor=alice)
        return
    run = tried_again(run, alice)
    assert len(asked(run)) == 2
    for gate, actor in zip(asked(run), (alice, bob), strict=True):
        waits.answer(gate, waits.Answer("approve"), actor=actor)
    assert played(run).status == "completed"


def test_an_operator_that_failed_is_asked_again_as_often_as_it_fails(shopper, alice):
    run = answered(played(started(shopper, "twice")), error="closed")
    for _ in range(2):
        run = tried_again(run, alice)
        assert run.status == "waiting"
        run = answered(run, error="closed still")
    run = answered(answered(tried_again(run, alice), result="2"), result="3")
    assert run.output == {"prices": ["2", "3"]}


def test_what_was_answered_well_before_is_not_asked_again(shopper, alice):
    run = answered(answered(played(started(shopper, "twice")), result="2"), error="closed")
    run = tried_again(run, alice)
    [wait] = asked(run)
    assert wait.payload["operator"] == "south"
    assert answered(run, result="3").output == {"prices": ["2", "3"]}


def test_a_bad_answer_that_its_node_has_put_up_with_stays(shopper, alice):
    run = answered(played(started(shopper, "caught")), error="closed")
    accidents.append("rain")
    run = tried_again(answered(run, result="3"), alice)
    assert (run.status, run.output) == ("completed", {"prices": ["none", "3"]})


@pytest.mark.parametrize("bad", ["north", "south"])
def test_several_that_were_asked_together_are_asked_together_again(shopper, alice, bad):
    run = played(started(shopper, "all_of_them"))
    for wait in asked(run):
        name = wait.payload["operator"]
        assert waits.settle(wait, result=name, error="closed" if name == bad else "", by=name)
    run = tried_again(played(run), alice)
    assert [wait.payload["operator"] for wait in asked(run)] == ["north", "south"]
    for wait in asked(run):
        assert waits.settle(wait, result=wait.payload["operator"], by="somebody")
    assert played(run).output == {"prices": ["north", "south"]}


def test_an_answer_to_what_was_asked_before_answers_nothing(shopper, alice):
    run = played(started(shopper, "send"))
    [before] = asked(run)
    run = tried_again(answered(run, error="no bread"), alice)
    before.refresh_from_db()
    assert not waits.settle(before, result=["late"], by="somebody")
    assert (before.status, before.error) == ("resolved", "no bread")
    assert answered(run, result=["2"]).output == {"prices": ["2"]}
