"""Graphs that change under a thread: what is next at a checkpoint, and gone."""

from __future__ import annotations

from operator import add
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from openvibe.graph import history
from openvibe.graph.rows import MemoryRows
from openvibe.graph.saver import RowSaver

PLACE: Any = {"configurable": {"thread_id": "t"}}


class Told(TypedDict, total=False):
    told: Annotated[list[str], add]


def graph(left="left", right="right", joined="mix", last="check", *, fan=False) -> StateGraph:
    """Two branches, one of which takes a step more and asks; what puts them together; a question at the end."""
    made = StateGraph(Told)
    made.add_node("start", lambda _: {"told": ["start"]})
    made.add_node(left, lambda _: {"told": ["left"]})
    made.add_node("slow", lambda _: {"told": ["slow"]})
    made.add_node(right, lambda _: {"told": [interrupt("right?")]})
    made.add_node(joined, lambda _: {"told": ["joined"]})
    made.add_node(last, lambda _: {"told": [interrupt("last?")]})
    made.add_edge(START, "start")
    if fan:
        made.add_conditional_edges("start", lambda _: [Send(right, {}), Send(right, {})], [right])
        return made
    made.add_edge("start", left)
    made.add_edge("start", "slow")
    made.add_edge("slow", right)
    made.add_edge([left, right], joined)
    made.add_edge(joined, last)
    return made


def compiled(saver: RowSaver, **changed: Any) -> Any:
    return graph(**changed).compile(checkpointer=saver)


def gone(saver: RowSaver, **changed: Any) -> list[str]:
    workflow: Any = SimpleNamespace(graph=compiled(saver, **changed))
    return history.gone(workflow, saver.get_tuple(PLACE))


@pytest.fixture
def saver() -> RowSaver:
    return RowSaver(MemoryRows())


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({}, []),
        ({"last": "look"}, []),
        ({"right": "east"}, ["mix", "right"]),
        ({"left": "west"}, ["mix"]),
        ({"joined": "blend"}, ["mix"]),
    ],
)
def test_what_is_next_and_what_others_have_come_to_already_must_be_there(saver, changed, missing):
    compiled(saver).invoke({}, PLACE)
    assert gone(saver, **changed) == missing


@pytest.mark.parametrize(
    ("changed", "missing"), [({}, []), ({"left": "west", "joined": "blend"}, []), ({"last": "look"}, ["check"])]
)
def test_what_lies_behind_may_go(saver, changed, missing):
    compiled(saver).invoke({}, PLACE)
    compiled(saver).invoke(Command(resume="yes"), PLACE)
    assert gone(saver, **changed) == missing


def test_what_is_sent_to_must_be_there(saver):
    compiled(saver, fan=True).invoke({}, PLACE)
    assert gone(saver, fan=True) == []
    assert gone(saver, fan=True, right="east") == ["right"]


def test_at_the_end_nothing_is_next(saver):
    compiled(saver).invoke({}, PLACE)
    for _ in range(2):
        compiled(saver).invoke(Command(resume="yes"), PLACE)
    assert gone(saver, left="a", right="b", joined="c", last="d") == []
