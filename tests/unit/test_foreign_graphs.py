# long: one graph of LangGraph's documentation after the other
"""LangGraph graphs as LangGraph's own documentation writes them: brought as they are, played, paused, gone on with."""

from __future__ import annotations

import asyncio
import operator as operators
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

import pytest
import typing_extensions
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel

from openvibe import SetupError, interrupts, loop, operator, workflow
from openvibe.compiler import compile_workflow
from openvibe.errors import InputError
from openvibe.fields import check_input
from openvibe.graph.saver import RowSaver
from openvibe.outcomes import Completed, Failed, OpenWait, Outcome, Paused
from openvibe.registry import define
from tests.unit.players import Run

DEADLINE = 10.0


def brought(graph: Any, **options: Any) -> Run:
    """Return a run of an operator's workflow that is this graph."""

    @operator(id="desk")
    class Desk:
        @workflow(id="own", graph=graph, **options)
        class Own: ...

    return Run(compile_workflow(define(Desk).workflows["own"]))


def answered(run: Run, *waits: OpenWait, decision: str = "answer", notes: str = "", **values: Any) -> Outcome:
    """Answer waits as people do: their decision goes into the graph in the shape that it expects."""
    answer = {"decision": decision, "notes": notes, "values": values}
    return run.play(
        answers={
            wait.interrupt_id: interrupts.resume(wait.request.form, wait.request.payload, answer) for wait in waits
        }
    )


def joined(state: type, *nodes: Callable[..., Any], **options: Any) -> StateGraph:
    """Return a graph of these nodes, one after the other."""
    graph = StateGraph(state, **options)
    for node in nodes:
        graph.add_node(node.__name__, node)
    for before, after in zip([START, *(node.__name__ for node in nodes)], nodes, strict=False):
        graph.add_edge(before, after.__name__)
    return graph


# ── approve or reject ────────────────────────────────────────────────────────────────────────────────────────────────


class Approval(TypedDict):
    action_details: str
    status: Literal["pending", "approved", "rejected"] | None


def approving() -> StateGraph:
    def approval_node(state: Approval) -> Command[Literal["proceed", "cancel"]]:
        is_approved = interrupt(
            {"question": "Do you want to proceed with this action?", "details": state["action_details"]}
        )
        return Command(goto="proceed" if is_approved else "cancel")

    graph = StateGraph(Approval)
    graph.add_node("approval", approval_node)
    graph.add_node("proceed", lambda state: {"status": "approved"})
    graph.add_node("cancel", lambda state: {"status": "rejected"})
    graph.add_edge(START, "approval")
    graph.add_edge("proceed", END)
    graph.add_edge("cancel", END)
    return graph


@pytest.mark.parametrize(("answer", "status"), [(True, "approved"), (False, "rejected")])
def test_an_approval_pauses_and_its_answer_chooses_the_way(answer, status):
    run = brought(approving())
    outcome = run.play(start={"action_details": "Transfer $500"})
    assert isinstance(outcome, Paused)
    [wait] = outcome.waits
    assert (wait.request.kind, wait.request.form, wait.request.node) == ("approval", "value", "approval")
    assert wait.request.prompt == "Do you want to proceed with this action?"
    assert wait.request.payload["details"] == "Transfer $500"
    assert (wait.request.decisions, wait.request.edits) == (["answer"], ["answer"])
    assert answered(run, wait, answer=answer) == Completed({"action_details": "Transfer $500", "status": status})


def test_the_steps_of_a_graph_are_told_as_those_of_our_own():
    run = brought(approving())
    [wait] = run.play(start={"action_details": "Transfer $500"}).waits
    answered(run, wait, answer=True)
    assert run.told == [
        "step.started approval",
        "step.finished approval",
        "step.started proceed",
        "step.finished proceed",
    ]
    assert run.events[-1].data["update"] == {"status": "approved"}
    assert wait.step_id == run.events[0].step_id == run.events[1].step_id


def test_a_graph_is_described_by_its_nodes_and_its_input():
    spec = brought(approving()).workflow.definition.spec
    assert [(node.id, node.kind) for node in spec.nodes] == [
        ("approval", "graph"),
        ("proceed", "graph"),
        ("cancel", "graph"),
    ]
    assert spec.inputs == ("action_details", "status")
    assert spec.input_schema["properties"]["action_details"]["type"] == "string"


