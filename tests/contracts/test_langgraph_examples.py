# long: LangGraph's documentation of interrupts, time travel and durability, page by page
"""What LangGraph's own documentation shows of interrupts, time travel and durability, working through our checkpointer.

Each example runs over rows in memory, over the runtime's SQLite file, and over the site's database, which is SQLite
here and PostgreSQL in the last test.
"""

from __future__ import annotations

import asyncio
import operator
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from openvibe.graph.rows import MemoryRows
from openvibe.graph.saver import RowSaver
from openvibe.graph.sqlite import Database, SqliteRows
from operators.models import Checkpoint
from operators.models.checkpoint import DatabaseRows
from tests import servers

ROOT = Path(__file__).resolve().parents[2]
CONFIG: Any = {"configurable": {"thread_id": "thread"}}
THREADS = ("thread", "1", "2")
DURABILITIES = ("sync", "async", "exit")


@pytest.fixture(params=["memory", "file", "site"])
def saver(
    request: pytest.FixtureRequest, tmp_path: Path, django_db_setup: None, django_db_blocker: Any
) -> Iterator[Any]:
    """A saver over each kind of rows. LangGraph's threads see committed rows only, so those on the site are removed."""
    if request.param == "memory":
        yield RowSaver(MemoryRows())
    elif request.param == "file":
        database = Database(str(tmp_path / "runs.db"))
        yield RowSaver(SqliteRows(database))
        database.close()
    else:
        with django_db_blocker.unblock():
            rows = DatabaseRows()
            yield RowSaver(rows)
            for thread in THREADS:
                RowSaver(rows).delete_thread(thread)
            rows.release()


def asked(result: Any) -> list[Any]:
    return [item.value for item in result["__interrupt__"]]


# ── interrupts ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Transfer(TypedDict, total=False):
    details: str
    status: str


def test_approve_or_reject_routes_to_another_node(saver):
    def approval(state: Transfer) -> Command[Literal["proceed", "cancel"]]:
        yes = interrupt({"question": "Approve this?", "details": state["details"]})
        return Command(goto="proceed" if yes else "cancel")

    builder = StateGraph(Transfer)
    builder.add_node("approval", approval)
    builder.add_node("proceed", lambda _: {"status": "approved"})
    builder.add_node("cancel", lambda _: {"status": "rejected"})
    builder.add_edge(START, "approval")
    builder.add_edge("proceed", END)
    builder.add_edge("cancel", END)
    graph = builder.compile(checkpointer=saver)
    for thread, yes, status in (("1", True, "approved"), ("2", False, "rejected")):
        config = {"configurable": {"thread_id": thread}}
        first = graph.invoke({"details": "$500"}, config)
        assert asked(first) == [{"question": "Approve this?", "details": "$500"}]
        assert graph.get_state(config).next == ("approval",)
        assert graph.invoke(Command(resume=yes), config)["status"] == status


def test_an_edited_text_comes_back_into_the_state(saver):
    builder = StateGraph(Transfer)
    builder.add_node("review", lambda state: {"details": interrupt({"content": state["details"]})})
    builder.add_edge(START, "review")
    graph = builder.compile(checkpointer=saver)
    assert asked(graph.invoke({"details": "draft"}, CONFIG)) == [{"content": "draft"}]
    assert graph.invoke(Command(resume="edited draft"), CONFIG) == {"details": "edited draft"}


class Form(TypedDict, total=False):
    age: int


def test_an_answer_is_validated_in_a_loop_until_it_fits(saver):
    bodies: list[int] = []

    def age(_: Form) -> Form:
        bodies.append(1)
        question = "How old?"
        while True:
            answer = interrupt(question)
            if isinstance(answer, int) and answer > 0:
                return {"age": answer}
            question = f"{answer!r} is no age. How old?"

    builder = StateGraph(Form)
    builder.add_node("age", age)
    builder.add_edge(START, "age")
    graph = builder.compile(checkpointer=saver)
    assert asked(graph.invoke({}, CONFIG)) == ["How old?"]
    assert asked(graph.invoke(Command(resume="thirty"), CONFIG)) == ["'thirty' is no age. How old?"]
    assert asked(graph.invoke(Command(resume=-5), CONFIG)) == ["-5 is no age. How old?"]
    assert graph.invoke(Command(resume=30), CONFIG) == {"age": 30}
    assert len(bodies) == 4


