"""Values that lie too deep within each other to be kept are refused where they come in, by a sentence that says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from openvibe import human_in_the_loop, node, operator, remote_node, workflow
from openvibe.protocol.nesting import MOST_LEVELS
from operators.errors import Misfit
from operators.models import Operator, Project, Wait
from operators.services import intake, waits
from tests.domain.lab import played, served, started


def levels(number: int) -> Any:
    value: Any = 1
    for _ in range(number):
        value = [value]
    return value


class Depth(TypedDict, total=False):
    depth: int
    value: Any


def _brought() -> Any:
    graph = StateGraph(Depth)
    graph.add_node("dive", lambda state: {"value": levels(state["depth"])})
    graph.add_edge(START, "dive")
    graph.add_edge("dive", END)
    return graph


@operator(id="diver")
class Diver:
    depth: int = 0
    value: list = []

    @workflow(id="returns", inputs=("depth", "value"))
    class Returns:
        @node
        def dive(self, state):
            return {"value": levels(state["depth"])}

    @workflow(id="emits", inputs=("depth",))
    class Emits:
        @node
        def dive(self, state, ctx):
            ctx.emit("found", {"value": levels(state["depth"] - 1)})

    @workflow(id="puts", inputs=("depth",))
    class Puts:
        @node
        def dive(self, state, ctx):
            ctx.context.put("leads", "ada", levels(state["depth"]))

    @workflow(id="logs", inputs=("depth",))
    class Logs:
        @node
        def dive(self, state, ctx):
            ctx.log("Found", value=levels(state["depth"] - 1))

    @workflow(id="does", inputs=("depth",))
    class Does:
        @node
        def dive(self, state, ctx):
            ctx.effect("dive", lambda: levels(state["depth"]))

    @workflow(id="requests", inputs=("depth",))
    class Requests:
        @node
        def dive(self, state, ctx):
            ctx.request("grocer", "price", {"value": levels(state["depth"] - 1)})

    @workflow(id="shows", inputs=("depth",))
    class Shows:
        @human_in_the_loop(prompt="Deep?")
        def dive(self, state):
            return {"value": levels(state["depth"] - 1)}

    @workflow(id="sends", inputs=("depth",))
    class Sends:
        @remote_node(role="diving")
        def dive(self, state):
            return {"task": {"value": levels(state["depth"] - 1)}, "output_key": "value"}

    @workflow(id="edits", inputs=())
    class Edits:
        @human_in_the_loop(prompt="Which?", edits=("value",))
        def dive(self, state):
            return None

    @workflow(id="brought", graph=_brought())
    class Brought: ...


PLACES = ["returns", "emits", "puts", "logs", "does", "requests", "shows", "sends", "brought"]


@pytest.fixture
def diver(project: Project) -> Iterator[Operator]:
    with served(project, Diver) as found:
        yield found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("depth", [MOST_LEVELS + 1, 400, 2000])
def test_a_value_with_too_many_levels_fails_its_step_by_name(diver: Operator, place: str, depth: int) -> None:
    run = played(started(diver, place, depth=depth))
    assert run.status == "failed"
    assert "'dive'" in run.error["message"]
    assert f"more than {MOST_LEVELS} levels" in run.error["message"]


@pytest.mark.parametrize("place", PLACES)
def test_a_value_with_as_many_levels_as_can_be_kept_is_kept(diver: Operator, place: str) -> None:
    assert played(started(diver, place, depth=MOST_LEVELS)).status in ("completed", "waiting")


@pytest.mark.parametrize("depth", [MOST_LEVELS + 1, 700])
def test_an_input_with_too_many_levels_starts_nothing(diver: Operator, depth: int) -> None:
    with pytest.raises(Misfit, match=f"value: .*more than {MOST_LEVELS} levels"):
        started(diver, "returns", value=levels(depth))


def test_an_answer_with_too_many_levels_leaves_the_gate_open(diver: Operator, alice) -> None:
    run = played(intake.request(diver.workflows.get(slug="edits"), input={}, actor=None))
    given = waits.Answer("approve", values={"value": levels(MOST_LEVELS + 1)})
    with pytest.raises(Misfit, match=f"more than {MOST_LEVELS} levels"):
        waits.answer(Wait.objects.select_related("run").get(run=run), given, actor=alice)
    assert Wait.objects.get(run=run).status == "pending"
