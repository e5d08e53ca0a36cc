"""An operator that is removed while somebody starts it: he hears what the caller of an unknown operator does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from operators.errors import OperatorInUse, Unknown
from operators.models import Event, Operator, OperatorSource, Project, Run, Workflow
from operators.services import compiled, intake, sources
from tests.domain.lab import GREETER, played


@pytest.fixture
def greet(project: Project, alice: User) -> Iterator[Workflow]:
    """A workflow as somebody knows it who is about to start it."""
    sources.add(project, GREETER, actor=alice)
    yield Workflow.objects.select_related("operator").get(slug="greet")
    OperatorSource.objects.all().delete()
    sources.refresh()
    compiled.workflow.cache_clear()


def remove(workflow: Workflow) -> None:
    """Remove its operator, as another process does."""
    sources.remove(Operator.objects.get(pk=workflow.operator_id))


def asked(workflow: Workflow, *, at_once: bool = False) -> Run:
    return intake.request(workflow, input={}, actor=None, at_once=at_once)


@pytest.mark.parametrize("within", [nullcontext, transaction.atomic])
@pytest.mark.parametrize(("at_once", "most"), [(False, None), (True, None), (True, 1)])
@pytest.mark.django_db(transaction=True)
def test_whoever_starts_what_is_gone_hears_that_it_is(greet, within: Callable, at_once: bool, most: int | None):
    greet.operator.max_running = most
    remove(greet)

    with pytest.raises(Unknown, match="There is no operator 'greeter'"), within():
        asked(greet, at_once=at_once)

    assert not Run.objects.exists()
    assert not Event.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_no_run_begins_once_an_operator_whose_runs_stay_is_removed(greet):
    first = played(asked(greet))
    remove(greet)

    with pytest.raises(Unknown, match="There is no operator 'greeter'"):
        asked(greet)

    assert list(Run.objects.values_list("id", "status")) == [(first.id, "completed")]


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.django_db(transaction=True)
def test_a_start_waits_for_a_removal_that_is_not_committed(greet, before: int):
    for _ in range(before):
        played(asked(greet))
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            remove(greet)
            late = pool.submit(elsewhere, lambda: asked(greet))
            until_blocked()
        with pytest.raises(Unknown):
            late.result(20)
    assert Run.objects.active().count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_removal_waits_for_a_start_that_is_not_committed_and_is_refused(greet):
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            run = asked(greet)
            late = pool.submit(elsewhere, lambda: remove(greet))
            until_blocked()
        with pytest.raises(OperatorInUse, match="1 runs"):
            late.result(20)
    assert played(run).status == "completed"


def elsewhere(act: Callable[[], object]) -> object:
    """Do it with a connection of its own."""
    try:
        return act()
    finally:
        connection.close()


def until_blocked() -> None:
    """Wait until somebody waits for a row that this transaction holds; on SQLite that cannot be seen."""
    deadline = time.monotonic() + 10
    while connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone() != (0,):
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)