class Gathered(TypedDict, total=False):
    vals: Annotated[list[str], operator.add]


def test_several_interrupts_are_answered_by_a_map_of_their_ids(saver):
    builder = StateGraph(Gathered)
    for name in ("a", "b"):
        builder.add_node(name, lambda _, name=name: {"vals": [f"{name}:{interrupt(f'question {name}')}"]})
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    graph = builder.compile(checkpointer=saver)
    first = graph.invoke({"vals": []}, CONFIG)
    answers = {item.id: f"answer for {item.value}" for item in first["__interrupt__"]}
    assert len(answers) == 2
    done = graph.invoke(Command(resume=answers), CONFIG)
    assert sorted(done["vals"]) == ["a:answer for question a", "b:answer for question b"]


def test_one_of_several_interrupts_may_be_answered_first(saver):
    builder = StateGraph(Gathered)
    for name in ("a", "b"):
        builder.add_node(name, lambda _, name=name: {"vals": [f"{name}:{interrupt(name)}"]})
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=saver)
    by_name = {item.value: item.id for item in graph.invoke({"vals": []}, CONFIG)["__interrupt__"]}
    assert asked(graph.invoke(Command(resume={by_name["b"]: 2}), CONFIG)) == ["a"]
    assert graph.invoke(Command(resume={by_name["a"]: 1}), CONFIG)["vals"] == ["a:1", "b:2"]


def test_an_interrupt_inside_a_subgraph_pauses_the_whole(saver):
    inner = StateGraph(Transfer)
    inner.add_node("ask", lambda _: {"status": interrupt("inside?")})
    inner.add_edge(START, "ask")
    outer = StateGraph(Transfer)
    outer.add_node("inner", inner.compile())
    outer.add_node("after", lambda state: {"details": f"was {state['status']}"})
    outer.add_edge(START, "inner")
    outer.add_edge("inner", "after")
    graph = outer.compile(checkpointer=saver)
    assert asked(graph.invoke({"details": ""}, CONFIG)) == ["inside?"]
    [paused] = graph.get_state(CONFIG, subgraphs=True).tasks
    assert paused.state.next == ("ask",)
    assert graph.invoke(Command(resume="fine"), CONFIG) == {"details": "was fine", "status": "fine"}


def test_static_breakpoints_stop_before_and_after_nodes(saver):
    builder = StateGraph(Gathered)
    for name in ("a", "b", "c"):
        builder.add_node(name, lambda _, name=name: {"vals": [name]})
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("b", "c")
    graph = builder.compile(checkpointer=saver, interrupt_before=["b"], interrupt_after=["b"])
    assert graph.invoke({"vals": []}, CONFIG)["vals"] == ["a"]
    assert graph.invoke(None, CONFIG)["vals"] == ["a", "b"]
    assert graph.get_state(CONFIG).next == ("c",)
    assert graph.invoke(None, CONFIG)["vals"] == ["a", "b", "c"]


# ── time travel ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Joke(TypedDict, total=False):
    topic: str
    joke: str


def joker(saver: RowSaver, told: list[str]) -> Any:
    def write(state: Joke) -> Joke:
        told.append(state["topic"])
        return {"joke": f"Why do {state['topic']} disappear? They elope!"}

    builder = StateGraph(Joke)
    builder.add_node("generate_topic", lambda _: {"topic": "socks in the dryer"})
    builder.add_node("write_joke", write)
    builder.add_edge(START, "generate_topic")
    builder.add_edge("generate_topic", "write_joke")
    return builder.compile(checkpointer=saver)


def before(graph: Any, node: str) -> Any:
    return next(state for state in graph.get_state_history(CONFIG) if state.next == (node,))


def test_the_history_is_told_latest_first_with_what_came_next(saver):
    graph = joker(saver, [])
    graph.invoke({}, CONFIG)
    history = list(graph.get_state_history(CONFIG))
    assert [state.next for state in history] == [(), ("write_joke",), ("generate_topic",), ("__start__",)]
    assert [state.metadata["step"] for state in history] == [2, 1, 0, -1]
    parents = [state.parent_config and state.parent_config["configurable"]["checkpoint_id"] for state in history]
    assert parents == [state.config["configurable"]["checkpoint_id"] for state in history[1:]] + [None]


