# long: an agent's behaviours stand in one place
"""Agent nodes: a model calls tools until it answers, each call a step of its own that no crash repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

import pytest

from openvibe import Ctx, ToolError, agent_node, conditional, node, remote_tool
from openvibe.errors import TransientModelError
from openvibe.graph.saver import RowSaver
from openvibe.llm import LLMResponse, ToolCall, adapted
from openvibe.llm.scripted import Answer, ScriptedProvider
from openvibe.llm.simulated import SimulatedProvider
from openvibe.outcomes import Completed, Failed, Paused
from tests.unit.players import Priced, Run, compiled

DAY = timedelta(days=1)


def price(product: str, currency: Literal["EUR", "USD"] = "EUR") -> dict[str, Any]:
    """Look up the price of a product."""
    return {"product": product, "price": 9.5, "currency": currency}


def call(name: str, number: int = 1, /, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{number}", name, arguments)


def advising(answers: list[Answer], *tools: Any, **options: Any) -> Run:
    """Return a run of `before`, the agent `advise` with these tools, and `after`; the model says these answers."""

    class Write:
        @node
        def before(self, state):
            return {"research": "done"}

        @agent_node(tools=tools, **options)
        def advise(self, state):
            return {"system": "You sell books.", "user": f"What of {state['topic']}?", "output_key": "letter"}

        @node
        def after(self, state):
            return {"tags": ["after"]}

    return Run(compiled(Write), provider=ScriptedProvider(answers))


def results(run: Run) -> list[tuple[str, bool]]:
    """Return what the model was told of its calls by the time of its last turn: the text, and whether it failed."""
    return [(turn.content, turn.error) for turn in run.provider.calls[-1].history if turn.role == "tool"]


# ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_calls_a_tool_and_its_answer_goes_to_the_field():
    run = advising([call("price", product="Emma"), "It costs 9.50."], price)
    assert run.play(start={}).output["letter"] == "It costs 9.50."
    assert results(run) == [('{"product":"Emma","price":9.5,"currency":"EUR"}', False)]


def test_the_model_reads_the_question_the_talk_so_far_and_the_tools():
    run = advising([call("price", product="Emma"), "It costs 9.50."], price)
    run.play(start={"topic": "Emma"})
    first, second = run.provider.calls
    assert (first.system, first.user, first.history) == ("You sell books.", "What of Emma?", ())
    assert (second.system, second.user) == (first.system, first.user)
    assert [turn.role for turn in second.history] == ["assistant", "tool"]
    assert second.history[0].calls == (call("price", product="Emma"),)
    assert second.history[1].call_id == "call_1"
    [tool] = first.tools
    assert (tool.name, tool.description) == ("price", "Look up the price of a product.")
    assert tool.schema["required"] == ["product"]
    assert tool.schema["properties"]["currency"]["enum"] == ["EUR", "USD"]


def test_a_model_that_needs_no_tool_answers_at_once():
    run = advising(["Read Emma."], price)
    assert run.play(start={}).output["letter"] == "Read Emma."
    assert "step.started advise.tools" not in run.told


def test_every_model_turn_and_every_call_is_a_step_of_its_own():
    run = advising([[call("price", product="Emma"), call("price", 2, product="Ulysses")], "Both."], price)
    run.play(start={})
    steps = ["before", "advise", "advise.tools", "advise.tools", "advise", "after"]
    assert run.told == [f"step.{kind} {name}" for name in steps for kind in ("started", "finished")]
    assert len({event.step_id for event in run.events}) == len(steps)


def test_the_timeline_shows_what_was_called_and_what_came_back():
    run = advising([call("price", product="Emma"), "It costs 9.50."], price)
    run.play(start={})
    asked, made, answered = [event.data for event in run.events if event.kind == "step.finished"][1:4]
    assert asked["calls"] == [{"id": "call_1", "name": "price", "arguments": {"product": "Emma"}}]
    assert (made["tool"], made["arguments"], made["error"]) == ("price", {"product": "Emma"}, False)
    assert '"price":9.5' in made["result"]
    assert answered["update"] == {"letter": "It costs 9.50."}
    assert asked["usage"]["calls"] == answered["usage"]["calls"] == 1


def test_what_a_model_calls_with_is_shown_as_json_that_any_reader_can_take():
    def count(number: int) -> str:
        """Count."""
        return "counted"

    run = advising([call("count", number=2**60), "Done."], count)
    run.play(start={})
    shown = [event.data for event in run.events if "tool" in event.data]
    assert [data["arguments"] for data in shown] == [{"number": str(2**60)}]


def test_the_talk_appears_in_no_update_and_no_output():
    run = advising([call("price", product="Emma"), "It costs 9.50."], price)
    outcome = run.play(start={})
    assert set(outcome.output) == {"research", "letter", "tags"}
    assert [event.data["update"] for event in run.events if "update" in event.data] == [
        {"research": "done"},
        {},
        {},
        {"letter": "It costs 9.50."},
        {"tags": ["after"]},
    ]


def test_an_agent_that_is_visited_again_begins_a_new_talk():
    class Write:
        @agent_node(tools=[price])
        def advise(self, state):
            return {"user": f"Round {state['amount']}", "output_key": "letter"}

        @node
        def count(self, state):
            return {"amount": state["amount"] + 1}

        @conditional(routes={"advise": lambda s: s["amount"] < 2, "end": lambda s: True})
        def again(self, state):
            return None

    answers = [call("price", product="a"), "one", call("price", product="b"), "two"]
    run = Run(compiled(Write), provider=ScriptedProvider(answers))
    assert run.play(start={}).output["letter"] == "two"
    assert [(asked.user, len(asked.history)) for asked in run.provider.calls] == [
        ("Round 0", 0),
        ("Round 0", 2),
        ("Round 1", 0),
        ("Round 1", 2),
    ]


def test_two_agents_of_a_workflow_do_not_hear_each_other():
    class Write:
        @agent_node(tools=[price])
        def first(self, state):
            return {"user": "First?", "output_key": "draft"}

        @agent_node(tools=[price])
        def second(self, state):
            return {"user": "Second?", "output_key": "letter"}

    answers = [call("price", product="a"), "one", call("price", product="b"), "two"]
    run = Run(compiled(Write), provider=ScriptedProvider(answers))
    assert run.play(start={}).output == {"draft": "one", "letter": "two"}
    assert [len(asked.history) for asked in run.provider.calls] == [0, 2, 0, 2]


def test_an_agent_asks_the_model_that_an_administrator_chose():
    run = advising([call("price", product="Emma"), "Done."], price, model="haiku", max_tokens=99, temperature=0.5)
    run.models = {"advise": "opus"}
    run.play(start={})
    assert {(asked.model, asked.max_tokens, asked.temperature) for asked in run.provider.calls} == {("opus", 99, 0.5)}


def test_a_model_call_that_may_succeed_later_is_tried_again():
    run = advising([TransientModelError("busy", 0.001), "Done."], price)
    assert run.play(start={}).output["letter"] == "Done."
    assert [event.data["error"] for event in run.host.recorded] == ["busy"]


def test_the_simulated_model_calls_each_tool_once_and_answers():
    def stock(product: str, at: list[str], ctx: Ctx) -> int:
        """Count what is in stock."""
        return 3

    run = advising([], price, stock)
    run.provider = SimulatedProvider()
    outcome = run.play(start={})
    assert isinstance(outcome, Completed)
    assert outcome.output["letter"]
    assert [event.data["tool"] for event in run.events if "tool" in event.data] == ["price", "stock"]
    assert [event.data["error"] for event in run.events if "tool" in event.data] == [False, False]


def test_a_provider_that_takes_no_tools_fails_the_step_saying_so():
    run = advising([], price)
    run.provider = adapted(Priced(["words"]))
    outcome = run.play(start={})
    assert outcome.node == "advise"
    assert "takes no tools" in outcome.error


# ── tools ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tool_may_be_awaited_and_may_take_ctx():
    seen: list[Any] = []

    async def stock(product: str, ctx: Ctx) -> int:
        """Count what is in stock."""
        await asyncio.sleep(0)
        seen.append((product, ctx.node, ctx.step_id))
        ctx.log("looked")
        ctx.emit("looked_up", {"product": product})
        return 3

    run = advising([call("stock", product="Emma"), "Three."], stock)
    run.play(start={})
    [(product, at, step_id)] = seen
    assert (product, at) == ("Emma", "advise")
    assert step_id in {event.step_id for event in run.events if event.node == "advise.tools"}
    assert results(run) == [("3", False)]
    assert "ctx" not in run.provider.calls[0].tools[0].schema["properties"]
    assert run.host.logged == ["looked"]
    [part] = [part for part in run.seen if part.emissions]
    assert (part.events[0].kind, part.events[0].node) == ("step.finished", "advise.tools")


def test_a_tools_arguments_arrive_in_their_types_and_defaults():
    seen: list[Any] = []

    def book(when: timedelta, seats: list[int], copy: bool = False, note: str | None = None) -> None:
        """Book seats."""
        seen.append((when, seats, copy, note))

    run = advising([call("book", when="P1D", seats=["1", 2]), "Booked."], book)
    run.play(start={})
    assert seen == [(DAY, [1, 2], False, None)]
    assert results(run) == [("null", False)]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (call("price"), "The arguments do not fit: product: Field required"),
        (call("price", product=3), "The arguments do not fit: product: Input should be a valid string"),
        (call("price", product="Emma", colour="red"), "colour: Extra inputs are not permitted"),
        (call("weather", city="Rome"), "There is no tool 'weather'; there are: price"),
        (call("", city="Rome"), "There is no tool ''"),
    ],
)
def test_a_wrong_call_is_told_to_the_model_which_goes_on(made, told):
    run = advising([made, "Sorry."], price)
    assert run.play(start={}).output["letter"] == "Sorry."
    [(text, failed)] = results(run)
    assert told in text
    assert failed
    assert "step.failed advise.tools" not in run.told


def test_a_tool_error_is_told_to_the_model_which_goes_on():
    def stock(product: str) -> int:
        """Count what is in stock."""
        raise ToolError(f"nobody knows {product}")

    run = advising([call("stock", product="Emma"), "Nobody knows."], stock)
    assert isinstance(run.play(start={}), Completed)
    assert results(run) == [("nobody knows Emma", True)]
    assert [event.data["error"] for event in run.events if "tool" in event.data] == [True]


def test_what_a_tool_emitted_before_its_tool_error_is_forgotten():
    def stock(product: str, ctx: Ctx) -> int:
        """Count what is in stock."""
        ctx.emit("looked_up")
        raise ToolError("nobody knows")

    run = advising([call("stock", product="Emma"), "Nobody knows."], stock)
    run.play(start={})
    assert run.emitted == []


def test_any_other_error_of_a_tool_fails_its_step_and_a_later_play_repeats_only_that():
    calls: list[str] = []

    def stock(product: str) -> int:
        """Count what is in stock."""
        calls.append(product)
        if len(calls) == 2:
            raise ConnectionError("the warehouse is away")
        return 3

    run = advising([[call("stock", product="a"), call("stock", 2, product="b")], "Done."], stock)
    outcome = run.play(start={})
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.node, outcome.error) == ("ConnectionError", "advise.tools", "the warehouse is away")
    assert run.told[-1] == "step.failed advise.tools"
    assert isinstance(run.play(), Completed)
    assert calls == ["a", "b", "b"]
    assert len(run.provider.calls) == 2


def test_an_effect_of_a_tool_is_done_once_though_its_step_is_played_twice():
    charged: list[str] = []

    def charge(ctx: Ctx) -> str:
        """Charge the card."""
        receipt = ctx.effect("charge", lambda: charged.append("charge") or "receipt")
        if len(tries) == 0:
            tries.append(1)
            raise ConnectionError("away")
        return receipt

    tries: list[int] = []
    run = advising([call("charge"), "Done."], charge)
    run.play(start={})
    run.play()
    assert charged == ["charge"]
    assert results(run) == [("receipt", False)]


def test_a_tool_may_ask_another_operator():
    def ask(ctx: Ctx) -> str:
        """Ask research."""
        return ctx.request("intel", "research")

    run = advising([call("ask"), "Done."], ask)
    [wait] = run.play(start={}).waits
    assert (wait.request.kind, wait.request.node) == ("reply", "advise")
    assert isinstance(run.play(answers={wait.interrupt_id: {"result": "all"}}), Completed)
    assert results(run) == [("all", False)]


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_crash_after_any_commit_repeats_no_turn_and_no_call():
    calls: list[str] = []

    def stock(product: str) -> int:
        """Count what is in stock."""
        calls.append(product)
        return len(calls)

    answers = [
        [call("stock", 1, product="a"), call("stock", 2, product="b")],
        call("stock", 3, product="c"),
        "Done.",
    ]
    run = advising(answers, stock)
    assert run.play_in_pieces(start={}).output["letter"] == "Done."
    assert calls == ["a", "b", "c"]
    assert len(run.provider.calls) == 3
    assert results(run) == [("1", False), ("2", False), ("3", False)]
    assert len([told for told in run.told if told == "step.finished advise.tools"]) == 3
    assert len(run.told) == len({(event.kind, event.step_id) for event in run.events})


def test_a_call_whose_commit_was_lost_is_the_only_one_that_is_made_again():
    calls: list[str] = []

    def stock(product: str) -> int:
        """Count what is in stock."""
        calls.append(product)
        return len(calls)

    run = advising([[call("stock", 1, product="a"), call("stock", 2, product="b")], "Done."], stock)
    parts = run.parts(start={})
    while calls != ["a"]:
        next(parts)
    kept = run.rows.drain()
    run.rows.save(*kept)
    next(parts)
    parts.close()
    run.rows.drain()
    run.rows.save(*kept)
    assert isinstance(run.play(), Completed)
    assert calls == ["a", "b", "b"]


# ── the limit of steps ───────────────────────────────────────────────────────────────────────────────────────────────


def test_after_its_last_step_the_model_must_answer_without_tools():
    run = advising([call("price", 1, product="a"), call("price", 2, product="b"), "Enough."], price, max_steps=2)
    assert run.play(start={}).output["letter"] == "Enough."
    assert [len(asked.tools) for asked in run.provider.calls] == [1, 1, 0]


def test_a_model_that_calls_on_although_it_has_no_tools_left_fails_the_step():
    run = advising([call("price", number, product="a") for number in range(9)], price, max_steps=2)
    outcome = run.play(start={})
    assert (outcome.kind, outcome.node) == ("ModelError", "advise")
    assert "after max_steps=2 calls" in outcome.error
    assert len(run.provider.calls) == 3


def test_the_words_beside_a_call_too_many_are_the_answer():
    both = LLMResponse("Enough.", 1, 1, "m", None, tool_calls=(call("price", product="a"),))
    run = advising([call("price", product="a"), both], price, max_steps=1)
    assert run.play(start={}).output["letter"] == "Enough."


# ── remote tools ─────────────────────────────────────────────────────────────────────────────────────────────────────

CRAWL = remote_tool(
    "crawl",
    description="Read a page.",
    parameters={"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]},
    timeout=timedelta(minutes=5),
)


def test_a_remote_tool_pauses_the_run_until_its_result_is_there():
    run = advising([call("crawl", url="https://a.example"), "Read."], CRAWL)
    outcome = run.play(start={})
    assert isinstance(outcome, Paused)
    [wait] = outcome.waits
    assert (wait.request.kind, wait.request.node, wait.request.timeout_seconds) == ("tool", "advise", 300)
    assert wait.request.payload == {
        "tool": "crawl",
        "tool_call_id": "call_1",
        "arguments": {"url": "https://a.example"},
    }
    assert RowSaver(run.rows).pending_interrupts("run") == [wait.interrupt_id]
    outcome = run.play(answers={wait.interrupt_id: {"result": {"title": "A"}}})
    assert outcome.output["letter"] == "Read."
    assert results(run) == [('{"title":"A"}', False)]
    assert len(run.provider.calls) == 2


def test_a_remote_tool_that_fails_is_told_to_the_model():
    run = advising([call("crawl", url="https://a.example"), "Not read."], CRAWL)
    [wait] = run.play(start={}).waits
    assert isinstance(run.play(answers={wait.interrupt_id: {"error": "nobody answered"}}), Completed)
    assert results(run) == [("nobody answered", True)]


def test_the_arguments_of_a_remote_call_are_kept_as_json():
    run = advising([call("crawl", url=2**60), "Read."], CRAWL)
    [wait] = run.play(start={}).waits
    assert wait.request.payload["arguments"] == {"url": str(2**60)}


def test_a_crash_between_remote_calls_repeats_none():
    run = advising([[call("crawl", 1, url="a"), call("price", 2, product="b"), call("crawl", 3, url="c")], "Read."],
                   CRAWL, price)  # fmt: skip
    outcome = run.play_in_pieces(start={})
    assert isinstance(outcome, Paused)
    [interrupt] = {wait.interrupt_id for wait in outcome.waits}
    assert [wait.request.payload["arguments"]["url"] for wait in outcome.waits] == ["a", "c"]
    answers = [{"result": "A", "error": ""}, {"result": "C", "error": ""}]
    outcome = run.play_in_pieces(answers={interrupt: {"answers": answers}})
    assert outcome.output["letter"] == "Read."
    assert [text for text, _ in results(run)] == ["A", "C", '{"product":"b","price":9.5,"currency":"EUR"}']


def test_all_remote_calls_of_a_turn_are_waited_for_together():
    turn = [call("price", 1, product="b"), call("crawl", 2, url="a"), call("crawl", 3, url="c"), call("crawl", 4)]
    run = advising([turn, "Read."], CRAWL, price)
    outcome = run.play(start={})
    assert isinstance(outcome, Paused)
    assert [(wait.seat, wait.request.kind, wait.request.rule, wait.request.needed) for wait in outcome.waits] == [
        (number, "tool", "all", 3) for number in range(3)
    ]
    assert [wait.request.payload["tool_call_id"] for wait in outcome.waits] == ["call_2", "call_3", "call_4"]
    assert {wait.request.timeout_seconds for wait in outcome.waits} == {300}
    answers = [{"result": "A", "error": ""}, {"result": None, "error": "gone"}, {"result": {"n": 1}, "error": ""}]
    outcome = run.play(answers={outcome.waits[0].interrupt_id: {"answers": answers}})
    assert outcome.output["letter"] == "Read."
    assert results(run)[1:] == [("A", False), ("gone", True), ('{"n":1}', False)]
    told = [event for event in run.events if event.kind == "step.finished" and event.node == "advise.tools"]
    assert [item["tool"] for item in told[-1].data["made"]] == ["crawl"] * 3


# ── what an agent's method returns ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (None, "returned NoneType"),
        ({"user": "Hi", "output_keys": {"letter": str}}, "must return `output_key`"),
        ({"output_key": "letter"}, "must return `user`"),
        ({"user": "Hi", "output_key": "lettre"}, "'lettre'"),
    ],
)
def test_a_wrong_question_fails_the_step(returned, told):
    class Write:
        @agent_node(tools=[price])
        def advise(self, state):
            return returned

    outcome = Run(compiled(Write), provider=ScriptedProvider(["Hello."])).play(start={})
    assert (outcome.kind, outcome.node) == ("WrongUpdate", "advise")
    assert told in outcome.error


def test_the_method_is_called_once_however_many_turns_there_are():
    calls: list[int] = []

    class Write:
        @agent_node(tools=[price])
        def advise(self, state):
            calls.append(1)
            return {"user": "Hi", "output_key": "letter"}

    answers = [call("price", 1, product="a"), call("price", 2, product="b"), "Done."]
    Run(compiled(Write), provider=ScriptedProvider(answers)).play(start={})
    assert calls == [1]


def test_a_tool_is_called_as_any_function():
    assert price("Emma")["price"] == 9.5
    method: Callable[..., Any] = agent_node(tools=[price])(lambda self, state: {"user": state["x"]})
    assert method(None, {"x": "Hi"}) == {"user": "Hi"}
