"""Budgets on a server: a run that has used one up waits for a person between two steps, and holds nothing."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from openvibe import budgets as rules
from openvibe.registry import define
from operators.errors import AlreadyDecided, Misfit, NotRetryable
from operators.models import Operator, Run, Wait
from operators.services import budgets, intake, registration, waits
from tests.domain.lab import kinds, played, started, thread
from tests.domain.spender import Spender, spending


@pytest.fixture
def spender(project):
    with spending(project) as made:
        yield made


def asked(spender: Operator) -> tuple[Run, Wait]:
    run = played(started(spender, "write"))
    assert run.status == "waiting", run.error
    return run, Wait.objects.pending().select_related("run").get(run=run)


def again(spender: Operator) -> Operator:
    return registration.register(spender.project, define(Spender))


def test_a_run_that_has_used_up_its_budget_waits_before_its_next_step(spender, bob):
    run, wait = asked(spender)
    assert (run.lease_until, wait.kind, wait.form, wait.node) == (None, "approval", "budget", "polish")
    assert wait.prompt == "Raise the budget? This run has cost $0.10; its budget is $0.10."
    assert [event.node for event in thread(run) if event.kind == "step.started"] == ["draft"]
    waits.answer(wait, waits.Answer("raise", values={"allowance_usd": 2.5}), actor=bob)
    run = played(run)
    assert (run.status, run.allowance_usd, run.cost_usd) == ("completed", Decimal("2.5"), Decimal("0.2"))
    assert [event.node for event in thread(run) if event.kind == "step.started"] == ["draft", "polish", "send"]
    assert kinds(run).count("gate.opened") == kinds(run).count("gate.decided") == 1


def test_raising_without_an_amount_takes_what_was_proposed(spender, bob):
    run, wait = asked(spender)
    waits.answer(wait, waits.Answer("raise"), actor=bob)
    assert played(run).allowance_usd == Decimal(str(wait.payload["allowance_usd"]))


def test_what_a_person_allowed_is_a_bound_too(spender, bob):
    run, wait = asked(spender)
    waits.answer(wait, waits.Answer("raise", values={"allowance_usd": 0.15}), actor=bob)
    run = played(run)
    assert (run.status, [item.node for item in Wait.objects.pending().filter(run=run)]) == ("waiting", ["send"])


def test_a_refusal_ends_the_run_for_good(spender, alice, bob):
    run, wait = asked(spender)
    waits.answer(wait, waits.Answer("stop", notes="enough"), actor=bob)
    run = played(run)
    assert (run.status, run.error["kind"]) == ("failed", "BudgetRefused")
    assert run.cost_usd == Decimal("0.1")
    with pytest.raises(NotRetryable, match="was refused more money"):
        intake.retry(run, actor=alice)
    with pytest.raises(AlreadyDecided):
        waits.answer(Wait.objects.select_related("run").get(pk=wait.pk), waits.Answer("raise"), actor=alice)


@pytest.mark.parametrize("amount", [0.1, 0, -1, "much", True, 10**7])
def test_an_amount_that_allows_nothing_leaves_the_question_open(spender, bob, amount):
    run, wait = asked(spender)
    with pytest.raises(Misfit, match="allowance_usd"):
        waits.answer(wait, waits.Answer("raise", values={"allowance_usd": amount}), actor=bob)
    assert Wait.objects.pending().filter(run=run).count() == 1


def test_the_runs_of_a_day_share_a_budget(spender, bob):
    Operator.objects.filter(pk=spender.pk).update(budget_run_usd=None, budget_day_usd=Decimal("0.25"))
    spender.refresh_from_db()
    assert played(started(spender, "write")).status == "completed"
    run, wait = asked(spender)
    assert wait.prompt == "Raise the budget? The operator's runs of today have cost $0.30; its budget is $0.25 a day."
    waits.answer(wait, waits.Answer("raise"), actor=bob)
    assert played(run).status == "completed"
    # A new day has its own money.
    Run.objects.update(created_at=timezone.now() - timedelta(days=1, hours=1))
    assert budgets.cost(spender, rules.began("day", timezone.now())) == 0
    assert played(started(spender, "write")).status == "completed"


def test_an_administrators_budget_stays_until_the_definition_changes(spender):
    assert spender.budget_run_usd == Decimal("0.1")
    Operator.objects.filter(pk=spender.pk).update(budget_run_usd=None, budget_month_usd=Decimal(7))
    kept = again(spender)
    assert (kept.budget_run_usd, kept.budget_month_usd) == (None, Decimal(7))
    Operator.objects.filter(pk=spender.pk).update(declared_budget={"run": "9"})
    changed = again(spender)
    assert (changed.budget_run_usd, changed.budget_month_usd) == (Decimal("0.1"), Decimal(100))


def test_an_operator_without_a_budget_is_asked_nothing(spender):
    Operator.objects.filter(pk=spender.pk).update(budget_run_usd=None, budget_month_usd=None)
    spender.refresh_from_db()
    assert budgets.of(spender) is None
    assert played(started(spender, "write")).status == "completed"