def test_answering_twice_is_refused_and_answers_nothing_else():
    run = brought(approving())
    [wait] = run.play(start={"action_details": "x"}).waits
    assert isinstance(answered(run, wait, answer=True), Completed)
    assert answered(run, wait, answer=False).kind == "UnknownInterruptError"


# ── review and edit ──────────────────────────────────────────────────────────────────────────────────────────────────


class Review(TypedDict):
    generated_text: str


def test_an_edited_text_goes_into_the_state():
    def review(state: Review):
        updated = interrupt({"instruction": "Review and edit this content", "content": state["generated_text"]})
        return {"generated_text": updated}

    run = brought(joined(Review, review))
    [wait] = run.play(start={"generated_text": "Initial draft"}).waits
    assert wait.request.prompt == "Review and edit this content"
    assert wait.request.payload["content"] == "Initial draft"
    assert answered(run, wait, answer="Improved draft") == Completed({"generated_text": "Improved draft"})


# ── validating in a loop ─────────────────────────────────────────────────────────────────────────────────────────────


class Form(TypedDict):
    age: int | None


def test_several_interrupts_of_one_node_are_asked_one_after_the_other():
    def get_age(state: Form):
        prompt = "What is your age?"
        while True:
            answer = interrupt(prompt)
            if isinstance(answer, int) and answer > 0:
                return {"age": answer}
            prompt = f"'{answer}' is not a valid age. Please enter a positive number."

    run = brought(joined(Form, get_age))
    prompts, places, outcome = [], [], run.play(start={"age": None})
    for answer in ("thirty", -5, 30):
        [wait] = outcome.waits
        prompts.append(wait.request.prompt)
        places.append(wait.interrupt_id)
        outcome = answered(run, wait, answer=answer)
    assert prompts == [
        "What is your age?",
        "'thirty' is not a valid age. Please enter a positive number.",
        "'-5' is not a valid age. Please enter a positive number.",
    ]
    assert len(set(places)) == 3
    assert outcome == Completed({"age": 30})
    assert run.told == ["step.started get_age", "step.finished get_age"]


# ── asynchronous nodes ───────────────────────────────────────────────────────────────────────────────────────────────


class Trail(TypedDict, total=False):
    trail: Annotated[list[str], operators.add]


def walked(name: str, heard: list[str] | None = None) -> Callable[..., Any]:
    async def node(state: Trail) -> dict[str, Any]:
        await asyncio.sleep(0)
        if heard is not None:
            heard.append(name)
        return {"trail": [name]}

    node.__name__ = name
    return node


async def asking(state: Trail) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"trail": [interrupt("Which way?")]}


def test_asynchronous_nodes_play_pause_and_go_on():
    run = brought(joined(Trail, walked("one"), asking, walked("three")))
    assert run.workflow.asynchronous
    [wait] = run.play(start={"trail": []}).waits
    assert wait.request.prompt == "Which way?"
    assert answered(run, wait, answer="left") == Completed({"trail": ["one", "left", "three"]})
    assert tasks() == set()


def test_a_graph_that_can_be_called_is_not_awaited():
    assert not brought(approving()).workflow.asynchronous


def test_an_asynchronous_choice_of_way_makes_a_graph_asynchronous():
    async def way(state: Trail) -> str:
        await asyncio.sleep(0)
        return "two"

    graph = joined(Trail, lambda_named("one"))
    graph.add_node("two", lambda state: {"trail": ["two"]})
    graph.add_conditional_edges("one", way, ["two", END])
    assert brought(graph).play(start={}) == Completed({"trail": ["one", "two"]})


def lambda_named(name: str) -> Callable[..., Any]:
    return named(lambda state: {"trail": [name]}, name)


def named(node: Callable[..., Any], name: str) -> Callable[..., Any]:
    node.__name__ = name
    return node


def test_an_error_of_an_asynchronous_node_fails_the_run():
    async def broken(state: Trail):
        raise ValueError("no")

    outcome = brought(joined(Trail, walked("one"), broken)).play(start={})
    assert (outcome.kind, outcome.error, outcome.node) == ("ValueError", "no", "broken")
    assert 'raise ValueError("no")' in outcome.traceback
    assert tasks() == set()


