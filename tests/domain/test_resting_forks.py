"""A run that is forked in the midst of a rest rests as well: what follows comes no earlier because of an edit."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from openvibe import node, operator, workflow
from operators import clock
from operators.models import Run, Wait
from operators.services import forks, intake
from tests.domain.lab import played, served, started, thread


@operator(id="snail")
class Snail:
    number: int = 0

    @workflow(id="patient", inputs=("number",))
    class Patient:
        @node
        def first(self, state):
            return {"number": state["number"] + 1, "wait_duration": timedelta(days=3)}

        @node
        def second(self, state):
            return {"number": state["number"] * 10}


@pytest.fixture
def snail(project):
    with served(project, Snail) as found:
        yield found


def test_a_fork_rests_until_its_source_would_have_rested(snail, alice):
    run = played(started(snail, "patient", number=1))
    source = Wait.objects.get(run=run)
    [first] = forks.steps(run)

    new = forks.fork(run, step_id=first.step_id, values={"number": 5}, actor=alice)

    assert played(new).status == "waiting"
    rest = Wait.objects.pending().get(run=new)
    assert rest.deadline == source.deadline
    assert thread(new).get(kind="timer.set").data["wait_id"] == rest.id != source.id
    assert Wait.objects.get(run=run) == source
    Wait.objects.filter(pk=rest.pk).update(deadline=timezone.now())
    clock.tick()
    assert played(new).output["number"] == 50
    assert Run.objects.get(pk=run.pk).status == "waiting"


@pytest.mark.parametrize("before", [True, False])
def test_a_fork_does_not_rest_where_nothing_is_left_to_rest(snail, alice, before):
    run = played(started(snail, "patient", number=1))
    if not before:
        Wait.objects.filter(run=run).update(deadline=timezone.now())
    [first] = forks.steps(run)

    new = forks.fork(run, step_id=first.step_id, before=before, actor=alice)

    assert new.status == "queued"
    assert played(new).status == ("waiting" if before else "completed")


def test_the_rest_of_a_run_that_was_cancelled_is_its_forks_too(snail, alice):
    run = played(started(snail, "patient", number=1))
    [first] = forks.steps(run)
    intake.cancel(run, actor=alice)

    new = forks.fork(run, step_id=first.step_id, actor=alice)

    assert played(new).status == "waiting"
    assert Wait.objects.get(run=run).status == "cancelled"
