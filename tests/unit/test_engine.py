# long: the engine's behaviours stand in one place
"""The engine: what it tells while it plays, how gates are answered, and that a run goes on where it stopped."""

from decimal import Decimal
from typing import Any

import pytest
from langgraph.errors import GraphInterrupt
from langgraph.types import Command

from openvibe import engine, human_in_the_loop, llm_node, node
from openvibe.engine import STRICT_RESUME, strict_resume_works
from openvibe.errors import TransientModelError
from openvibe.graph.rows import MemoryRows
from openvibe.graph.saver import RowSaver
from openvibe.llm.simulated import SimulatedProvider
from openvibe.outcomes import Completed, Failed, Paused
from openvibe.session import Session
from tests.unit.players import Priced, Run, compiled


def gated(ran: list[str] | None = None, **options: Any) -> Run:
    """Return a run through draft → review (a gate with these options) → polish → send; `ran` hears of each node."""
    heard = ran if ran is not None else []

    class Write:
        @node
        def draft(self, state):
            heard.append("draft")
            return {"letter": f"Dear {state['topic']}"}

        @human_in_the_loop(prompt="Send it?", **options)
        def review(self, state):
            return None

        @node
        def polish(self, state):
            heard.append("polish")
            return {"letter": state["letter"] + ", polished"}

        @node
        def send(self, state):
            heard.append("send")
            return {"letter": state["letter"] + ", sent"}

    return Run(compiled(Write))


class Linear:
    @node
    def research(self, state):
        return {"research": f"about {state['topic']}"}

    @llm_node(model="haiku")
    def draft(self, state):
        return {"system": "You write.", "user": state["research"], "output_key": "draft"}

    @node
    def send(self, state):
        return {"letter": "sent", "amount": "3"}


LINEAR = compiled(Linear)


# ── a run without gates ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_linear_run_tells_its_steps_in_order():
    run = Run(LINEAR)
    run.play(start={})
    assert run.told == [
        "step.started research",
        "step.finished research",
        "step.started draft",
        "step.finished draft",
        "step.started send",
        "step.finished send",
    ]


def test_a_finished_step_bears_the_id_that_it_began_with():
    run = Run(LINEAR)
    run.play(start={})
    ids = [event.step_id for event in run.events]
    assert ids[0::2] == ids[1::2]
    assert len(set(ids)) == 3


def test_a_steps_end_is_committed_together_with_the_next_ones_beginning():
    run = Run(LINEAR)
    run.play(start={})
    assert [[event.kind for event in progress.events] for progress in run.seen] == [
        ["step.started"],
        ["step.finished", "step.started"],
        ["step.finished", "step.started"],
        ["step.finished"],
    ]


def test_a_node_may_bear_the_name_of_a_state_field():
    run = Run(LINEAR, provider=Priced(["A letter"]))
    outcome = run.play(start={"topic": "cake"})
    assert outcome.output["research"] == "about cake"
    assert outcome.output["draft"] == "A letter"


def test_a_run_ends_with_the_fields_that_have_a_value_in_their_types():
    run = Run(LINEAR, provider=Priced(["A letter"]))
    assert run.play(start={"topic": "cake"}) == Completed(
        {"topic": "cake", "research": "about cake", "draft": "A letter", "letter": "sent", "amount": 3}
    )


def test_a_finished_step_tells_its_update_and_how_long_it_took():
    run = Run(LINEAR)
    run.play(start={})
    finished = run.events[-1]
    assert finished.data["update"] == {"letter": "sent", "amount": 3}
    assert finished.data["duration_seconds"] >= 0


def test_a_node_that_returns_nothing_changes_nothing():
    class Write:
        @node
        def look(self, state):
            return None

    run = Run(compiled(Write))
    assert run.play(start={"topic": "cake"}) == Completed({"topic": "cake"})
    assert run.events[-1].data["update"] == {}


def test_a_node_that_changes_a_default_in_place_does_not_change_it_for_the_next_run():
    class Write:
        @node
        def collect(self, state):
            state["tags"].append("new")
            return {"tags": state["tags"]}

    written = compiled(Write)
    assert [Run(written).play(start={}).output["tags"] for _ in range(2)] == [["new"], ["new"]]


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_figures_grow_with_the_step_that_caused_them():
    run = Run(LINEAR, provider=Priced(["A letter"]))
    run.play(start={})
    assert [progress.figures.nodes_executed for progress in run.seen] == [0, 1, 1, 1]
    assert [progress.figures.llm_calls for progress in run.seen] == [0, 0, 1, 0]
    assert [progress.figures.cost_usd for progress in run.seen] == [0, 0, Decimal("0.01"), 0]
    assert [(progress.figures.tokens_in, progress.figures.tokens_out) for progress in run.seen][2] == (10, 5)


