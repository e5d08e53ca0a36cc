"""What a run has to wait for is waited for, also where the node's own code catches every exception."""

from __future__ import annotations

from typing import Any

import pytest

from openvibe import RunError
from openvibe.outcomes import Paused
from tests.unit.test_ctx import acting, unsettled


def test_a_request_inside_a_broad_except_is_waited_for_all_the_same():
    told: list[str] = []

    def act(ctx: Any) -> Any:
        try:
            return ctx.request("intel", "research")
        except Exception:
            told.append("caught")
            return "nothing"

    run = acting(act)
    [wait] = run.play(start={}).waits
    assert wait.request.kind == "reply"
    assert run.play(answers={wait.interrupt_id: {"result": 7}}).output["letter"] == "7"
    assert told == ["caught"]


def test_a_request_that_is_caught_and_raised_as_something_else_is_no_failure():
    def act(ctx: Any) -> Any:
        try:
            return ctx.request("intel", "research")
        except Exception as error:
            raise ValueError("the agents are silent") from error

    run = acting(act)
    [wait] = run.play(start={}).waits
    assert run.play(answers={wait.interrupt_id: {"result": 7}}).output["letter"] == "7"


@pytest.mark.parametrize("caught", [Exception, RunError])
def test_a_doubt_about_an_effect_asks_a_person_and_nothing_else_is_done_meanwhile(caught):
    calls: list[str] = []

    def act(ctx: Any) -> Any:
        try:
            return ctx.effect("charge", lambda: calls.append("charge"))
        except caught:
            return ctx.effect("invoice", lambda: calls.append("invoice"))

    run = acting(act)
    unsettled(run)
    outcome = run.play()
    assert isinstance(outcome, Paused)
    assert [wait.request.form for wait in outcome.waits] == ["effect"]
    assert calls == []


def test_a_failed_answer_may_still_be_caught():
    def act(ctx: Any) -> Any:
        try:
            return ctx.request("intel", "research")
        except RunError:
            return "without"

    run = acting(act)
    [wait] = run.play(start={}).waits
    assert run.play(answers={wait.interrupt_id: {"error": "gone"}}).output["letter"] == "without"
