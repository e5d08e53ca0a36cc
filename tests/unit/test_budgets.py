"""Budgets in a runtime without a server: a run that has used one up asks a person, between two steps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from openvibe import Budget, OperatorRuntime, SetupError, config, llm_node, node, operator, workflow
from openvibe.errors import InputError
from openvibe.testing import MemoryHost, SettableClock
from tests.unit.players import Priced


def writer(**budget):
    @operator(id="writer", budget=Budget(**budget) if budget else None)
    class Writer:
        letter: str = ""
        steps: list[str] = []

        @workflow(id="write", inputs=())
        class Write:
            @llm_node(model="haiku")
            def draft(self, state):
                return {"user": "Write.", "output_key": "letter"}

            @llm_node(model="haiku")
            def polish(self, state):
                return {"user": "Polish.", "output_key": "letter"}

            @node
            def send(self, state):
                return {"steps": ["sent"]}

    return Writer


def runtime(clock=None, **budget):
    made = OperatorRuntime(llm=Priced(["words"] * 50, Decimal("0.10")), host=clock and MemoryHost(clock=clock))
    made.register(writer(**budget))
    return made


def test_a_run_that_has_used_up_its_budget_asks_before_its_next_step():
    played = runtime(run=0.1)
    run = played.activate("writer", "write")
    [wait] = run.open_waits
    assert (run.status, wait.kind, wait.node, wait.decisions) == ("waiting", "approval", "polish", ["raise", "stop"])
    assert wait.prompt == "Raise the budget? This run has cost $0.10; its budget is $0.10."
    assert (run.metrics.cost_usd, wait.payload["allowance_usd"]) == (Decimal("0.10"), 0.21)
    run = played.resume(run.id, "raise", values={"allowance_usd": 5})
    assert (run.status, run.allowance_usd, run.metrics.cost_usd) == ("completed", 5, Decimal("0.20"))


def test_what_was_allowed_is_a_bound_too_and_a_step_is_played_once():
    played, told = runtime(run=0.1), []
    played.on("step.finished")(lambda event: told.append(event.node_id))
    run = played.activate("writer", "write")
    run = played.resume(run.id, "raise", values={"allowance_usd": 0.15})
    assert run.status == "waiting"
    assert "its budget is $0.15" in run.open_waits[0].prompt
    assert played.resume(run.id, "raise").status == "completed"
    assert told == ["draft", "polish", "send"]


def test_a_refusal_ends_the_run():
    played = runtime(run=0.1)
    run = played.resume(played.activate("writer", "write").id, "stop")
    assert (run.status, run.error_kind, run.metrics.llm_calls) == ("failed", "BudgetRefused", 1)


@pytest.mark.parametrize("amount", [0.05, 0, -1, "much", True, None, 10**9])
def test_an_amount_that_allows_nothing_leaves_the_question_open(amount):
    played = runtime(run=0.1)
    run = played.activate("writer", "write")
    with pytest.raises(InputError, match="allowance_usd: is"):
        played.resume(run.id, "raise", values={"allowance_usd": amount})
    assert played.run(run.id).open_waits


def test_the_runs_of_a_day_share_a_budget_and_the_next_day_has_its_own():
    clock = SettableClock(datetime(2026, 2, 28, 12, tzinfo=UTC))
    played = runtime(clock, day=0.25)
    assert played.activate("writer", "write").status == "completed"
    late = played.activate("writer", "write")
    assert (late.status, late.metrics.llm_calls, late.open_waits[0].node) == ("waiting", 1, "polish")
    assert "today have cost $0.30" in late.open_waits[0].prompt
    clock.advance(timedelta(days=1))
    assert played.activate("writer", "write").status == "completed"
    assert played.resume(late.id, "raise").status == "completed"


def test_the_runs_of_a_month_share_a_budget():
    clock = SettableClock(datetime(2026, 2, 27, 12, tzinfo=UTC))
    played = runtime(clock, month=0.25)
    assert played.activate("writer", "write").status == "completed"
    clock.advance(timedelta(days=1))
    assert played.activate("writer", "write").status == "waiting"
    clock.advance(timedelta(days=1))
    assert played.activate("writer", "write").status == "completed"


def test_without_a_budget_nobody_is_asked():
    assert runtime().activate("writer", "write").status == "completed"


def test_a_question_about_money_survives_its_process(tmp_path):
    kept = f"sqlite:///{tmp_path / 'runs.db'}"
    with OperatorRuntime(llm=Priced(["a"], Decimal("0.10")), checkpointer=kept) as first:
        first.register(writer(run=0.1))
        run = first.activate("writer", "write")
    with OperatorRuntime(llm=Priced(["b"], Decimal("0.10")), checkpointer=kept) as second:
        second.register(writer(run=0.1))
        assert second.resume(run.id, "raise").output == {"letter": "b", "steps": ["sent"]}


@pytest.mark.parametrize("options", [{}, {"run": 0}, {"day": -1}, {"week": 3}, {"run": "much"}])
def test_a_budget_that_says_nothing_useful_is_refused(options):
    with pytest.raises(SetupError, match="Budget"):
        Budget(**options)


def test_a_budget_is_read_from_yaml(tmp_path):
    path = tmp_path / "writer.yaml"
    path.write_text(
        "operators: [{id: writer, budget: {run: 0.5, month: 20}, "
        "workflows: [{id: write, nodes: [{id: draft, type: llm, user: Write.}]}]}]"
    )
    [definition] = config.read(path).definitions({}, complete=False)
    assert definition.spec.budget == Budget(run=0.5, month=20)
