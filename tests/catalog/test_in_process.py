"""The catalogue in one process: events start other operators' runs, sleeps end, and deadlines decide at gates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from openvibe.llm import LLMResponse
from openvibe.llm.scripted import ScriptedProvider
from openvibe.llm.simulated import SimulatedProvider
from openvibe.runtime import OperatorRuntime
from operators.catalog import OPERATORS, prompts
from tests.catalog.stage import WORKFLOWS, Stage

HOUR = timedelta(hours=1)
TOUCH = {"touch_content": "Hello.", "touch_channel": "email", "lead_score": 35}
READY = {**TOUCH, "lead_score": 90}


@pytest.fixture
def runtime(stage: Stage) -> Iterator[OperatorRuntime]:
    with OperatorRuntime(llm="simulated") as made:
        yield _registered(made)


class Cast:
    """A model that answers one operator's prompt from a script and everything else as the simulated model does.

    Time that passes in a test starts scheduled workflows too, and they ask as well.
    """

    name = "cast"

    def __init__(self, prompt: str, *answers: Any) -> None:
        self._system = prompts.text(prompt)
        self._script, self._others = ScriptedProvider(answers), SimulatedProvider()

    def complete(self, *, system: str, **asked: Any) -> LLMResponse:
        scripted = system == self._system and asked.get("schema") is not None
        return (self._script if scripted else self._others).complete(system=system, **asked)


def scripted(prompt: str, *answers: Any) -> OperatorRuntime:
    return _registered(OperatorRuntime(llm=Cast(prompt, *answers)))


def _registered(runtime: OperatorRuntime) -> OperatorRuntime:
    for cls in OPERATORS:
        runtime.register(cls)
    return runtime


def places(runtime: OperatorRuntime) -> set[str]:
    return {f"{run.operator_id}.{run.workflow_id}" for run in runtime.runs()}


def test_research_starts_scoring_segments_and_accounts(runtime: OperatorRuntime):
    runtime.activate("company_intel", "query", {"company_name": "Linden"})
    assert places(runtime) >= {
        "company_intel.research",
        "revenue_ops.lead_qualification",
        "content_engine.segment_research",
        "customer_success.success_advisory",
    }
    assert {run.status for run in runtime.runs()} <= {"completed", "waiting"}


def test_a_nurtured_lead_sleeps_three_days_between_touches(stage: Stage):
    with scripted("revenue_ops/s5_nurture", TOUCH, TOUCH) as runtime:
        run = runtime.activate("revenue_ops", "lead_nurture", {"contact_id": "c", "lead_score": 35, "max_touches": 2})
        assert run.status == "waiting"
        runtime.advance(timedelta(days=2, hours=23))
        assert runtime.run(run.id).status == "waiting"
        runtime.advance(2 * HOUR)
        ended = runtime.run(run.id)
        assert (ended.status, ended.output["route"], ended.output["touches_completed"]) == ("completed", "complete", 2)


def test_a_lead_that_no_salesperson_looks_at_goes_on_after_a_day(stage: Stage):
    with scripted("revenue_ops/s5_nurture", READY, TOUCH) as runtime:
        run = runtime.activate("revenue_ops", "lead_nurture", {"contact_id": "c", "lead_score": 35, "max_touches": 2})
        runtime.advance(23 * HOUR)
        assert [wait.kind for wait in runtime.run(run.id).open_waits] == ["approval"]
        runtime.advance(2 * HOUR)
        assert [wait.kind for wait in runtime.run(run.id).open_waits] == ["timer"]
        runtime.advance(timedelta(days=3))
        assert runtime.run(run.id).output["sales_review"] == "continue"


def test_even_a_lead_that_nobody_ever_looks_at_ends_within_its_42_days(stage: Stage):
    with scripted("revenue_ops/s5_nurture", *[READY] * 11) as runtime:
        run = runtime.activate("revenue_ops", "lead_nurture", {"contact_id": "c", "lead_score": 35})
        runtime.advance(timedelta(days=42))
        ended = runtime.run(run.id)
        assert (ended.status, ended.output["route"], ended.output["touches_completed"]) == ("completed", "complete", 11)


def test_actions_that_nobody_looks_at_are_approved_after_twelve_hours(stage: Stage):
    with scripted("revenue_ops/s4_deal_support", {"risk_assessment": []}) as runtime:
        run = runtime.activate("revenue_ops", "deal_support", {"active_deals": [{"deal_id": "d-1"}]})
        runtime.advance(11 * HOUR)
        assert runtime.run(run.id).status == "waiting"
        runtime.advance(2 * HOUR)
        assert runtime.run(run.id).output["review_actions"] == "approve"


def test_a_welcome_goes_to_the_owner_and_is_rejected_when_nobody_decides(runtime: OperatorRuntime):
    run = runtime.activate("customer_success", "deal_won", {"customer_name": "Linden"})
    runtime.advance(49 * HOUR)
    [wait] = runtime.run(run.id).open_waits
    assert wait.assigned_to == "owner"
    runtime.advance(48 * HOUR)
    assert runtime.run(run.id).status == "failed"
    assert "Rejected at review_welcome" in runtime.run(run.id).error


@pytest.mark.parametrize(
    ("operator", "workflow", "status"),
    [("revenue_ops", "engagement", "failed"), ("content_engine", "distribution", "completed")],
)
def test_what_nobody_agreed_to_in_a_day_is_not_sent(runtime: OperatorRuntime, operator, workflow, status):
    run = runtime.activate(operator, workflow, WORKFLOWS[operator, workflow].spec.sample_input)
    runtime.advance(25 * HOUR)
    ended = runtime.run(run.id)
    assert ended.status == status
    if status == "completed":
        assert ended.output["schedule"] == []
