"""The questions of graphs that were brought as they are: the form that people see, and the answer that goes back."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import jsonschema
import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

from openvibe import RunError, engine, interrupts, operator, workflow
from openvibe.compiler import compile_workflow
from openvibe.graph.rows import MemoryRows
from openvibe.graph.saver import RowSaver
from openvibe.outcomes import Completed, OpenWait, Outcome, WaitRequest
from openvibe.registry import define
from tests.unit.players import Run


class State(TypedDict, total=False):
    answer: Any


def asking(value: Any, **options: Any) -> Run:
    """Return a run of a graph with one node that asks so and keeps the answer as it came."""
    graph = StateGraph(State)
    graph.add_node("ask", lambda state: {"answer": interrupt(value, **options)})
    graph.add_edge(START, "ask")

    @operator(id="desk")
    class Desk:
        @workflow(id="own", graph=graph)
        class Own: ...

    return Run(compile_workflow(define(Desk).workflows["own"]))


def asked(run: Run) -> OpenWait:
    [wait] = run.play(start={}).waits
    return wait


def answer(decision: str, notes: str = "", **values: Any) -> dict[str, Any]:
    return {"decision": decision, "notes": notes, "values": values}


def answered(run: Run, wait: OpenWait, given: dict[str, Any]) -> Outcome:
    back = interrupts.resume(wait.request.form, wait.request.payload, given)
    return run.play(answers={wait.interrupt_id: back})


def kept(value: Any, given: dict[str, Any], **options: Any) -> Any:
    """Ask, answer, and return what the graph got."""
    run = asking(value, **options)
    wait = asked(run)
    fitting(wait.request, given)
    outcome = answered(run, wait, given)
    assert isinstance(outcome, Completed), outcome
    return outcome.output["answer"]


def fitting(request: WaitRequest, given: dict[str, Any]) -> None:
    """Check that the answer is one that the question's own schema allows; raises if not."""
    told = {name: value for name, value in given.items() if value or name == "decision"}
    jsonschema.Draft202012Validator.check_schema(request.schema)
    jsonschema.validate(told, request.schema)


# ── plain values ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [True, False, "a text", "", 0, 7, None, ["a", 1], {"approved": True, "note": "x"}])
def test_a_plain_answer_goes_back_as_it_is(value):
    assert kept("Go on?", answer("answer", answer=value)) == value


def test_an_answer_in_the_notes_alone_goes_back_as_text():
    run = asking("Go on?")
    assert answered(run, asked(run), answer("answer", "yes, do")).output["answer"] == "yes, do"


@pytest.mark.parametrize(
    ("value", "prompt", "payload"),
    [
        ("What is your age?", "What is your age?", {"value": "What is your age?"}),
        ({"question": "Proceed?", "details": 1}, "Proceed?", {"question": "Proceed?", "details": 1}),
        ({"instruction": "Edit it", "content": "x"}, "Edit it", {"instruction": "Edit it", "content": "x"}),
        ({"message": "Approve?", "action": "send"}, "Approve?", {"message": "Approve?", "action": "send"}),
        ({"question": 7}, "ask asks", {"question": 7}),
        ({"text": "x"}, "ask asks", {"text": "x"}),
        ("", "ask asks", {"value": ""}),
        (7, "ask asks", {"value": 7}),
        (None, "ask asks", {"value": None}),
        (["a", "b"], "ask asks", {"value": ["a", "b"]}),
    ],
    ids=str,
)
def test_a_plain_question_shows_its_words_and_what_it_is_about(value, prompt, payload):
    request = asked(asking(value)).request
    assert (request.kind, request.form, request.node) == ("approval", "value", "ask")
    assert (request.prompt, request.payload) == (prompt, payload)
    assert (request.decisions, request.edits) == (["answer"], ["answer"])


class Decision(BaseModel):
    approved: bool
    tone: Literal["warm", "cool"] = "warm"


