"""Workflows that keep nothing between their steps start over, and what they did to the world stays done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User

from openvibe import node, operator, workflow
from operators.models import Effect, Emission, Operator, Project, Run
from operators.services import compiled, intake
from tests.domain.lab import kinds, played, served, started

#: What the shop was asked to do, by the keys that it was given; and what happens in the middle of that.
orders: list[str] = []
accidents: list[Callable[[], Any]] = []
#: What was told to others, once for each play.
told: list[str] = []


def order(ctx: Any, what: str) -> dict[str, int]:
    orders.append(ctx.idempotency_key(what))
    if accidents:
        accidents.pop()()
    return {"number": len(orders)}


@operator(id="hasty")
class Hasty:
    rounds: int = 0
    receipt: dict = {}
    broken: bool = False

    @workflow(id="buy", inputs=("broken",), checkpointed=False)
    class Buy:
        @node
        def choose(self, state):
            return {"rounds": state["rounds"] + 1}

        @node
        def buy(self, state, ctx):
            return {"receipt": ctx.effect("flour", lambda: order(ctx, "flour"))}

        @node
        def tell(self, state, ctx):
            for _ in range(2):
                ctx.emit("bought", {"number": len(told)})
            told.append("bought")

        @node
        def carry(self, state, ctx):
            if accidents:
                accidents.pop()()
            if state["broken"] and Run.objects.get(id=ctx.run_id).retries == 0:
                raise RuntimeError("the cart is broken")
            return {"rounds": state["rounds"] + 1}

    @workflow(id="doubt", inputs=(), checkpointed=False)
    class Doubt:
        @node
        def judge(self, state, ctx):
            if told:
                ctx.emit("sold_out", {"play": len(told)})
            ctx.emit("weighed", {"play": len(told)})
            told.append("weighed")

        @node
        def carry(self, state, ctx):
            if len(told) == 1:
                raise RuntimeError("the cart is broken")
            return {}


@pytest.fixture
def hasty(project: Project) -> Iterator[Operator]:
    with served(project, Hasty) as found:
        yield found
    compiled.workflow.cache_clear()
    orders.clear()
    accidents.clear()
    told.clear()


def lost(run: Run) -> Callable[[], Any]:
    """Let the worker be taken for dead."""
    return lambda: Run.objects.filter(id=run.id).update(status="queued", lease_until=None)


def test_what_was_done_before_a_crash_is_not_done_again(hasty: Operator) -> None:
    run = started(hasty, "buy")
    accidents.append(lambda: accidents.append(lost(run)))
    run = played(played(run))
    assert (run.status, run.output["receipt"], len(orders)) == ("completed", {"number": 1}, 1)
    assert kinds(run).count("effect.skipped") == 1


def test_what_nobody_knows_of_is_not_done_again_either(hasty: Operator) -> None:
    run = started(hasty, "buy")
    accidents.append(lost(run))
    run = played(played(run))
    assert (run.status, len(orders)) == ("failed", 1)
    assert "leave checkpointed=False out" in run.error["message"]
    assert Effect.objects.get(run=run).state == "attempted"


def test_a_retry_keeps_what_was_done(hasty: Operator, alice: User) -> None:
    run = played(started(hasty, "buy", broken=True))
    assert run.status == "failed"
    intake.retry(run, actor=alice)
    run = played(run)
    assert (run.status, run.output["receipt"], len(orders)) == ("completed", {"number": 1}, 1)


def test_an_outside_system_is_given_the_same_key_in_every_play(hasty: Operator) -> None:
    run = started(hasty, "buy")
    accidents.append(lost(run))
    played(run)
    Effect.objects.all().delete()
    assert played(run).status == "completed"
    assert len(orders) == 2
    assert len(set(orders)) == 1


def test_what_others_were_told_before_a_crash_they_are_not_told_again(hasty: Operator) -> None:
    run = started(hasty, "buy")
    accidents.append(lambda: accidents.append(lost(run)))
    played(run)
    first = list(Emission.objects.filter(run=run).order_by("id").values_list("id", "payload"))
    run = played(run)
    assert (run.status, len(told)) == ("completed", 2)
    assert [payload for _, payload in first] == [{"number": 0}, {"number": 0}]
    assert list(Emission.objects.filter(run=run).order_by("id").values_list("id", "payload")) == first
    assert kinds(run).count("event.emitted") == 2


def test_what_only_a_later_play_tells_is_told_and_nothing_twice(hasty: Operator, alice: User) -> None:
    run = played(started(hasty, "doubt"))
    assert run.status == "failed"
    intake.retry(run, actor=alice)
    assert played(run).status == "completed"
    emitted = Emission.objects.filter(run=run).order_by("emitted_at").values_list("name", "payload")
    assert list(emitted) == [("hasty.weighed", {"play": 0}), ("hasty.sold_out", {"play": 1})]