@pytest.mark.parametrize("boundary", [1, 2, 3, 4])
def test_closing_an_asynchronous_play_leaves_no_task_and_repeats_nothing(boundary):
    heard: list[str] = []
    run = brought(joined(Trail, *(walked(name, heard) for name in ("one", "two", "three"))))
    parts = run.parts(start={"trail": []})
    for _ in range(boundary):
        next(parts)
    parts.close()
    assert tasks() == set()
    assert heard == ["one", "two", "three"][: boundary - 1]
    assert run.play() == Completed({"trail": ["one", "two", "three"]})
    assert heard == ["one", "two", "three"]


def test_an_asynchronous_run_is_played_by_workers_that_die_after_each_commit():
    heard: list[str] = []
    run = brought(joined(Trail, walked("one", heard), asking, walked("three", heard)))
    [wait] = run.play_in_pieces(start={"trail": []}).waits
    assert run.play_in_pieces(answers={wait.interrupt_id: "left"}) == Completed({"trail": ["one", "left", "three"]})
    assert heard == ["one", "three"]
    assert tasks() == set()


def test_a_reader_that_breaks_off_leaves_no_task():
    run = brought(joined(Trail, walked("one"), walked("two")))
    parts = run.parts(start={})
    next(parts)
    with pytest.raises(KeyError):
        parts.throw(KeyError("the reader broke"))
    parts.close()
    assert tasks() == set()


def tasks() -> set[Any]:
    """Return the tasks that run on the process's loop; LangGraph's last writes get a moment to end."""

    async def running() -> set[Any]:
        return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    end = time.monotonic() + 1
    while (found := loop.run(running(), timeout=DEADLINE)) and time.monotonic() < end:
        time.sleep(0.005)
    return found


# ── graphs within ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("inner", [asking, None], ids=["asynchronous", "plain"])
def test_a_graph_within_asks_and_is_answered(inner):
    def plain(state: Trail):
        return {"trail": [interrupt("Which way?")]}

    heard: list[str] = []
    within = joined(Trail, walked("inner", heard) if inner else lambda_named("inner"), inner or plain).compile()
    graph = StateGraph(Trail)
    graph.add_node("outer", within)
    graph.add_node("after", lambda state: {"trail": ["after"]})
    graph.add_edge(START, "outer")
    graph.add_edge("outer", "after")
    run = brought(graph)
    assert run.workflow.asynchronous is (inner is not None)
    [wait] = run.play(start={}).waits
    assert (wait.request.node, wait.request.prompt) == ("outer", "Which way?")
    assert RowSaver(run.rows).pending_interrupts("run") == [wait.interrupt_id]
    outcome = answered(run, wait, answer="left")
    assert isinstance(outcome, Completed)
    assert outcome.output["trail"][-3:] == ["inner", "left", "after"]
    assert heard == (["inner"] if inner else [])
    assert run.told[0] == "step.started outer"


def test_a_graph_that_is_called_within_a_node_asks_and_is_answered():
    def plain(state: Trail):
        return {"trail": [interrupt("Which way?")]}

    within = joined(Trail, plain).compile()

    def calling(state: Trail):
        return {"trail": within.invoke({"trail": []})["trail"]}

    run = brought(joined(Trail, calling))
    [wait] = run.play(start={}).waits
    assert answered(run, wait, answer="left") == Completed({"trail": ["left"]})


# ── branches side by side ────────────────────────────────────────────────────────────────────────────────────────────


def branched(heard: list[str] | None = None, *, asynchronous: bool = False) -> StateGraph:
    """Return a graph of `left` and `right`, which ask at the same time, and `after`."""

    def asks(name: str) -> Callable[..., Any]:
        def plain(state: Trail):
            answer = interrupt(f"{name}?")
            if heard is not None:
                heard.append(name)
            return {"trail": [answer]}

        async def awaited(state: Trail):
            return plain(state)

        return awaited if asynchronous else plain

    graph = StateGraph(Trail)
    for name in ("left", "right"):
        graph.add_node(name, asks(name))
        graph.add_edge(START, name)
    graph.add_node("after", lambda state: {"trail": ["after"]})
    graph.add_edge(["left", "right"], "after")
    return graph