def test_replaying_from_a_checkpoint_plays_only_what_follows_it(saver):
    told: list[str] = []
    graph = joker(saver, told)
    first = graph.invoke({}, CONFIG)
    place = before(graph, "write_joke")
    assert graph.invoke(None, place.config) == first
    assert told == ["socks in the dryer"] * 2
    by_id = {"configurable": {"thread_id": "thread", "checkpoint_id": place.config["configurable"]["checkpoint_id"]}}
    assert graph.get_state(by_id).values == {"topic": "socks in the dryer"}
    last = next(iter(graph.get_state_history(CONFIG)))
    assert graph.invoke(None, last.config) == first
    assert len(told) == 2


def test_a_fork_with_an_edited_state_goes_its_own_way_and_leaves_the_old_one(saver):
    graph = joker(saver, [])
    graph.invoke({}, CONFIG)
    kept = [state.config for state in graph.get_state_history(CONFIG)]
    fork = graph.update_state(before(graph, "write_joke").config, values={"topic": "chickens"})
    assert graph.invoke(None, fork)["joke"] == "Why do chickens disappear? They elope!"
    history = [state.config for state in graph.get_state_history(CONFIG)]
    assert [config for config in history if config in kept] == kept
    assert graph.get_state(kept[0]).values["topic"] == "socks in the dryer"
    assert graph.get_state(CONFIG).values["topic"] == "chickens"


def test_an_update_as_a_node_goes_on_after_that_node(saver):
    told: list[str] = []
    graph = joker(saver, told)
    fork = graph.update_state(CONFIG, {"topic": "chickens"}, as_node="generate_topic")
    assert graph.get_state(fork).next == ("write_joke",)
    assert graph.invoke(None, fork)["topic"] == "chickens"
    fork = graph.update_state(CONFIG, {"joke": "None."}, as_node="write_joke")
    assert graph.get_state(fork).next == ()
    assert told == ["chickens"]


def test_an_interrupt_is_asked_again_when_time_is_travelled_to_before_it(saver):
    def ask(state: Joke) -> Joke:
        return {"joke": f"{state['topic']}: {interrupt('Funny?')}"}

    builder = StateGraph(Joke)
    builder.add_node("generate_topic", lambda _: {"topic": "socks"})
    builder.add_node("ask", ask)
    builder.add_edge(START, "generate_topic")
    builder.add_edge("generate_topic", "ask")
    graph = builder.compile(checkpointer=saver)
    graph.invoke({}, CONFIG)
    assert graph.invoke(Command(resume="yes"), CONFIG)["joke"] == "socks: yes"
    place = before(graph, "ask").config
    assert asked(graph.invoke(None, place)) == ["Funny?"]
    assert graph.invoke(Command(resume="no"), CONFIG)["joke"] == "socks: no"
    fork = graph.update_state(place, {"topic": "hens"}, as_node="generate_topic")
    assert asked(graph.invoke(None, fork)) == ["Funny?"]
    assert graph.invoke(Command(resume="maybe"), CONFIG)["joke"] == "hens: maybe"


# ── durability ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Count(TypedDict, total=False):
    count: int


def counting(saver: RowSaver, faults: list[str], played: list[str]) -> Any:
    def step(name: str) -> Any:
        def node(state: Count) -> Count:
            played.append(name)
            if name in faults:
                faults.remove(name)
                raise ConnectionError(name)
            return {"count": state["count"] + 1}

        return node

    builder = StateGraph(Count)
    for name in ("a", "b", "c"):
        builder.add_node(name, step(name))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("b", "c")
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_run_that_failed_goes_on_from_its_last_finished_step(saver, durability):
    played: list[str] = []
    graph = counting(saver, ["b"], played)
    with pytest.raises(ConnectionError):
        graph.invoke({"count": 0}, CONFIG, durability=durability)
    assert graph.get_state(CONFIG).next == ("b",)
    assert graph.invoke(None, CONFIG, durability=durability) == {"count": 3}
    assert played == ["a", "b", "b", "c"]


@pytest.mark.parametrize(("durability", "checkpoints"), [("sync", 5), ("async", 5), ("exit", 1)])
def test_each_mode_keeps_as_many_checkpoints_as_it_promises(saver, durability, checkpoints):
    graph = counting(saver, [], [])
    assert graph.invoke({"count": 0}, CONFIG, durability=durability) == {"count": 3}
    assert len(list(graph.get_state_history(CONFIG))) == checkpoints
    assert graph.get_state(CONFIG).values == {"count": 3}


