"""Rests: a run sleeps after a step that says so, holds nothing meanwhile, and goes on with the next one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from openvibe import conditional, human_in_the_loop, node
from openvibe.events import Event
from openvibe.graph.saver import RowSaver
from openvibe.outcomes import Completed, Paused
from tests.unit.players import Run, compiled

DAY = timedelta(days=1)


def resting(rest: Any, ran: list[str] | None = None) -> Run:
    """Return a run of `first`, which rests so, and `second`; `ran` hears of each node."""
    heard = ran if ran is not None else []

    class Write:
        @node
        def first(self, state):
            heard.append("first")
            return {"letter": "written", "wait_duration": rest}

        @node
        def second(self, state):
            heard.append("second")
            return {"letter": state["letter"] + ", sent"}

    return Run(compiled(Write))


def test_a_run_pauses_after_the_step_that_rests():
    ran: list[str] = []
    run = resting(DAY, ran)
    outcome = run.play(start={})
    assert isinstance(outcome, Paused)
    [wait] = outcome.waits
    assert (wait.request.kind, wait.request.node, wait.request.timeout_seconds) == ("timer", "first", 86_400)
    assert wait.step_id == run.events[-1].step_id
    assert ran == ["first"]


def test_a_rest_is_no_interrupt_of_the_graph():
    run = resting(DAY)
    [wait] = run.play(start={}).waits
    assert RowSaver(run.rows).pending_interrupts("run") == []
    assert wait.interrupt_id.startswith("timer/")


def test_the_step_that_rests_is_committed_with_the_pause_and_the_next_one_has_not_begun():
    run = resting(DAY)
    run.play(start={})
    assert run.told == ["step.started first", "step.finished first"]
    assert [event.kind for event in run.seen[-1].events] == ["step.finished"]
    assert isinstance(run.seen[-1].outcome, Paused)


def test_the_rest_is_no_part_of_the_update():
    run = resting(DAY)
    run.play(start={})
    assert run.events[-1].data["update"] == {"letter": "written"}


def test_a_rested_run_goes_on_without_an_answer():
    ran: list[str] = []
    run = resting(DAY, ran)
    run.play(start={})
    assert run.play() == Completed({"letter": "written, sent"})
    assert ran == ["first", "second"]


def test_the_step_after_a_rest_begins_once_on_the_timeline():
    run = resting(DAY)
    run.play(start={})
    parts = run.parts()
    first = next(parts)
    assert [(event.kind, event.node) for event in first.reopened] == [("step.started", "second")]
    assert (first.events, first.outcome) == ([], None)
    parts.close()
    again = run.play()
    assert isinstance(again, Completed)
    assert run.told == ["step.started first", "step.finished first", "step.started second", "step.finished second"]
    assert run.events[2].step_id == run.events[3].step_id


def test_a_run_that_is_closed_right_at_its_rest_sleeps_no_second_time():
    run = resting(DAY)
    assert isinstance(run.play_in_pieces(start={}), Paused)
    assert isinstance(run.play_in_pieces(), Completed)


def test_a_step_whose_rest_was_not_committed_is_played_again_and_rests():
    ran: list[str] = []
    run = resting(DAY, ran)
    parts = run.parts(start={})
    next(parts)
    kept = run.rows.drain()
    run.rows.save(*kept)
    assert isinstance(next(parts).outcome, Paused)
    run.rows.drain()
    run.rows.save(*kept)
    assert isinstance(run.play(), Paused)
    assert isinstance(run.play(), Completed)
    assert ran == ["first", "first", "second"]


def test_a_rest_after_the_last_step_comes_before_the_end():
    class Write:
        @node
        def only(self, state):
            return {"letter": "sent", "wait_duration": DAY}

    run = Run(compiled(Write, emits=("done",)))
    [wait] = run.play(start={}).waits
    assert wait.request.node == "only"
    assert run.emitted == []
    assert run.play() == Completed({"letter": "sent"})
    assert [item.name for item in run.emitted] == ["desk.done"]
    assert run.told == ["step.started only", "step.finished only"]


def test_a_loop_rests_in_every_round():
    class Write:
        @node
        def touch(self, state):
            return {"amount": state["amount"] + 1, "wait_duration": DAY}

        @conditional(routes={"touch": lambda s: s["amount"] < 3, "end": lambda s: True})
        def enough(self, state):
            return None

    run = Run(compiled(Write))
    outcomes = [run.play(start={}), run.play(), run.play(), run.play()]
    assert [type(outcome) for outcome in outcomes] == [Paused, Paused, Paused, Completed]
    assert len({wait.interrupt_id for paused in outcomes[:3] for wait in paused.waits}) == 3
    assert run.told.count("step.finished touch") == 3
    assert run.told.count("step.started touch") == 3


def test_a_conditional_may_rest_before_the_chosen_branch():
    class Write:
        @conditional(routes={"later": lambda s: True})
        def choose(self, state):
            return {"wait_duration": DAY}

        @node
        def later(self, state):
            return {"letter": "sent"}

    run = Run(compiled(Write))
    [wait] = run.play(start={}).waits
    assert wait.request.node == "choose"
    assert run.play() == Completed({"letter": "sent"})


def test_an_awaited_node_may_rest():
    class Write:
        @node
        async def first(self, state):
            return {"wait_duration": DAY}

    run = Run(compiled(Write))
    assert isinstance(run.play(start={}), Paused)
    assert isinstance(run.play(), Completed)


def test_a_gate_after_a_rest_opens_when_the_rest_is_over():
    class Write:
        @node
        def first(self, state):
            return {"wait_duration": DAY}

        @human_in_the_loop(prompt="Send?")
        def review(self, state):
            return None

        @node
        def send(self, state):
            return {"letter": "sent"}

    run = Run(compiled(Write))
    run.play(start={})
    [gate] = run.play().waits
    assert gate.request.kind == "approval"
    assert isinstance(run.answer("approve"), Completed)
    assert run.told.count("step.started review") == 1


@pytest.mark.parametrize("rest", [timedelta(), 0, 0.0])
def test_no_time_at_all_is_no_rest(rest):
    assert resting(rest).play(start={}) == Completed({"letter": "written, sent"})


@pytest.mark.parametrize(("rest", "seconds"), [(90, 90), (0.5, 0.5), (timedelta(days=366), 366 * 86_400)])
def test_a_rest_may_be_a_number_of_seconds(rest, seconds):
    [wait] = resting(rest).play(start={}).waits
    assert wait.request.timeout_seconds == seconds


@pytest.mark.parametrize(
    "rest",
    [-1, timedelta(seconds=-1), timedelta(days=367), "1 day", None, True, float("nan"), float("inf"), 1e300, [DAY]],
    ids=str,
)
def test_a_wrong_rest_fails_the_step_naming_node_and_remedy(rest):
    ran: list[str] = []
    outcome = resting(rest, ran).play(start={})
    assert (outcome.kind, outcome.node) == ("WrongUpdate", "first")
    assert "wait_duration" in outcome.error
    assert "a timedelta from 0 to 366 days" in outcome.error
    assert ran == ["first"]


def test_a_run_that_answers_a_gate_tells_the_gates_beginning_no_second_time():
    class Write:
        @human_in_the_loop(prompt="Send?")
        def review(self, state):
            return None

    run = Run(compiled(Write))
    run.play(start={})
    run.answer("approve")
    assert [part.reopened for part in run.seen] == [[] for _ in run.seen]
    assert Event("step.started") not in run.events