def test_a_model_step_tells_what_it_used():
    run = Run(LINEAR, provider=Priced(["A letter"]))
    run.play(start={})
    [usage] = [event.data["usage"] for event in run.events if "usage" in event.data]
    assert usage == {
        "model": "haiku",
        "provider": "priced",
        "simulated": False,
        "calls": 1,
        "tokens_in": 10,
        "tokens_out": 5,
        "cost_usd": "0.01",
    }


def test_a_call_without_a_known_price_is_counted_as_such_and_has_no_cost():
    run = Run(LINEAR, provider=Priced(["A letter"], cost_usd=None))
    run.play(start={})
    assert sum(progress.figures.unpriced_calls for progress in run.seen) == 1
    [usage] = [event.data["usage"] for event in run.events if "usage" in event.data]
    assert usage["cost_usd"] is None


def test_a_simulated_step_says_so():
    run = Run(LINEAR)
    run.play(start={})
    [usage] = [event.data["usage"] for event in run.events if "usage" in event.data]
    assert usage["simulated"] is True
    assert usage["model"] == "simulated-haiku"


def test_a_run_may_ask_another_model_than_its_node_names():
    run = Run(LINEAR, provider=Priced(["A letter"]), models={"draft": "opus"})
    run.play(start={})
    assert [event.data["usage"]["model"] for event in run.events if "usage" in event.data] == ["opus"]


def test_words_and_failed_attempts_are_heard_while_the_step_runs():
    run = Run(LINEAR, provider=Priced([TransientModelError("busy", 0.001), "A letter"]))
    run.play(start={})
    assert run.host.said == [("draft", "A"), ("draft", "letter")]
    [failed] = run.host.recorded
    assert (failed.kind, failed.node, failed.data["error"]) == ("attempt.failed", "draft", "busy")
    assert failed.step_id == next(event.step_id for event in run.events if event.node == "draft")


def test_the_calls_of_a_failed_step_are_counted_too():
    class Write:
        @llm_node(output_format="json", attempts=2)
        def score(self, state):
            return {"user": "Score it.", "output_key": "amount"}

    run = Run(compiled(Write), provider=Priced(["none", "none"]))
    assert isinstance(run.play(start={}), Failed)
    assert sum(progress.figures.llm_calls for progress in run.seen) == 2
    assert run.events[-1].data["usage"]["calls"] == 2


# ── gates ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_gate_pauses_the_run_and_shows_what_it_asks():
    ran: list[str] = []
    outcome = gated(ran, edits=("letter",)).play(start={"topic": "Ada"})
    assert isinstance(outcome, Paused)
    [gate] = outcome.waits
    assert (gate.request.node, gate.request.prompt) == ("review", "Send it?")
    assert gate.request.payload == {"letter": "Dear Ada"}
    assert gate.request.decisions == ["approve", "reject"]
    assert gate.request.edits == ["letter"]
    assert ran == ["draft"]


def test_a_gate_shows_what_its_method_returns():
    class Write:
        @human_in_the_loop(prompt="Send it?", edits=("letter",))
        def review(self, state):
            return {"length": len(state["letter"])}

    [gate] = Run(compiled(Write)).play(start={}).waits
    assert gate.request.payload == {"length": 5}


def test_a_gates_answer_schema_names_decisions_and_editable_fields():
    [gate] = gated(decisions=("approve", "later"), edits=("letter", "amount")).play(start={}).waits
    assert gate.request.schema["properties"]["decision"]["enum"] == ["approve", "later"]
    assert gate.request.schema["required"] == ["decision"]
    assert list(gate.request.schema["$defs"]["Values"]["properties"]) == ["letter", "amount"]


def test_a_paused_run_bears_the_interrupt_and_step_that_were_told():
    run = gated()
    [gate] = run.play(start={}).waits
    assert RowSaver(run.rows).pending_interrupts("run") == [gate.interrupt_id]
    assert gate.step_id == run.events[-1].step_id
    assert run.told[-1] == "step.started review"


def test_playing_a_paused_run_without_an_answer_leaves_it_paused():
    ran: list[str] = []
    run = gated(ran)
    first = run.play(start={})
    assert run.play() == first
    assert ran == ["draft"]


def test_an_approved_gate_lets_the_run_go_on():
    ran: list[str] = []
    run = gated(ran)
    run.play(start={"topic": "Ada"})
    assert run.answer("approve").output["letter"] == "Dear Ada, polished, sent"
    assert ran == ["draft", "polish", "send"]


