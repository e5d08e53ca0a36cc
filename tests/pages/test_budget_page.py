"""The question about money on the pages, and what an operator's page tells of its budget."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from django.contrib.auth.models import User

from operators.models import Operator, Project, Run, Wait
from tests.domain.spender import spending
from tests.pages.conftest import Browse, begun, place, played, quoted

pytestmark = pytest.mark.django_db
HTMX = {"hx-request": "true"}


@pytest.fixture
def spender(project: Project) -> Iterator[Operator]:
    with spending(project) as made:
        yield made


@pytest.fixture
def question(spender: Operator) -> Wait:
    return begun(spender, "write").waits.select_related("run").get()


def test_the_question_tells_what_was_spent_and_proposes_an_amount(question, bob: User, browse: Browse) -> None:
    page = browse(bob).get(place(question), headers=HTMX).content.decode()
    assert "Raise the budget?" in page
    assert "This run has cost $0.10; its budget is $0.10." in page
    assert 'name="values.allowance_usd"' in page
    assert 'value="0.21"' in page
    assert "Stop the run" in page


def test_a_raise_lets_the_run_go_on(question, bob: User, browse: Browse) -> None:
    sent = quoted(question, decision="raise", **{"values.allowance_usd": "3"})
    told = browse(bob).post(place(question), sent, headers=HTMX)
    assert (told.status_code, "<b>bob</b> raised the budget" in told.content.decode()) == (200, True)
    run = played(question.run)
    assert (run.status, run.allowance_usd) == (Run.Status.COMPLETED, Decimal(3))


def test_stopping_needs_no_amount(question, bob: User, browse: Browse) -> None:
    sent = quoted(question, decision="stop", **{"values.allowance_usd": ""})
    assert browse(bob).post(place(question), sent, headers=HTMX).status_code == 200
    assert played(question.run).error["kind"] == "BudgetRefused"


def test_an_amount_that_allows_nothing_is_told_beside_its_field(question, bob: User, browse: Browse) -> None:
    sent = quoted(question, decision="raise", **{"values.allowance_usd": "0.01"})
    told = browse(bob).post(place(question), sent, headers=HTMX)
    assert told.status_code == 422
    assert Wait.objects.pending().filter(pk=question.pk).exists()


def test_a_stranger_finds_no_question(question, charlie: User, browse: Browse) -> None:
    assert browse(charlie).get(place(question), headers=HTMX).status_code == 404


def test_an_operators_page_tells_its_budget_and_what_is_spent(question, bob: User, browse: Browse) -> None:
    page = browse(bob).get("/agents/operators/spender/").content.decode()
    assert "Budget: $0.1000 a run, $100.00 a month ($0.1000 spent). Then a person is asked." in page