@pytest.mark.parametrize("asynchronous", [False, True])
def test_branches_that_ask_at_the_same_time_are_both_open(asynchronous):
    run = brought(branched(asynchronous=asynchronous))
    waits = run.play(start={}).waits
    assert sorted(wait.request.prompt for wait in waits) == ["left?", "right?"]
    assert {wait.interrupt_id for wait in waits} == set(RowSaver(run.rows).pending_interrupts("run"))
    assert len({wait.step_id for wait in waits}) == 2


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("first", [0, 1])
def test_branches_are_answered_one_at_a_time(first, asynchronous):
    heard: list[str] = []
    run = brought(branched(heard, asynchronous=asynchronous))
    waits = sorted(run.play(start={}).waits, key=lambda wait: wait.request.prompt)
    outcome = answered(run, waits[first], answer="one")
    assert isinstance(outcome, Paused)
    assert [wait.interrupt_id for wait in outcome.waits] == [waits[1 - first].interrupt_id]
    assert RowSaver(run.rows).pending_interrupts("run") == [waits[1 - first].interrupt_id]
    outcome = answered(run, waits[1 - first], answer="two")
    assert isinstance(outcome, Completed)
    assert sorted(outcome.output["trail"]) == ["after", "one", "two"]
    assert len(heard) == 2
    assert sorted(run.told) == sorted(
        f"step.{kind} {name}" for kind in ("started", "finished") for name in ("left", "right", "after")
    )


def test_branches_are_answered_both_at_once():
    heard: list[str] = []
    run = brought(branched(heard))
    waits = run.play(start={}).waits
    outcome = answered(run, *waits, answer="same")
    assert outcome == Completed({"trail": ["same", "same", "after"]})
    assert sorted(heard) == ["left", "right"]


def test_a_branch_that_was_answered_is_not_asked_again_by_a_worker_that_starts_over():
    run = brought(branched())
    waits = run.play(start={}).waits
    answered(run, waits[0], answer="one")
    outcome = run.play()
    assert [wait.interrupt_id for wait in outcome.waits] == [waits[1].interrupt_id]


def test_a_branch_that_finished_beside_one_that_asks_is_told_and_not_repeated():
    heard: list[str] = []
    graph = StateGraph(Trail)
    graph.add_node("asks", lambda state: {"trail": [interrupt("Which way?")]})
    graph.add_node("works", lambda state: heard.append("works") or {"trail": ["worked"]})
    graph.add_edge(START, "asks")
    graph.add_edge(START, "works")
    run = brought(graph)
    [wait] = run.play(start={}).waits
    assert sorted(run.told) == ["step.finished works", "step.started asks", "step.started works"]
    outcome = answered(run, wait, answer="left")
    assert sorted(outcome.output["trail"]) == ["left", "worked"]
    assert heard == ["works"]
    assert run.told.count("step.finished works") == 1


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def chatting() -> StateGraph:
    def chat(state: MessagesState):
        return {"messages": [AIMessage(f"You said {state['messages'][-1].content}", id="ai-1")]}

    return joined(MessagesState, chat)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "hello"},
        {"type": "human", "content": "hello", "id": "m-1"},
        ["user", "hello"],
    ],
    ids=["openai", "langchain", "pair"],
)
def test_messages_go_in_and_come_out_as_json(message):
    run = brought(chatting())
    given = check_input(run.workflow.definition.input_model, {"messages": [message]})
    output = run.play(start=given).output
    assert [(item["type"], item["content"]) for item in output["messages"]] == [
        ("human", "hello"),
        ("ai", "You said hello"),
    ]
    [update] = [event.data["update"] for event in run.events if "update" in event.data]
    assert update["messages"][0]["content"] == "You said hello"


def test_messages_survive_a_pause_as_messages():
    def ask(state: MessagesState):
        return {"messages": [("user", interrupt("Go on?"))]}

    def chat(state: MessagesState):
        return {"messages": [AIMessage(" ".join(message.content for message in state["messages"]))]}

    run = brought(joined(MessagesState, ask, chat))
    [wait] = run.play(start={"messages": [{"role": "user", "content": "hello"}]}).waits
    output = answered(run, wait, answer="yes").output
    assert [item["content"] for item in output["messages"]] == ["hello", "yes", "hello yes"]


def test_the_input_of_a_messages_graph_is_shown_by_its_schema():
    schema = brought(chatting()).workflow.definition.spec.input_schema
    assert schema["properties"]["messages"]["type"] == "array"