def test_a_decision_is_written_to_the_field_that_bears_the_gates_name():
    run = gated()
    run.play(start={})
    assert run.answer("approve").output["review"] == "approve"


def test_an_edit_is_written_to_the_fields_that_it_names():
    run = gated(edits=("letter", "amount"))
    run.play(start={})
    output = run.answer("approve", values={"letter": "Hi", "amount": "7"}).output
    assert (output["letter"], output["amount"]) == ("Hi, polished, sent", 7)


def test_an_edit_that_does_not_fit_its_field_fails_naming_gate_and_field():
    run = gated(edits=("amount",))
    run.play(start={})
    outcome = run.answer("approve", values={"amount": "many"})
    assert isinstance(outcome, Failed)
    assert outcome.node == "review"
    assert "'amount', which takes int" in outcome.error


def test_a_rejected_gate_fails_the_run_with_the_reason():
    ran: list[str] = []
    run = gated(ran)
    run.play(start={})
    outcome = run.answer("reject", notes="too short")
    assert (outcome.error, outcome.kind, outcome.node) == ("Rejected at review: too short", "GateRejected", "review")
    assert (outcome.attempt, outcome.traceback) == (1, "")
    assert outcome.step_id in {event.step_id for event in run.events if event.node == "review"}
    assert run.told[-1] == "step.failed review"
    assert ran == ["draft"]


def test_a_rejection_without_a_reason_names_the_gate():
    run = gated()
    run.play(start={})
    assert run.answer("reject").error == "Rejected at review"


def test_a_rejection_may_lead_to_a_later_node():
    ran: list[str] = []
    run = gated(ran, on_reject="send")
    run.play(start={"topic": "Ada"})
    output = run.answer("reject").output
    assert (output["letter"], output["review"]) == ("Dear Ada, sent", "reject")
    assert ran == ["draft", "send"]


def test_a_rejection_may_end_the_run_well():
    ran: list[str] = []
    run = gated(ran, on_reject="end")
    run.play(start={"topic": "Ada"})
    assert run.answer("reject") == Completed({"topic": "Ada", "letter": "Dear Ada", "review": "reject"})
    assert ran == ["draft"]


def test_any_other_decision_goes_on_and_is_written():
    run = gated(decisions=("approve", "reject", "later"))
    run.play(start={"topic": "Ada"})
    output = run.answer("later").output
    assert (output["letter"], output["review"]) == ("Dear Ada, polished, sent", "later")


def test_a_gate_may_be_the_last_node():
    class Write:
        @human_in_the_loop(prompt="Well?")
        def review(self, state):
            return {}

    run = Run(compiled(Write))
    run.play(start={})
    assert run.answer("approve") == Completed({"review": "approve"})


def test_gates_after_each_other_are_answered_one_by_one():
    class Write:
        @human_in_the_loop(prompt="First?")
        def first(self, state):
            return {}

        @human_in_the_loop(prompt="Second?")
        def second(self, state):
            return {}

    run = Run(compiled(Write))
    prompts = [run.play(start={}), run.answer("approve")]
    assert [gate.request.prompt for paused in prompts for gate in paused.waits] == ["First?", "Second?"]
    assert isinstance(run.answer("approve"), Completed)


def test_the_gates_body_does_not_decide_even_if_it_returns_something_else_at_the_answer():
    shown = iter(["first", "second"])

    class Write:
        @human_in_the_loop(prompt="Well?")
        def review(self, state):
            return {"shown": next(shown)}

    run = Run(compiled(Write))
    [gate] = run.play(start={}).waits
    assert gate.request.payload == {"shown": "first"}
    assert isinstance(run.answer("approve"), Completed)


# ── strict resume ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_answering_the_same_gate_twice_is_refused_and_runs_nothing():
    ran: list[str] = []
    run = gated(ran)
    [gate] = run.play(start={}).waits
    answers = {gate.interrupt_id: {"decision": "approve"}}
    assert isinstance(run.play(answers=answers), Completed)
    before = (list(ran), list(run.told))
    outcome = run.play(answers=answers)
    assert isinstance(outcome, Failed)
    assert outcome.kind == "UnknownInterruptError"
    assert gate.interrupt_id in outcome.error
    assert (ran, run.told) == before