@pytest.mark.parametrize("schema", [Decision, Decision.model_json_schema()], ids=["model", "schema"])
def test_the_schema_of_an_answer_arrives_and_is_asked_for(schema):
    request = asked(asking("Go on?", response_schema=schema)).request
    wanted = request.schema["properties"]["values"]["properties"]["answer"]
    assert wanted["properties"]["approved"]["type"] == "boolean"
    fitting(request, answer("answer", answer={"approved": True}))
    for wrong in ({"approved": "perhaps"}, {"tone": "warm"}, "yes"):
        with pytest.raises(jsonschema.ValidationError):
            fitting(request, answer("answer", answer=wrong))


def test_langgraph_tells_the_schema_of_an_answer_in_its_stream():
    """If this fails, LangGraph tells it elsewhere, and the gates of such graphs take any answer."""
    run = asking("Go on?", response_schema=Decision)
    graph = run.workflow.graph.copy(update={"checkpointer": RowSaver(MemoryRows())})
    place = {"configurable": {"thread_id": "t", engine.STRICT_RESUME: True}}
    parts = [part for part in graph.stream({}, place, stream_mode="tasks") if part.get("interrupts")]
    assert [list(item) for part in parts for item in part["interrupts"]] == [["value", "id", "response_schema"]]
    assert parts[0]["interrupts"][0]["response_schema"]["required"] == ["approved"]


def test_a_schema_with_definitions_of_its_own_still_finds_them():
    class Line(BaseModel):
        amount: int

    class Bill(BaseModel):
        lines: list[Line]

    request = asked(asking("Correct?", response_schema=Bill)).request
    fitting(request, answer("answer", answer={"lines": [{"amount": 1}]}))
    with pytest.raises(jsonschema.ValidationError):
        fitting(request, answer("answer", answer={"lines": [{"amount": "one"}]}))


def test_an_answer_becomes_the_model_that_the_node_asked_for():
    graph = StateGraph(State)
    graph.add_node("ask", lambda state: {"answer": type(interrupt("Go on?", response_schema=Decision)).__name__})
    graph.add_edge(START, "ask")

    @operator(id="desk")
    class Desk:
        @workflow(id="own", graph=graph)
        class Own: ...

    run = Run(compile_workflow(define(Desk).workflows["own"]))
    assert answered(run, asked(run), answer("answer", answer={"approved": True})).output["answer"] == "Decision"


def test_a_question_must_be_answered():
    with pytest.raises(jsonschema.ValidationError):
        fitting(asked(asking("Go on?")).request, answer("answer"))


# ── Agent Inbox ──────────────────────────────────────────────────────────────────────────────────────────────────────

ALL = {"allow_ignore": True, "allow_respond": True, "allow_edit": True, "allow_accept": True}


def inbox(**config: bool) -> dict[str, Any]:
    return {
        "action_request": {"action": "send_email", "args": {"to": "ada@example.com", "subject": "Hi"}},
        "config": config,
        "description": "**Send** this?",
    }


@pytest.mark.parametrize("wrapped", [False, True], ids=["object", "list"])
def test_an_inbox_question_shows_its_description_and_its_buttons(wrapped):
    request = asked(asking([inbox(**ALL)] if wrapped else inbox(**ALL))).request
    assert (request.form, request.prompt) == ("agent_inbox", "**Send** this?")
    assert request.payload["action_request"]["args"] == {"to": "ada@example.com", "subject": "Hi"}
    assert request.decisions == ["accept", "edit", "response", "ignore"]
    assert request.edits == ["args"]


@pytest.mark.parametrize(
    ("config", "decisions", "edits"),
    [
        ({"allow_accept": True}, ["accept"], []),
        ({"allow_accept": True, "allow_edit": False, "allow_ignore": True}, ["accept", "ignore"], []),
        ({"allow_edit": True, "allow_respond": True}, ["edit", "response"], ["args"]),
        ({}, ["accept"], []),
    ],
)
def test_an_inbox_question_offers_what_it_allows(config, decisions, edits):
    request = asked(asking(inbox(**config))).request
    assert (request.decisions, request.edits) == (decisions, edits)
    with pytest.raises(jsonschema.ValidationError):
        fitting(request, answer("reject"))


