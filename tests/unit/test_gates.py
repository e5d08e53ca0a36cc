"""Where a gate's decisions lead, and who is asked when the time is up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from openvibe import durable, human_in_the_loop, node, operator, workflow
from openvibe.outcomes import Completed, Failed, Paused
from openvibe.registry import define
from tests.unit.players import Run, compiled


def visited(**options: Any) -> Run:
    """Return a run of `draft`, the gate `review`, `polish` and `send`; each node adds its name to the tags."""

    def named(name: str) -> Any:
        return node(lambda self, state: {"tags": [*state["tags"], name]})

    class Write:
        draft = named("draft")

        @human_in_the_loop(prompt="Send?", **options)
        def review(self, state):
            return None

        polish = named("polish")
        send = named("send")

    return Run(compiled(Write))


WAYS = {"approve": "send", "archive": "end", "again": "draft"}
DECISIONS = ("approve", "archive", "again", "later", "reject")


@pytest.mark.parametrize(
    ("decision", "tags"),
    [
        ("approve", ["draft", "send"]),
        ("archive", ["draft"]),
        ("later", ["draft", "polish", "send"]),
    ],
)
def test_each_decision_leads_where_goto_says_and_else_on(decision, tags):
    run = visited(decisions=DECISIONS, goto=WAYS)
    run.play(start={})
    assert run.answer(decision) == Completed({"tags": tags, "review": decision})


def test_a_decision_may_lead_back_and_the_gate_asks_again():
    run = visited(decisions=DECISIONS, goto=WAYS)
    [first] = run.play(start={}).waits
    outcome = run.answer("again")
    assert isinstance(outcome, Paused)
    [second] = outcome.waits
    assert second.interrupt_id != first.interrupt_id
    assert run.answer("archive").output["tags"] == ["draft", "draft"]


def test_a_rejection_still_fails_the_run_unless_it_is_led_elsewhere():
    run = visited(decisions=DECISIONS, goto=WAYS)
    run.play(start={})
    assert isinstance(run.answer("reject", notes="no"), Failed)
    led = visited(goto={"reject": "send"})
    led.play(start={})
    assert led.answer("reject").output["tags"] == ["draft", "send"]


def test_goto_goes_before_on_reject():
    run = visited(goto={"reject": "polish"}, on_reject="end")
    run.play(start={})
    assert run.answer("reject").output["tags"] == ["draft", "polish", "send"]


def test_next_leads_the_decisions_that_goto_does_not_name():
    class Write:
        @human_in_the_loop(prompt="Send?", decisions=("send", "archive"), goto={"archive": "file"}, next="end")
        def review(self, state):
            return None

        @node
        def file(self, state):
            return {"letter": "filed"}

    flow = compiled(Write)
    for decision, letter in (("send", None), ("archive", "filed")):
        run = Run(flow)
        run.play(start={})
        assert run.answer(decision).output.get("letter") == letter


def test_a_gate_tells_who_is_asked_next_and_what_happens_then():
    run = visited(timeout=timedelta(hours=2), escalate_to="owner", on_timeout="approve")
    [wait] = run.play(start={}).waits
    assert wait.request.escalate_to == "owner"
    assert wait.request.timeout_seconds == 7200
    assert wait.request.on_timeout == "approve"


def test_a_gate_without_escalation_and_limit_says_so():
    [wait] = visited().play(start={}).waits
    assert (wait.request.escalate_to, wait.request.timeout_seconds, wait.request.on_timeout) == ("", None, "reject")


@pytest.mark.parametrize("above", [True, False])
def test_durable_stands_above_or_below_workflow(above):
    limit, flow = durable(max_days=14), workflow(id="write")

    class Write:
        @node
        def step(self, state):
            return None

    @operator(id="desk")
    class Desk:
        Flow = limit(flow(Write)) if above else flow(limit(Write))

    assert define(Desk).workflows["write"].spec.max_duration == timedelta(days=14)
