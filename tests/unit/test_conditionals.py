"""Choices, branches and loops: which node follows which."""

from __future__ import annotations

from typing import Any

import pytest

from openvibe import conditional, engine, human_in_the_loop, node, operator, paths, workflow
from openvibe.compiler import compile_workflow
from openvibe.errors import SetupError
from openvibe.graph.rows import MemoryRows
from openvibe.graph.saver import RowSaver
from openvibe.llm.simulated import SimulatedProvider
from openvibe.outcomes import Completed, Failed, Outcome
from openvibe.registry import define
from openvibe.session import Session
from openvibe.specs import NodeSpec


def definition(body: type) -> Any:
    @operator(id="desk")
    class Desk:
        score: int = 0
        route: str = ""
        rounds: int = 0
        seen: list[str] = []

        Flow = workflow(id="flow")(body)

    return define(Desk).workflows["flow"]


def play(body: type, **start: Any) -> Outcome:
    saver = RowSaver(MemoryRows(), collect=True, fresh=True)
    session = Session(SimulatedProvider())
    parts = engine.play(compile_workflow(definition(body)), saver=saver, thread_id="t", session=session, start=start)
    return [progress.outcome for progress in parts][-1]


def saw(name: str, state: dict[str, Any]) -> dict[str, Any]:
    return {"seen": [*state["seen"], name]}


def sorting() -> type:
    class Sorted:
        """A choice of two branches, a label that only continues, and one that ends."""

        @conditional(
            routes={
                "sales": lambda s: s["score"] >= 80,
                "nurture": lambda s: s["score"] >= 50,
                "carry_on": lambda s: s["score"] >= 20,
                "end": lambda s: s["score"] >= 0,
            }
        )
        def route(self, state):
            return {"score": state["score"] + 1}

        @node
        def sales(self, state):
            return saw("sales", state)

        @node
        def nurture(self, state):
            return saw("nurture", state)

        @node
        def close(self, state):
            return saw("close", state)

    return Sorted


@pytest.mark.parametrize(
    ("score", "label", "seen"),
    [
        (79, "sales", ["sales", "close"]),
        (50, "nurture", ["nurture", "close"]),
        (30, "carry_on", ["close"]),
        (5, "end", []),
    ],
)
def test_the_first_fitting_route_is_taken_and_branches_rejoin(score: int, label: str, seen: list[str]) -> None:
    outcome = play(sorting(), score=score)
    assert isinstance(outcome, Completed)
    assert outcome.output.get("seen", []) == seen
    assert outcome.output["route"] == label


def test_routes_are_tried_on_the_updated_state() -> None:
    outcome = play(sorting(), score=79)
    assert isinstance(outcome, Completed)
    assert outcome.output["score"] == 80


def test_no_fitting_route_fails_the_run_naming_the_conditional_and_what_it_saw() -> None:
    outcome = play(sorting(), score=-7)
    assert isinstance(outcome, Failed)
    assert outcome.node == "route"
    assert "'route'" in outcome.error
    assert "score=-6" in outcome.error
    assert "rounds" not in outcome.error


def test_a_branch_loops_back_by_next_until_another_is_chosen() -> None:
    class Looping:
        @node
        def work(self, state):
            return {"rounds": state["rounds"] + 1, **saw("work", state)}

        @conditional(routes={"again": lambda s: s["rounds"] < 3, "enough": lambda s: True})
        def evaluate(self, state):
            return None

        @node(next="work")
        def again(self, state):
            return saw("again", state)

        @node
        def finish(self, state):
            return saw("finish", state)

    outcome = play(Looping)
    assert isinstance(outcome, Completed)
    assert outcome.output["seen"] == ["work", "again", "work", "again", "work", "finish"]


def test_a_label_may_name_an_earlier_node() -> None:
    class Looping:
        @node
        def work(self, state):
            return {"rounds": state["rounds"] + 1}

        @conditional(routes={"work": lambda s: s["rounds"] < 4, "enough": lambda s: True})
        def evaluate(self, state):
            return None

    outcome = play(Looping)
    assert isinstance(outcome, Completed)
    assert outcome.output["rounds"] == 4


def test_a_loop_without_an_end_fails_at_the_visible_bound() -> None:
    class Endless:
        @node
        def work(self, state):
            return {"rounds": state["rounds"] + 1}

        @conditional(routes={"end": lambda s: s["rounds"] < 0, "again": lambda s: True}, next="work")
        def enough(self, state):
            return None

    outcome = play(Endless)
    assert isinstance(outcome, Failed)
    assert str(engine.STEP_LIMIT) in outcome.error


def test_next_may_end_the_run() -> None:
    class Short:
        @conditional(routes={"detour": lambda s: False, "go_on": lambda s: True})
        def choose(self, state):
            return None

        @node(next="end")
        def first(self, state):
            return saw("first", state)

        @node
        def detour(self, state):
            return saw("detour", state)

    outcome = play(Short)
    assert isinstance(outcome, Completed)
    assert outcome.output["seen"] == ["first"]


def test_a_gates_decision_can_be_read_by_a_conditional() -> None:
    class Decided:
        @human_in_the_loop(prompt="Which way?", decisions=("handoff", "archive"))
        def route(self, state):
            return {"score": state["score"]}

        @conditional(routes={"sales": lambda s: s["route"] == "handoff", "end": lambda s: True})
        def choose(self, state):
            return None

        @node
        def sales(self, state):
            return saw("sales", state)

    workflow = compile_workflow(definition(Decided))
    rows = MemoryRows()
    for options in ({"start": {}}, {"answers": {}}):
        saver = RowSaver(rows, collect=True)
        if "answers" in options:
            [gate] = saver.pending_interrupts("t")
            options["answers"] = {gate: {"decision": "handoff"}}
        session = Session(SimulatedProvider())
        outcome = None
        for progress in engine.play(workflow, saver=saver, thread_id="t", session=session, **options):
            rows.save(*saver.collected())
            outcome = progress.outcome
    assert isinstance(outcome, Completed)
    assert outcome.output["seen"] == ["sales"]


def test_only_nodes_declared_after_a_conditional_are_its_branches() -> None:
    nodes = [
        NodeSpec(id="first", kind="logic"),
        NodeSpec(id="choose", kind="conditional", routes=("first", "later", "nowhere")),
        NodeSpec(id="later", kind="logic"),
        NodeSpec(id="last", kind="logic"),
    ]
    assert paths.branches(nodes) == {"later"}
    assert paths.following(nodes) == {"first": "choose", "choose": "last", "later": "last", "last": None}


def test_wrong_routes_and_a_wrong_next_are_refused_at_definition() -> None:
    with pytest.raises(SetupError, match="routes= maps each label"):
        conditional(routes={})(lambda self, state: None)
    with pytest.raises(SetupError, match="sales"):
        conditional(routes={"sales": "score > 80"})(lambda self, state: None)

    class Lost:
        @node(next="nowhere")
        def work(self, state):
            return None

    with pytest.raises(SetupError, match="'work' has next='nowhere'"):
        definition(Lost)
