"""A script's runs that keep nothing between their steps start over, and what they did and told stays done and told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from openvibe import OperatorRuntime, human_in_the_loop, node, operator, workflow

orders: list[str] = []
accidents: list[type[BaseException]] = []


def order(what: str) -> str:
    orders.append(what)
    return what


@operator(id="hasty")
class Hasty:
    rounds: int = 0

    @workflow(id="buy", inputs=(), checkpointed=False)
    class Buy:
        @node
        def buy(self, state, ctx):
            ctx.effect("flour", lambda: order("flour"))
            ctx.emit("bought", {})

        @node
        def carry(self, state):
            if accidents:
                raise accidents.pop()
            return {"rounds": 1}

    @workflow(id="asked", inputs=(), checkpointed=False)
    class Asked:
        @node
        def buy(self, state, ctx):
            ctx.effect("flour", lambda: order("flour"))

        @node
        def more(self, state, ctx):
            ctx.effect("call", lambda: order("call"))
            ctx.request("ear", "permit")

        @node
        def buy_more(self, state, ctx):
            ctx.effect("flour", lambda: order("more flour"))
            if accidents:
                raise accidents.pop()
            return {"rounds": state["rounds"] + 1}


@operator(id="ear")
class Ear:
    heard: int = 0

    @workflow(id="hear", trigger="event:hasty.bought", inputs=())
    class Hear:
        @node
        def hear(self, state):
            return {"heard": 1}

    @workflow(id="permit", capability="permit", inputs=())
    class Permit:
        @human_in_the_loop(prompt="More?")
        def permit(self, state):
            return {}


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    orders.clear()
    accidents.clear()


def opened(folder: Path) -> OperatorRuntime:
    made = OperatorRuntime(llm="simulated", checkpointer=f"sqlite:///{folder / 'runs.db'}")
    for item in (Hasty, Ear):
        made.register(item)
    return made


def test_what_was_done_and_told_before_a_crash_is_not_done_and_told_again(tmp_path):
    accidents.append(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt), opened(tmp_path) as before:
        before.activate("hasty", "buy")
    with opened(tmp_path) as after:
        after.recover()
        assert [(run.operator_id, run.status) for run in after.runs()] == [("hasty", "completed"), ("ear", "completed")]
    assert orders == ["flour"]


def test_after_a_pause_the_next_visits_have_names_of_their_own(tmp_path):
    with opened(tmp_path) as before:
        run = before.activate("hasty", "asked")
    accidents.append(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt), opened(tmp_path) as middle:
        middle.resume(middle.runs()[1].id, "approve")
    with opened(tmp_path) as after:
        after.recover()
        assert after.run(run.id).status == "completed"
    assert orders == ["flour", "call", "more flour"]