def test_a_tool_of_a_graph_may_ask_before_it_acts():
    def send_email(to: str) -> str:
        """Send an email."""
        response = interrupt({"action": "send_email", "to": to, "message": "Approve sending this email?"})
        return f"sent to {response.get('to', to)}" if response.get("action") == "approve" else "cancelled by user"

    def agent(state: MessagesState):
        if isinstance(state["messages"][-1], ToolMessage):
            return {"messages": [AIMessage("Done.")]}
        call = {"name": "send_email", "args": {"to": "ada@example.com"}, "id": "call_1"}
        return {"messages": [AIMessage("", tool_calls=[call])]}

    graph = joined(MessagesState, agent)
    graph.add_node("tools", ToolNode([send_email]))
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    run = brought(graph)
    [wait] = run.play(start={"messages": [{"role": "user", "content": "Write to Ada"}]}).waits
    assert (wait.request.node, wait.request.prompt) == ("tools", "Approve sending this email?")
    output = answered(run, wait, answer={"action": "approve", "to": "bob@example.com"}).output
    assert [item["content"] for item in output["messages"]] == ["Write to Ada", "", "sent to bob@example.com", "Done."]


# ── compiled graphs, fan-out ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_compiled_graph_is_taken_as_it_is():
    run = brought(approving().compile(name="approvals"))
    [wait] = run.play(start={"action_details": "x"}).waits
    assert answered(run, wait, answer=True).output["status"] == "approved"


def test_a_fan_out_plays_one_step_for_each_send():
    class Subjects(TypedDict, total=False):
        subjects: list[str]
        jokes: Annotated[list[str], operators.add]

    graph = StateGraph(Subjects)
    graph.add_node("joke", lambda state: {"jokes": [f"A joke about {state['subject']}"]})
    graph.add_conditional_edges(
        START, lambda state: [Send("joke", {"subject": subject}) for subject in state["subjects"]], ["joke"]
    )
    run = brought(graph)
    output = run.play(start={"subjects": ["cats", "dogs", "mice"]}).output
    assert output["jokes"] == [f"A joke about {subject}" for subject in ("cats", "dogs", "mice")]
    assert run.told.count("step.started joke") == run.told.count("step.finished joke") == 3
    assert len({event.step_id for event in run.events}) == 3


def test_each_send_of_a_fan_out_may_ask():
    graph = StateGraph(Trail)
    graph.add_node("ask", lambda state: {"trail": [interrupt(f"{state['name']}?")]})
    graph.add_conditional_edges(START, lambda state: [Send("ask", {"name": name}) for name in "ab"], ["ask"])
    run = brought(graph)
    waits = run.play(start={}).waits
    assert [wait.request.prompt for wait in waits] == ["a?", "b?"]
    outcome = answered(run, waits[1], answer="B")
    assert isinstance(outcome, Paused)
    assert answered(run, waits[0], answer="A") == Completed({"trail": ["A", "B"]})


def test_a_sibling_that_finished_before_a_crash_is_not_repeated():
    heard: list[str] = []
    done: list[bool] = []

    def fast(state: Trail):
        heard.append("fast")
        return {"trail": ["fast"]}

    def slow(state: Trail):
        heard.append("slow")
        if heard.count("slow") == 1:
            until(lambda: done)
            heard.append("slow ended")
        return {"trail": ["slow"]}

    graph = StateGraph(Trail)
    for node in (fast, slow):
        graph.add_node(node.__name__, node)
        graph.add_edge(START, node.__name__)
    run = brought(graph)
    for progress in (parts := run.parts(start={})):
        if "step.finished" in [event.kind for event in progress.events]:
            break
    assert "slow ended" not in heard
    kept = run.rows.drain()
    done.append(True)
    parts.close()
    run.rows.drain()
    run.rows.save(*kept)
    assert sorted(run.play().output["trail"]) == ["fast", "slow"]
    assert heard.count("fast") == 1
    assert run.told.count("step.finished fast") == 1