def test_an_answer_to_an_unknown_gate_is_refused_and_the_gate_stays_open():
    ran: list[str] = []
    run = gated(ran)
    [gate] = run.play(start={}).waits
    outcome = run.play(answers={"0" * 32: {"decision": "approve"}})
    assert (outcome.kind, ran) == ("UnknownInterruptError", ["draft"])
    assert RowSaver(run.rows).pending_interrupts("run") == [gate.interrupt_id]
    assert isinstance(run.answer("approve"), Completed)


def raw(run: Run, part: Any, **place: Any) -> list[Any]:
    graph = run.workflow.graph.copy(update={"checkpointer": RowSaver(run.rows)})
    place = {"configurable": {"thread_id": "run", **place}}
    return list(graph.stream(part, place, context=Session(SimulatedProvider()), durability="sync"))


def test_langgraph_honours_the_key_for_strict_resume():
    ran: list[str] = []
    run = gated(ran)
    [gate] = run.play(start={}).waits
    command = Command(resume={gate.interrupt_id: {"decision": "approve"}})
    raw(run, command, **{STRICT_RESUME: True})
    with pytest.raises(Exception, match="consumed interrupt") as caught:
        raw(run, command, **{STRICT_RESUME: True})
    assert not isinstance(caught.value, GraphInterrupt)
    assert ran == ["draft", "polish", "send"]


def test_the_look_at_langgraph_finds_it_strict():
    assert strict_resume_works()


def test_without_the_key_langgraph_takes_an_unknown_answer_silently():
    """If this fails, LangGraph has become strict by itself and `STRICT_RESUME` can go."""
    run = gated()
    run.play(start={})
    raw(run, Command(resume={"0" * 32: {"decision": "approve"}}))


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def failing(error: Exception) -> Run:
    class Write:
        @node
        def research(self, state):
            return {"research": "done"}

        @node
        def send(self, state):
            raise error

    return Run(compiled(Write))


def test_an_exception_in_a_node_fails_the_run_with_node_and_traceback():
    run = failing(ValueError("no postage"))
    outcome = run.play(start={})
    assert (outcome.error, outcome.kind, outcome.node) == ("no postage", "ValueError", "send")
    assert "raise error" in outcome.traceback
    assert outcome.traceback.rstrip().split("\n")[-1] != ""


def test_a_failed_step_is_told_and_counted():
    run = failing(ValueError("no postage"))
    run.play(start={})
    assert run.told[-2:] == ["step.started send", "step.failed send"]
    assert "no postage" in run.events[-1].data["error"]
    assert sum(progress.figures.nodes_failed for progress in run.seen) == 1
    assert sum(progress.figures.nodes_executed for progress in run.seen) == 1


def test_an_exception_without_words_is_named_by_its_kind():
    assert failing(ValueError()).play(start={}).error == "ValueError"


def test_a_fault_that_openvibe_explains_needs_no_traceback():
    class Write:
        @node
        def send(self, state):
            return {"lettre": "x"}

    outcome = Run(compiled(Write)).play(start={})
    assert (outcome.kind, outcome.node, outcome.traceback) == ("WrongUpdate", "send", "")
    assert "'send' wrote 'lettre'" in outcome.error


def test_a_failed_step_is_played_again_and_the_finished_ones_are_not():
    ran: list[str] = []

    class Write:
        @node
        def research(self, state):
            ran.append("research")
            return {"research": "done"}

        @node
        def send(self, state):
            ran.append("send")
            if ran.count("send") == 1:
                raise ValueError("no postage")
            return {"letter": "sent"}

    run = Run(compiled(Write))
    assert isinstance(run.play(start={}), Failed)
    assert isinstance(run.play(), Completed)
    assert ran == ["research", "send", "send"]


# ── stopping and going on ────────────────────────────────────────────────────────────────────────────────────────────


def steps(ran: list[str]) -> Run:
    class Write:
        @node
        def one(self, state):
            ran.append("one")
            return {"amount": state["amount"] + 1}

        @node
        def two(self, state):
            ran.append("two")
            return {"amount": state["amount"] + 10}

        @node
        def three(self, state):
            ran.append("three")
            return {"amount": state["amount"] + 100}

    return Run(compiled(Write))


@pytest.mark.parametrize("boundary", [1, 2, 3, 4])
def test_a_run_that_is_closed_at_a_boundary_goes_on_without_repeating_a_step(boundary):
    ran: list[str] = []
    run = steps(ran)
    parts = run.parts(start={"amount": 1_000})
    for _ in range(boundary):
        next(parts)
    parts.close()
    assert run.play() == Completed({"amount": 1_111})
    assert ran == ["one", "two", "three"]