@pytest.mark.parametrize(
    ("given", "back"),
    [
        (
            answer("accept"),
            {"type": "accept", "args": {"action": "send_email", "args": {"to": "ada@example.com", "subject": "Hi"}}},
        ),
        (
            answer("edit", args={"to": "bob@example.com"}),
            {"type": "edit", "args": {"action": "send_email", "args": {"to": "bob@example.com"}}},
        ),
        (
            answer("edit"),
            {"type": "edit", "args": {"action": "send_email", "args": {"to": "ada@example.com", "subject": "Hi"}}},
        ),
        (answer("response", "make it warmer"), {"type": "response", "args": "make it warmer"}),
        (answer("ignore"), {"type": "ignore", "args": None}),
    ],
)
def test_an_inbox_answer_is_a_list_with_one_response(given, back):
    assert kept([inbox(**ALL)], given) == [back]


def test_an_inbox_question_without_words_names_its_action():
    value = {**inbox(**ALL), "description": None}
    assert asked(asking(value)).request.prompt == "send_email?"


# ── LangChain's human-in-the-loop middleware ─────────────────────────────────────────────────────────────────────────

ANY = ["approve", "edit", "reject", "respond"]


def batch(*names: str, allowed: list[str] | None = None) -> dict[str, Any]:
    return {
        "action_requests": [
            {"name": name, "args": {"amount": number}, "description": f"Please look at {name}"}
            for number, name in enumerate(names, start=5)
        ],
        "review_configs": [{"action_name": name, "allowed_decisions": allowed or ANY} for name in names],
    }


def test_a_batch_shows_its_words_and_its_buttons():
    request = asked(asking(batch("wire"))).request
    assert (request.form, request.prompt) == ("middleware", "Please look at wire")
    assert request.decisions == ANY
    assert request.edits == ["actions"]
    assert request.payload == batch("wire")


def test_a_batch_offers_what_every_one_of_its_actions_allows():
    value = batch("wire", "mail")
    value["review_configs"][0]["allowed_decisions"] = ["approve", "reject"]
    request = asked(asking(value)).request
    assert (request.decisions, request.edits) == (["approve", "reject"], [])


def test_a_batch_without_configs_offers_the_middlewares_own_decisions():
    request = asked(asking({"action_requests": [{"name": "wire", "args": {}}], "review_configs": []})).request
    assert request.decisions == ["approve", "edit", "reject"]
    assert request.prompt == "Run wire?"


@pytest.mark.parametrize(
    ("given", "one"),
    [
        (answer("approve"), {"type": "approve"}),
        (answer("reject"), {"type": "reject"}),
        (answer("reject", "too much"), {"type": "reject", "message": "too much"}),
        (answer("respond", "it is done already"), {"type": "respond", "message": "it is done already"}),
        (
            answer("edit", actions=[{"name": "wire", "args": {"amount": 4}}]),
            {"type": "edit", "edited_action": {"name": "wire", "args": {"amount": 4}}},
        ),
        (
            answer("edit", actions=[{"args": {"amount": 4}}]),
            {"type": "edit", "edited_action": {"name": "wire", "args": {"amount": 4}}},
        ),
        (
            answer("edit", actions=[{"amount": 4}]),
            {"type": "edit", "edited_action": {"name": "wire", "args": {"amount": 4}}},
        ),
        (
            answer("edit", actions=[{"name": "launder", "args": {}}]),
            {"type": "edit", "edited_action": {"name": "wire", "args": {}}},
        ),
    ],
)
def test_the_answer_to_one_action_is_a_list_with_one_decision(given, one):
    assert kept(batch("wire"), given) == {"decisions": [one]}


