"""Gates that several people are asked at: who has answered, what is still needed, and whose turn it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import Group, User

from openvibe.registry import define
from operators import definitions
from operators.models import Operator, Project, Run, Wait
from operators.services import compiled, intake, registration
from operators.services.waits import Answer, answer
from tests.domain.board import Board
from tests.pages.conftest import Browse, begun, place, played, quoted

pytestmark = pytest.mark.django_db
HTMX = {"hx-request": "true"}


@pytest.fixture
def board(project: Project) -> Iterator[Operator]:
    made = definitions.registry.add(define(Board))
    yield registration.register(project, made)
    definitions.registry.remove("board")
    compiled.workflow.cache_clear()


@pytest.fixture
def finance(bob: User) -> Group:
    group = Group.objects.create(name="finance")
    group.user_set.add(bob)
    return group


@pytest.fixture
def group(board: Operator, alice: User, finance: Group) -> list[Wait]:
    run = begun(board, "all", letter="Dear all")
    return list(Wait.objects.select_related("run").filter(run=run).order_by("seat"))


def seen(browse: Browse, user: User, gate: Wait) -> str:
    return browse(user).get(place(gate), headers=HTMX).content.decode()


def test_each_one_sees_a_form_where_he_is_asked_and_nowhere_else(group, alice, bob, vera, browse) -> None:
    forms = {
        user.username: ["<form" in seen(browse, user, gate) for gate in group] for user in (alice, bob, vera)
    }  # fmt: skip
    assert forms == {"alice": [True, False], "bob": [False, True], "vera": [False, False]}
    assert "Waiting for alice" in seen(browse, bob, group[0])


def test_a_stranger_sees_no_gate_of_a_group(group, charlie, browse) -> None:
    assert browse(charlie).get(place(group[0]), headers=HTMX).status_code == 404


def test_the_gate_tells_who_answered_and_who_is_still_asked(group, alice, bob, browse) -> None:
    page = seen(browse, alice, group[0])
    assert "All 2 have to agree. Still asked: alice, finance." in page
    browse(bob).post(place(group[1]), quoted(group[1], decision="approve", notes="Fine"), headers=HTMX)
    page = seen(browse, alice, group[0])
    assert "All 2 have to agree. Still asked: alice." in page
    assert "<b>bob</b> approved" in page
    assert "“Fine”" in page
    page = seen(browse, bob, group[1])
    assert "<b>alice</b> is asked" in page


def test_an_answer_that_was_not_asked_for_is_refused_on_the_page(group, bob, browse) -> None:
    told = browse(bob).post(place(group[0]), quoted(group[0], decision="approve"), headers=HTMX)
    assert told.status_code == 403
    assert (
        "is asked of &#x27;alice&#x27; here, not of &#x27;bob&#x27;. Your decision was not counted."
        in told.content.decode()
    )
    assert Wait.objects.pending().count() == 2


def test_a_gate_that_is_not_needed_any_more_tells_what_came_out(group, alice, bob, browse) -> None:
    answer(group[1], Answer("reject", notes="Too dear"), actor=bob)
    played(group[0].run)
    page = seen(browse, alice, group[0])
    assert "Decided: rejected." in page
    assert "<b>alice</b> is not needed any more" in page
    assert "<b>bob</b> rejected" in page


def test_a_group_that_its_run_left_behind_says_so(group, alice, browse) -> None:
    intake.cancel(group[0].run, actor=alice)
    assert "Closed without a decision, because its run ended." in seen(browse, alice, group[0])


def test_the_runs_timeline_tells_each_answer_and_what_they_came_to(group, alice, bob, browse) -> None:
    answer(group[1], Answer("approve"), actor=bob)
    address = f"/agents/{group[0].run_id}/"
    page = browse(alice).get(address).content.decode()
    assert "Asks <b>alice</b>: <b>Send it?</b>" in page
    assert "<b>bob</b> (asked as finance) approved · still asked: alice" in page
    answer(group[0], Answer("approve"), actor=alice)
    run = played(group[0].run)
    assert run.status == Run.Status.COMPLETED
    assert "<b>alice</b> approved · together: approved" in browse(alice).get(address).content.decode()
