"""LangGraph calls a saver that collects on the thread that plays, and makes no thread for a workflow of ours."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from openvibe import node
from openvibe.graph import inline
from openvibe.graph.rows import MemoryRows
from openvibe.graph.saver import RowSaver
from openvibe.outcomes import Completed
from tests.unit.players import Run, compiled


class Witness(RowSaver):
    """A saver that remembers on which threads it was called."""

    def __init__(self) -> None:
        super().__init__(MemoryRows())
        self.threads: set[int] = set()

    def put(self, *args: Any) -> Any:
        self.threads.add(threading.get_ident())
        return super().put(*args)

    def put_writes(self, *args: Any, **options: Any) -> None:
        self.threads.add(threading.get_ident())
        super().put_writes(*args, **options)


class Broken(RowSaver):
    """A saver that fails."""

    def put(self, *args: Any) -> Any:
        raise OSError("The disk is full")


def graph(saver: RowSaver) -> Any:
    made: Any = StateGraph(dict)
    made.add_node("ask", lambda state: {"answer": interrupt("Well?")})
    made.add_edge(START, "ask")
    return made.compile(checkpointer=saver)


def play(saver: RowSaver, given: Any, *, key: bool) -> Any:
    config = {"configurable": {"thread_id": "one", inline.KEY: key}}
    return graph(saver).invoke(given, config, durability="sync")


def test_with_the_key_a_saver_is_called_on_the_thread_that_plays():
    saver = Witness()
    play(saver, {}, key=True)
    assert play(saver, Command(resume="yes"), key=True) == {"answer": "yes"}
    assert saver.threads == {threading.get_ident()}


def test_without_the_key_langgraph_goes_about_it_as_it_always_does():
    saver = Witness()
    play(saver, {}, key=False)
    assert threading.get_ident() not in saver.threads


@pytest.mark.parametrize("key", [True, False])
def test_what_a_saver_raises_ends_the_play(key):
    with pytest.raises(OSError, match="full"):
        play(Broken(MemoryRows()), {}, key=key)


def test_the_key_stands_in_no_checkpoint():
    saver = Witness()
    play(saver, {}, key=True)
    [*kept] = saver.list({"configurable": {"thread_id": "one"}})
    assert kept
    assert not any(inline.KEY in item.metadata for item in kept)


def test_a_play_of_a_workflow_starts_no_thread(monkeypatch):
    started: list[str] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    class Two:
        @node
        def one(self, state):
            return {"topic": "a"}

        @node
        def two(self, state):
            return {"letter": state["topic"]}

    monkeypatch.setattr(threading.Thread, "start", noted)
    outcome = Run(compiled(Two)).play(start={"topic": ""})
    assert isinstance(outcome, Completed)
    assert started == []