def test_closing_beside_a_branch_that_goes_on_ends_it_and_waits_for_its_end():
    heard: list[str] = []

    async def slow(state: Trail):
        try:
            await asyncio.sleep(DEADLINE)
        finally:
            await asyncio.sleep(0.05)
            heard.append("tidied up")

    graph = StateGraph(Trail)
    for node in (walked("fast"), slow):
        graph.add_node(node.__name__, node)
        graph.add_edge(START, node.__name__)
    parts = brought(graph).parts(start={})
    assert "step.finished" in [event.kind for progress in (next(parts), next(parts)) for event in progress.events]
    parts.close()
    assert heard == ["tidied up"]
    assert tasks() == set()


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_graph_that_stops_before_nodes_by_itself_is_refused_with_the_remedy():
    with pytest.raises(SetupError, match=r"own.*interrupt_before.*'proceed'.*call interrupt\(\) in the node"):
        brought(approving().compile(interrupt_before=["proceed"]))


def test_an_error_in_a_graph_fails_the_run_with_node_and_traceback():
    def broken(state: Trail):
        raise ValueError("no")

    outcome = brought(joined(Trail, broken)).play(start={})
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.node) == ("ValueError", "broken")
    assert 'raise ValueError("no")' in outcome.traceback


def test_a_graph_that_loops_for_ever_fails_at_the_visible_bound():
    graph = joined(Trail, lambda_named("one"))
    graph.add_edge("one", "one")
    outcome = brought(graph).play(start={})
    assert "took more than 1000 steps" in outcome.error


def test_state_that_is_no_json_comes_out_as_something_that_is():
    class Odd(TypedDict, total=False):
        seen: set[str]
        price: Decimal
        at: datetime
        big: int

    def one(state: Odd):
        return {"seen": {"b", "a"}, "price": Decimal("1.10"), "at": datetime(2026, 3, 1, tzinfo=UTC), "big": 2**60}

    outcome = brought(joined(Odd, one)).play(start={})
    assert outcome == Completed(
        {"seen": ["a", "b"], "price": "1.10", "at": "2026-03-01T00:00:00+00:00", "big": str(2**60)}
    )


def test_state_that_cannot_be_kept_fails_the_run_saying_which_type():
    class Odd(TypedDict, total=False):
        at: complex

    outcome = brought(joined(Odd, named(lambda state: {"at": 1j}, "one"))).play(start={})
    assert isinstance(outcome, Failed)
    assert "complex" in outcome.error


class Lead(BaseModel):
    name: str
    score: int = 0


@dataclass
class Note:
    text: str


def test_state_of_models_and_dataclasses_survives_a_pause():
    class Rich(TypedDict, total=False):
        lead: Lead
        note: Note

    def fill(state: Rich):
        return {"lead": Lead(name="Ada"), "note": Note("warm")}

    def ask(state: Rich):
        return {"lead": Lead(name=state["lead"].name, score=interrupt(state["note"].text))}

    run = brought(joined(Rich, fill, ask))
    [wait] = run.play(start={}).waits
    assert answered(run, wait, answer=7) == Completed({"lead": {"name": "Ada", "score": 7}, "note": {"text": "warm"}})


@pytest.mark.parametrize("kind", [TypedDict, typing_extensions.TypedDict])
def test_a_start_need_not_fill_what_the_graph_fills_itself(kind):
    state = kind("Jokes", {"topic": str, "joke": str})
    run = brought(joined(state, named(lambda state: {"joke": f"about {state['topic']}"}, "tell")))
    assert check_input(run.workflow.definition.input_model, {"topic": "cats"}) == {"topic": "cats"}
    assert run.play(start={"topic": "cats"}) == Completed({"topic": "cats", "joke": "about cats"})


def test_a_start_must_fill_what_a_model_of_the_state_demands():
    class State(BaseModel):
        topic: str
        joke: str = ""

    run = brought(joined(State, named(lambda state: {"joke": f"about {state.topic}"}, "tell")))
    with pytest.raises(InputError, match="topic: is required"):
        check_input(run.workflow.definition.input_model, {})
    assert run.play(start={"topic": "cats"}) == Completed({"topic": "cats", "joke": "about cats"})


def test_a_workflow_may_take_fewer_inputs_than_its_graph():
    run = brought(chatting(), inputs=())
    with pytest.raises(InputError, match="messages"):
        check_input(run.workflow.definition.input_model, {"messages": []})
    with pytest.raises(SetupError, match=r"inputs= names \['message'\].*they are \['messages'\]"):
        brought(chatting(), inputs=("message",))
