"""Remote nodes: work that an external agent does while the run waits and holds nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openvibe import node, remote_node
from openvibe.errors import SetupError
from openvibe.graph.saver import RowSaver
from openvibe.outcomes import Completed, Failed, Paused
from tests.unit.players import Run, compiled

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def working(returned: Any, **options: Any) -> Run:
    """Return a run of `before`, the remote node `implement`, which returns that, and `after`."""

    class Write:
        @node
        def before(self, state):
            return {"topic": "a bug"}

        @remote_node(role="coding", **options)
        def implement(self, state):
            return returned(state) if callable(returned) else returned

        @node
        def after(self, state):
            return {"tags": ["after"]}

    return Run(compiled(Write))


TASK = {"task": {"issue": "a bug"}, "output_key": "letter"}


def answered(run: Run, **answer: Any) -> Any:
    [wait] = run.play(start={}).waits
    return run.play(answers={wait.interrupt_id: answer})


def test_remote_work_pauses_the_run_and_tells_role_and_task():
    run = working(lambda state: {"task": {"issue": state["topic"]}, "output_key": "letter"}, timeout=timedelta(hours=2))
    outcome = run.play(start={})
    assert isinstance(outcome, Paused)
    [wait] = outcome.waits
    assert (wait.request.kind, wait.request.node, wait.request.timeout_seconds) == ("work", "implement", 7200)
    assert wait.request.payload == {"role": "coding", "task": {"issue": "a bug"}}
    assert "coding" in wait.request.prompt
    assert RowSaver(run.rows).pending_interrupts("run") == [wait.interrupt_id]
    assert run.told[-1] == "step.started implement"


def test_remote_work_without_a_timeout_waits_for_ever():
    [wait] = working(TASK).play(start={}).waits
    assert wait.request.timeout_seconds is None


def test_a_task_is_told_as_json():
    [wait] = working({"task": {"at": NOON, "tags": {"a"}}, "output_key": "letter"}).play(start={}).waits
    assert wait.request.payload["task"] == {"at": "2026-03-01T12:00:00+00:00", "tags": ["a"]}


def test_a_result_goes_to_its_field_and_the_run_goes_on():
    run = working(TASK)
    assert answered(run, result="a patch") == Completed({"topic": "a bug", "letter": "a patch", "tags": ["after"]})
    assert [event.data["update"] for event in run.events if event.kind == "step.finished"][1] == {"letter": "a patch"}


def test_a_result_with_several_fields_goes_to_the_state_fields_that_they_name():
    run = working({"task": "x", "output_keys": {"patch": "letter", "lines": "amount", "notes": "draft"}})
    output = answered(run, result={"patch": "a patch", "lines": 7, "unasked": True}).output
    assert output == {"topic": "a bug", "letter": "a patch", "amount": 7, "tags": ["after"]}


def test_an_error_of_the_agent_fails_the_run_naming_role_and_node():
    outcome = answered(working(TASK), error="no compiler")
    assert isinstance(outcome, Failed)
    assert (outcome.node, outcome.kind) == ("implement", "RunError")
    assert outcome.error == "The coding agent of node 'implement' failed: no compiler"


def test_a_result_of_the_wrong_type_fails_the_step_naming_the_field():
    outcome = answered(working({"task": "x", "output_key": "amount"}), result="many")
    assert (outcome.node, outcome.kind) == ("implement", "WrongUpdate")
    assert "'amount', which takes int" in outcome.error


def test_a_result_that_is_no_object_is_refused_where_fields_are_wanted():
    outcome = answered(working({"task": "x", "output_keys": {"patch": "letter"}}), result="a patch")
    assert outcome.kind == "WrongUpdate"
    assert "'implement'" in outcome.error
    assert "['patch']" in outcome.error


def test_an_agent_that_says_nothing_leaves_a_field_that_takes_text_refused():
    outcome = answered(working(TASK), result=None)
    assert outcome.kind == "WrongUpdate"


@pytest.mark.parametrize(
    "returned",
    [
        None,
        "a task",
        {},
        {"task": "x"},
        {"output_key": "letter"},
        {"task": "x", "output_key": "letter", "output_keys": {"letter": "a"}},
        {"task": "x", "output_key": "letter", "promt": "y"},
        {"task": "x", "output_keys": ["letter"]},
        {"task": "x", "output_key": ""},
    ],
    ids=str,
)
def test_a_wrong_task_fails_the_step_before_anybody_works(returned):
    outcome = working(returned).play(start={})
    assert isinstance(outcome, Failed), outcome
    assert (outcome.node, outcome.kind) == ("implement", "WrongUpdate")
    assert "'implement' must return `task` and one of `output_key` and `output_keys`" in outcome.error


def test_a_field_that_does_not_exist_is_told_before_anybody_works():
    outcome = working({"task": "x", "output_key": "lettre"}).play(start={})
    assert (outcome.node, outcome.kind) == ("implement", "WrongUpdate")
    assert "'lettre'" in outcome.error


@pytest.mark.parametrize("roles", [{}, {"role": "coding", "roles": ("coding",)}, {"roles": ("Coding!",)}])
def test_a_remote_node_has_one_role_or_several(roles: Any):
    with pytest.raises(SetupError):
        remote_node(**roles)(test_a_method_may_take_ctx_and_be_awaited)


def test_a_method_may_take_ctx_and_be_awaited():
    class Write:
        @remote_node(role="coding")
        async def implement(self, state, ctx):
            return {"task": ctx.node, "output_key": "letter"}

    [wait] = Run(compiled(Write)).play(start={}).waits
    assert wait.request.payload["task"] == "implement"


def test_a_run_that_dies_at_any_commit_asks_for_the_work_once():
    run = working(TASK)
    [wait] = run.play_in_pieces(start={}).waits
    assert run.play_in_pieces() == Paused((wait,))
    outcome = run.play_in_pieces(answers={wait.interrupt_id: {"result": "a patch"}})
    assert outcome.output["letter"] == "a patch"
    assert run.told.count("step.finished implement") == run.told.count("step.started implement") == 1


def test_a_failure_that_has_a_field_of_its_own_does_not_end_the_run():
    task = {"task": "x", "output_key": "letter", "error_key": "topic"}
    outcome = answered(working(task), error="no ink")
    assert (outcome.output["topic"], outcome.output["tags"]) == ("no ink", ["after"])
    # It stood there from the node before; a success empties it.
    outcome = answered(working(task), result="Dear Ada")
    assert (outcome.output["letter"], outcome.output["topic"]) == ("Dear Ada", "")


def test_an_error_key_that_is_no_field_is_told_before_anybody_works():
    outcome = working({"task": "x", "output_key": "letter", "error_key": "raison"}).play(start={})
    assert (outcome.kind, "'raison'" in outcome.error) == ("WrongUpdate", True)


def test_a_task_that_does_not_fit_its_message_is_told_before_anybody_works():
    outcome = working({"task": {"requirements": "quick"}, "output_key": "letter"}).play(start={})
    assert (outcome.kind, "requirements" in outcome.error) == ("WrongUpdate", True)