def test_in_sync_mode_a_step_is_stored_before_the_next_one_begins(saver):
    seen: list[Any] = []
    builder = StateGraph(Count)
    builder.add_node("a", lambda state: {"count": state["count"] + 1})

    def look(state: Count) -> Count:
        seen.append(saver.get_tuple(CONFIG).checkpoint["channel_values"]["count"])
        return {}

    builder.add_node("b", look)
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.compile(checkpointer=saver).invoke({"count": 0}, CONFIG, durability="sync")
    assert seen == [1]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_an_interrupt_survives_in_every_mode(saver, durability):
    builder = StateGraph(Transfer)
    builder.add_node("review", lambda _: {"status": interrupt("Yes?")})
    builder.add_edge(START, "review")
    graph = builder.compile(checkpointer=saver)
    assert asked(graph.invoke({"details": ""}, CONFIG, durability=durability)) == ["Yes?"]
    assert graph.invoke(Command(resume="yes"), CONFIG, durability=durability)["status"] == "yes"


# ── the functional API ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("durability", DURABILITIES)
def test_an_entrypoints_tasks_are_not_done_again_after_an_interrupt(saver, durability):
    done: list[str] = []

    @task
    def write_essay(topic: str) -> str:
        done.append(topic)
        return f"An essay about {topic}"

    @entrypoint(checkpointer=saver)
    def write(topic: str) -> dict[str, Any]:
        essay = write_essay(topic).result()
        return {"essay": essay, "approved": interrupt({"essay": essay, "action": "approve or reject"})}

    assert asked(write.invoke("cats", CONFIG, durability=durability)) == [
        {"essay": "An essay about cats", "action": "approve or reject"}
    ]
    ended = write.invoke(Command(resume=True), CONFIG, durability=durability)
    assert ended == {"essay": "An essay about cats", "approved": True}
    assert done == ["cats"]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_an_entrypoint_that_failed_goes_on_without_repeating_its_tasks(saver, durability):
    done, faults = [], ["network"]

    @task
    def slow() -> str:
        done.append("slow")
        return "slow result"

    @task
    def shaky() -> str:
        done.append("shaky")
        if faults:
            raise ConnectionError(faults.pop())
        return "shaky result"

    @entrypoint(checkpointer=saver)
    def both(_: Any) -> list[str]:
        return [slow().result(), shaky().result()]

    with pytest.raises(ConnectionError):
        both.invoke({"any": 1}, CONFIG, durability=durability)
    assert both.invoke(None, CONFIG, durability=durability) == ["slow result", "shaky result"]
    assert done == ["slow", "shaky", "shaky"]


def test_tasks_of_an_entrypoint_run_side_by_side(saver):
    @task
    def paragraph(topic: str) -> str:
        return f"About {topic}."

    @entrypoint(checkpointer=saver)
    def report(topics: list[str]) -> str:
        return " ".join(item.result() for item in [paragraph(topic) for topic in topics])

    assert report.invoke(["quantum", "climate"], CONFIG) == "About quantum. About climate."


def test_an_entrypoint_knows_what_it_saved_before(saver):
    @entrypoint(checkpointer=saver)
    def total(number: int, *, previous: Any = None) -> entrypoint.final[int, int]:
        previous = previous or 0
        return entrypoint.final(value=previous, save=number + previous)

    assert [total.invoke(number, CONFIG) for number in (3, 1, 5)] == [0, 3, 4]
    assert total.get_state(CONFIG).values == 4


def test_an_asynchronous_entrypoint_waits_and_goes_on(saver):
    @task
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    @entrypoint(checkpointer=saver)
    async def ask(number: int) -> int:
        return await double(number) + interrupt("And?")

    async def played() -> int:
        assert asked(await ask.ainvoke(4, CONFIG)) == ["And?"]
        return await ask.ainvoke(Command(resume=1), CONFIG)

    assert asyncio.run(played()) == 9


@pytest.mark.django_db
def test_no_example_leaves_rows_on_the_site() -> None:
    assert not Checkpoint.objects.filter(thread_id__in=THREADS).exists()


@pytest.mark.postgres
@pytest.mark.timeout(300)
def test_the_examples_work_on_postgresql() -> None:
    with servers.postgres() as server:
        environ = {**os.environ, "DATABASE_URL": servers.new_database(server.url)}
        command = [sys.executable, "-m", "pytest", "-q", "--reuse-db", "-n", "0", __file__, "-k", "site"]
        ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stdout[-8000:]
    assert " passed" in ended.stdout
