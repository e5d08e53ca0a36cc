"""A step that has taken an answer and fails then: played again, it asks its next question and does not answer it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from openvibe import Retry, node, operator, workflow
from openvibe.compiler import compile_workflow
from openvibe.graph.saver import RowSaver
from openvibe.outcomes import Completed, Failed, OpenWait, Paused
from openvibe.registry import define
from tests.unit.players import Run, compiled

faults: list[str] = []


@pytest.fixture(autouse=True)
def _no_faults():
    faults.clear()


def stumble(at: str) -> None:
    if faults and faults[0] == at:
        faults.pop(0)
        raise ConnectionError("away")


class State(TypedDict, total=False):
    first: Any
    second: Any


def asks_twice(_: State) -> State:
    stumble("before")
    first = interrupt("first?")
    stumble("between")
    second = interrupt("second?")
    stumble("after")
    return {"first": first, "second": second}


def flat() -> Any:
    graph = StateGraph(State)
    graph.add_node("ask", asks_twice)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph


def nested() -> Any:
    graph = StateGraph(State)
    graph.add_node("inner", flat().compile())
    graph.add_edge(START, "inner")
    graph.add_edge("inner", END)
    return graph


def brought(graph: Any) -> Run:
    @operator(id="desk")
    class Desk:
        Write = workflow(id="write", graph=graph)(type("Write", (), {}))

    return Run(compile_workflow(define(Desk).workflows["write"]))


def own() -> Run:
    class Write:
        @node
        def ask(self, state, ctx):
            stumble("before")
            first = ctx.request("north", "price")
            stumble("between")
            second = ctx.request("south", "price")
            stumble("after")
            return {"tags": [first, second]}

    return Run(compiled(Write))


def answer(value: str, *, own: bool) -> Any:
    return {"result": value} if own else value


def open_wait(outcome: Any) -> OpenWait:
    assert isinstance(outcome, Paused), outcome
    [wait] = outcome.waits
    return wait


@pytest.mark.parametrize(
    "make", [lambda: brought(flat()), lambda: brought(nested()), own], ids=["flat", "nested", "own"]
)
@pytest.mark.parametrize("fault", ["before", "between", "after"])
def test_a_retry_asks_what_has_no_answer_and_nothing_twice(make: Callable[[], Run], fault: str):
    run, given = make(), {}
    wait = open_wait(run.play(start={}))
    faults.append(fault)
    for word in ("one", "two"):
        given[wait.interrupt_id] = answer(word, own=make is own)
        outcome = run.play(answers={wait.interrupt_id: given[wait.interrupt_id]})
        while isinstance(outcome, Failed):
            # As a worker does: what the graph still waits for, as far as somebody has answered it.
            waiting = RowSaver(run.rows).pending_interrupts("run")
            outcome = run.play(answers={name: given[name] for name in waiting if name in given} or None)
        if word == "one":
            wait = open_wait(outcome)
    assert isinstance(outcome, Completed)
    output = outcome.output
    assert (output["tags"] if make is own else [output["first"], output["second"]]) == ["one", "two"]
    assert faults == []


def test_a_question_that_failed_before_it_was_reached_again_keeps_its_answer():
    run = brought(flat())
    first = open_wait(run.play(start={}))
    second = open_wait(run.play(answers={first.interrupt_id: "one"}))
    for _ in range(3):
        faults.append("between")
        assert isinstance(run.play(answers={second.interrupt_id: "two"}), Failed)
        assert RowSaver(run.rows).pending_interrupts("run") == [second.interrupt_id]
    assert run.play(answers={second.interrupt_id: "two"}) == Completed({"first": "one", "second": "two"})


def test_a_pause_before_another_try_gives_no_answer_to_the_next_question():
    class Write:
        @node(retry=Retry(attempts=3, pause=timedelta(hours=1), longest=timedelta(hours=1)))
        def ask(self, state, ctx):
            first = ctx.request("north", "price")
            stumble("between")
            return {"tags": [first, ctx.request("south", "price")]}

    run = Run(compiled(Write))
    wait = open_wait(run.play(start={}))
    faults.append("between")
    pause = open_wait(run.play(answers={wait.interrupt_id: {"result": "one"}}))
    assert pause.request.kind == "timer"
    assert RowSaver(run.rows).pending_interrupts("run") == []
    second = open_wait(run.play())
    assert second.request.payload["operator"] == "south"
    assert run.play(answers={second.interrupt_id: {"result": "two"}}).output["tags"] == ["one", "two"]
