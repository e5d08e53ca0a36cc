"""A run whose steps have taken longer than its workflow allows ends as it would have, or rests before it goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from openvibe import Retry, human_in_the_loop, node, operator, workflow
from operators import clock
from operators.errors import NotRetryable
from operators.models import Operator, Project, Run, Wait
from operators.services import intake, waits
from tests.domain.lab import kinds, played, served, started, thread

HOUR = timedelta(hours=1)
#: Set when the sloth may wake up.
morning = threading.Event()


@operator(id="sloth")
class Sloth:
    leaves: int = 0
    plan: str = ""

    @workflow(id="asks", inputs=(), timeout=HOUR)
    class Asks:
        @human_in_the_loop(prompt="Eat?")
        def plan(self, state):
            return {"leaves": state["leaves"]}

        @node
        def eat(self, state):
            return {"leaves": 1}

    @workflow(id="sleeps", inputs=(), timeout=timedelta(seconds=0.2))
    class Sleeps:
        @node(retry=Retry(attempts=3, pause=timedelta(milliseconds=1)), timeout=HOUR)
        def sleep(self, state):
            morning.wait(60)

        @node
        def eat(self, state):
            return {"leaves": 1}

    @workflow(id="looks", inputs=(), timeout=HOUR)
    class Looks:
        @node
        def look(self, state, ctx):
            return {"leaves": ctx.request("tree", "leaves")["leaves"]}

    @workflow(id="rests", inputs=(), timeout=HOUR)
    class Rests:
        @node
        def look(self, state, ctx):
            return {"leaves": ctx.request("tree", "leaves"), "wait_duration": timedelta(days=3)}

        @node
        def eat(self, state):
            return {"leaves": state["leaves"] - 1}


@pytest.fixture
def sloth(project: Project) -> Iterator[Operator]:
    with served(project, Sloth) as found:
        yield found


def answered_late(run: Run, *, result: Any) -> Run:
    """Let an answer come to the run's question, and the run's time be over before it has gone on."""
    run = played(run)
    Run.objects.filter(id=run.id).update(running_seconds=4000)
    waits.settle(Wait.objects.select_related("run").get(run=run), result=result, by="tree")
    return played(run)


def test_a_step_that_fails_when_the_time_is_over_is_what_the_run_tells_of(sloth):
    run = answered_late(started(sloth, "looks"), result={"twigs": 3})
    assert (run.status, run.error["kind"], run.error["node"]) == ("failed", "KeyError", "look")
    assert "KeyError" in run.error["traceback"]


def test_a_persons_no_is_one_when_the_time_is_over_too(sloth, alice):
    run = played(started(sloth, "asks"))
    Run.objects.filter(id=run.id).update(running_seconds=4000)
    waits.answer(Wait.objects.select_related("run").get(run=run), waits.Answer("reject"), actor=alice)
    run = played(run)
    assert (run.status, run.error["kind"]) == ("failed", "GateRejected")
    with pytest.raises(NotRetryable):
        intake.retry(run, actor=alice)


def test_a_run_that_was_about_to_rest_rests_when_it_is_let_try_again(sloth, alice: User):
    run = answered_late(started(sloth, "rests"), result=3)
    assert (run.status, run.error["kind"], run.error["node"]) == ("failed", "WorkflowTimeout", "look")
    assert not Wait.objects.pending().exists()
    clock.tick()

    run = played(intake.retry(run, actor=alice))
    assert (run.status, kinds(run)[-2:]) == ("waiting", ["run.retried", "timer.set"])
    rest = Wait.objects.pending().get(run=run)
    assert timedelta(days=2) < rest.deadline - timezone.now() < timedelta(days=3)

    Wait.objects.pending().update(deadline=timezone.now())
    clock.tick()
    run = played(run)
    assert (run.status, run.output["leaves"]) == ("completed", 2)
    assert kinds(run).count("timer.fired") == 1
    assert [event.seq for event in thread(run)] == list(range(1, run.last_seq + 1))


def test_a_rest_that_was_put_off_is_taken_once(sloth, alice: User):
    run = answered_late(started(sloth, "rests"), result=3)
    run = intake.retry(run, actor=alice)
    Wait.objects.pending().update(deadline=timezone.now())
    clock.tick()
    Run.objects.filter(id=run.id).update(running_seconds=8000)
    run = played(run)
    assert (run.status, run.error["kind"]) == ("failed", "WorkflowTimeout")
    assert "eat" not in [event.node for event in thread(run) if event.kind == "step.finished"]
    run = played(intake.retry(run, actor=alice))
    assert (run.status, run.output["leaves"]) == ("completed", 2)


def test_a_step_that_hangs_ends_when_the_time_is_over(sloth, alice: User):
    morning.clear()
    try:
        run = played(started(sloth, "sleeps"))
    finally:
        morning.set()
    assert (run.status, run.error["kind"], run.error["node"]) == ("failed", "WorkflowTimeout", "sleep")
    assert "attempt.failed" not in kinds(run)
    run = played(intake.retry(run, actor=alice))
    assert (run.status, run.output["leaves"]) == ("completed", 1)