@pytest.mark.parametrize(("boundary", "done"), [(1, []), (2, ["one"]), (3, ["one", "two"])])
def test_nothing_runs_ahead_of_what_is_handed_over(boundary, done):
    ran: list[str] = []
    parts = steps(ran).parts(start={})
    for _ in range(boundary):
        next(parts)
    assert ran == done
    parts.close()
    assert ran == done


@pytest.mark.parametrize("boundary", [1, 2, 3, 4])
def test_closing_at_a_boundary_tells_each_finished_step_exactly_once(boundary):
    run = steps([])
    parts = run.parts(start={})
    for _ in range(boundary):
        next(parts)
    parts.close()
    run.play()
    assert [told for told in run.told if "finished" in told] == [
        f"step.finished {name}" for name in ("one", "two", "three")
    ]


@pytest.mark.parametrize(("lost", "again"), [(2, "one"), (3, "two"), (4, "three")])
def test_only_the_step_whose_commit_was_lost_is_played_again(lost, again):
    ran: list[str] = []
    run = steps(ran)
    saver = RowSaver(run.rows, collect=True)
    session = Session(run.provider)
    parts = engine.play(run.workflow, saver=saver, thread_id="run", session=session, start={})
    for number, _ in enumerate(parts, start=1):
        if number == lost:
            break
        run.rows.save(*saver.collected())
    parts.close()
    assert run.play() == Completed({"amount": 111})
    expected = ["one", "two", "three"]
    expected.insert(expected.index(again), again)
    assert ran == expected


@pytest.mark.parametrize("boundary", [1, 2, 3])
def test_a_run_that_is_closed_while_it_answers_a_gate_goes_on_without_asking_again(boundary):
    ran: list[str] = []
    run = gated(ran)
    [gate] = run.play(start={"topic": "Ada"}).waits
    parts = run.parts(answers={gate.interrupt_id: {"decision": "approve"}})
    for _ in range(boundary):
        next(parts)
    parts.close()
    assert run.play().output["letter"] == "Dear Ada, polished, sent"
    assert ran == ["draft", "polish", "send"]


def test_the_rows_of_the_last_step_come_with_the_outcome():
    run = steps([])
    saver = RowSaver(run.rows, collect=True)
    session = Session(run.provider)
    brought = []
    for progress in engine.play(run.workflow, saver=saver, thread_id="run", session=session, start={}):
        rows = saver.collected()
        run.rows.save(*rows)
        brought.append((progress.outcome, rows))
    outcome, (checkpoints, writes) = brought[-1]
    assert outcome == Completed({"amount": 111})
    assert checkpoints
    assert ("amount", 111) in [(row.channel, saver.serde.loads_typed((row.type, row.blob))) for row in writes]
    assert saver.collected() == ([], [])


def test_the_rows_of_an_interrupt_come_with_the_outcome():
    run = gated()
    saver = RowSaver(run.rows, collect=True)
    parts = engine.play(run.workflow, saver=saver, thread_id="run", session=Session(run.provider), start={})
    brought = [(progress.outcome, saver.collected()) for progress in parts]
    outcome, (_, writes) = brought[-1]
    assert isinstance(outcome, Paused)
    assert "__interrupt__" in [row.channel for row in writes]


def test_playing_a_finished_run_again_changes_nothing():
    ran: list[str] = []
    run = steps(ran)
    first = run.play(start={})
    rows = run.rows.checkpoints()
    assert run.play() == first
    assert run.rows.checkpoints() == rows
    assert ran == ["one", "two", "three"]


def test_a_fresh_saver_asks_for_no_rows_and_plays_the_same():
    class Nothing(MemoryRows):
        def checkpoints(self, **conditions):
            raise AssertionError("a fresh thread has no rows to ask for")

        def writes(self, keys):
            raise AssertionError("a fresh thread has no rows to ask for")

    saver = RowSaver(Nothing(), collect=True, fresh=True)
    parts = list(engine.play(LINEAR, saver=saver, thread_id="run", session=Session(SimulatedProvider()), start={}))
    assert isinstance(parts[-1].outcome, Completed)


def test_runs_of_different_threads_do_not_see_each_other():
    rows = MemoryRows()
    for thread, topic in (("a", "cake"), ("b", "bread")):
        saver = RowSaver(rows)
        session = Session(SimulatedProvider())
        list(engine.play(LINEAR, saver=saver, thread_id=thread, session=session, start={"topic": topic}))
    values = [
        RowSaver(rows).get_tuple({"configurable": {"thread_id": thread}}).checkpoint["channel_values"]["topic"]
        for thread in ("a", "b")
    ]
    assert values == ["cake", "bread"]