def test_the_answer_to_several_actions_has_their_number_and_order():
    assert kept(batch("wire", "mail"), answer("approve")) == {"decisions": [{"type": "approve"}, {"type": "approve"}]}
    edited = answer("edit", actions=[None, {"args": {"amount": 1}}])
    assert kept(batch("wire", "mail"), edited) == {
        "decisions": [
            {"type": "edit", "edited_action": {"name": "wire", "args": {"amount": 5}}},
            {"type": "edit", "edited_action": {"name": "mail", "args": {"amount": 1}}},
        ]
    }


def test_an_edit_of_another_number_of_actions_is_refused():
    request = asked(asking(batch("wire", "mail"))).request
    with pytest.raises(RunError, match="edits 1 actions; the question has 2"):
        interrupts.resume(request.form, request.payload, answer("edit", actions=[{"amount": 1}]))


def test_the_actions_of_an_answer_are_as_many_as_the_question_has():
    request = asked(asking(batch("wire", "mail"))).request
    with pytest.raises(jsonschema.ValidationError):
        fitting(request, answer("edit", actions=[{"amount": 1}]))


# ── one interrupt for each tool call ─────────────────────────────────────────────────────────────────────────────────


def approval() -> dict[str, Any]:
    return {
        "type": "tool_approval",
        "tool_call_id": "call_1",
        "name": "wire",
        "args": {"amount": 5},
        "description": "Wire money",
    }


def decisions(*allowed: str, nested: bool = False) -> dict[str, Any]:
    """Return a schema of single decisions, each an object whose `type` is constant."""
    options = {
        "approve": {},
        "edit": {
            "edited_action": {
                "type": "object",
                "properties": {"name": {"const": "wire"}, "args": {"type": "object"}},
                "required": ["name", "args"],
            }
        },
        "reject": {"message": {"type": "string"}},
        "respond": {"message": {"type": "string"}},
    }
    shapes = {
        name: {"type": "object", "properties": {"type": {"const": name}, **options[name]}, "required": ["type"]}
        for name in allowed
    }
    if not nested:
        return {"anyOf": [*shapes.values()]}
    return {"$defs": shapes, "oneOf": [{"$ref": f"#/$defs/{name}"} for name in shapes]}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("allowed", [("approve", "reject"), ("approve", "edit", "reject"), ("respond",), tuple(ANY)])
def test_a_tool_approval_offers_what_its_schema_allows(allowed, nested):
    request = asked(asking(approval(), response_schema=decisions(*allowed, nested=nested))).request
    assert (request.form, request.prompt) == ("tool_approval", "Wire money")
    assert request.decisions == list(allowed)
    assert request.edits == (["action"] if "edit" in allowed else [])


def test_a_tool_approval_without_a_schema_offers_all():
    assert asked(asking(approval())).request.decisions == ANY


@pytest.mark.parametrize(
    ("given", "back"),
    [
        (answer("approve"), {"type": "approve"}),
        (answer("reject", "too much"), {"type": "reject", "message": "too much"}),
        (answer("respond", "done already"), {"type": "respond", "message": "done already"}),
        (
            answer("edit", action={"name": "wire", "args": {"amount": 4}}),
            {"type": "edit", "edited_action": {"name": "wire", "args": {"amount": 4}}},
        ),
        (
            answer("edit", action={"amount": 4}),
            {"type": "edit", "edited_action": {"name": "wire", "args": {"amount": 4}}},
        ),
        (answer("edit"), {"type": "edit", "edited_action": {"name": "wire", "args": {"amount": 5}}}),
    ],
)
def test_the_answer_to_a_tool_approval_is_one_decision_that_its_schema_takes(given, back):
    schema = decisions(*ANY)
    assert kept(approval(), given, response_schema=schema) == back
    jsonschema.validate(back, schema)


@pytest.mark.parametrize(
    ("value", "decision"), [(batch("wire"), "respond"), (approval(), "respond"), (inbox(**ALL), "response")]
)
def test_a_response_needs_words(value, decision):
    request = asked(asking(value)).request
    fitting(request, answer(decision, "words"))
    for wordless in ({"decision": decision}, {"decision": decision, "notes": ""}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wordless, request.schema)
