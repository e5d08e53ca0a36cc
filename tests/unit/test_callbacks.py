"""Runs of a script that answer others: when nobody waits for their answer any more, they end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from openvibe import OperatorRuntime, durable, human_in_the_loop, node, operator, workflow


@operator(id="buyer")
class Buyer:
    offers: dict = {}

    @workflow(id="one", inputs=())
    @durable(max_days=2)
    class One:
        @node
        def ask(self, state, ctx):
            return {"offers": ctx.request("agent", "price")}

    @workflow(id="several", inputs=())
    class Several:
        @node
        def ask(self, state, ctx):
            return {"offers": ctx.request_each(["agent", "shop"], "price", rule="any")}

    @workflow(id="hurried", inputs=())
    class Hurried:
        @node
        def ask(self, state, ctx):
            return {"offers": ctx.request("agent", "price", timeout=timedelta(hours=1))}


@operator(id="agent")
class Agent:
    offers: dict = {}

    @workflow(id="quote", capability="price", inputs=())
    class Quote:
        @node
        def ask(self, state, ctx):
            return {"offers": ctx.request("shop", "careful_price")}


@operator(id="shop")
class Shop:
    price: int = 0

    @workflow(id="quick", capability="price", inputs=())
    class Quick:
        @node
        def quote(self, state):
            return {"price": 3}

    @workflow(id="careful", capability="careful_price", inputs=())
    class Careful:
        @human_in_the_loop(prompt="Sell?")
        def review(self, state):
            return {}


@pytest.fixture
def runtime() -> Iterator[OperatorRuntime]:
    with OperatorRuntime(llm="simulated") as made:
        for item in (Buyer, Agent, Shop):
            made.register(item)
        yield made


def statuses(runtime: OperatorRuntime) -> dict[str, str]:
    return {f"{run.operator_id}.{run.workflow_id}": run.status for run in runtime.runs()}


def test_a_whole_chain_of_questions_is_called_back_when_its_first_run_is_cancelled(runtime):
    run = runtime.activate("buyer", "one")
    assert set(statuses(runtime).values()) == {"waiting"}
    runtime.cancel(run.id)
    assert statuses(runtime) == dict.fromkeys(["buyer.one", "agent.quote", "shop.careful"], "cancelled")
    assert not any(run.open_waits for run in runtime.runs())


def test_who_answers_a_run_whose_days_are_over_is_called_back(runtime):
    runtime.activate("buyer", "one")
    runtime.advance(timedelta(days=3))
    assert statuses(runtime) == {"buyer.one": "failed", "agent.quote": "cancelled", "shop.careful": "cancelled"}


def test_who_is_silent_until_the_time_is_up_is_called_back(runtime):
    runtime.activate("buyer", "hurried")
    runtime.advance(timedelta(hours=2))
    assert statuses(runtime) == {"buyer.hurried": "failed", "agent.quote": "cancelled", "shop.careful": "cancelled"}


def test_whose_answer_a_group_does_without_is_called_back(runtime):
    run = runtime.activate("buyer", "several")
    assert run.output == {"offers": {"shop": {"price": 3}}}
    expected = {"buyer.several": "completed", "shop.quick": "completed"}
    assert statuses(runtime) == expected | {"agent.quote": "cancelled", "shop.careful": "cancelled"}


def test_what_an_ended_process_did_not_come_to_is_called_back_by_the_next_one(tmp_path):
    def opened() -> OperatorRuntime:
        made = OperatorRuntime(llm="simulated", checkpointer=f"sqlite:///{tmp_path / 'runs.db'}")
        for item in (Buyer, Agent, Shop):
            made.register(item)
        return made

    with opened() as before:
        run = before.activate("buyer", "one")
        ledger = before._ledger
        run.end("cancelled", now=run.created_at)
        ledger.change(run)
    with opened() as after:
        after.recover()
        assert set(statuses(after).values()) == {"cancelled"}
