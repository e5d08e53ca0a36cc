"""Workflows whose code changes while a run waits: nothing of the run is left out unsaid."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from openvibe import human_in_the_loop, node, operator, workflow
from operators import clock
from operators.models import Project, Run, Wait
from operators.services import compiled, intake, waits
from tests.domain.lab import kinds, played, served, started


@node
def pause(self, state):
    return {"wait_duration": timedelta(days=14)}


@node
def send(self, state):
    return {"sent": state["sent"] + 1}


@operator(id="campaign")
class Before:
    sent: int = 0
    agreed: str = ""

    @workflow(id="nurture", inputs=())
    class Nurture:
        pause = pause

        @human_in_the_loop(prompt="Send it?")
        def agreed(self, state):
            return {}

        send = send


@operator(id="campaign")
class After:
    sent: int = 0
    agreed: str = ""

    @workflow(id="nurture", inputs=())
    class Nurture:
        pause = pause

        @human_in_the_loop(prompt="Really send it?")
        def checked(self, state):
            return {}

        send = send


@operator(id="campaign")
class Otherwise:
    sent: int = 0
    agreed: str = ""

    @workflow(id="nurture", inputs=())
    class Nurture:
        pause = pause

        @human_in_the_loop(prompt="Send it?", decisions=("ship", "drop"))
        def agreed(self, state):
            return {}

        send = send


@pytest.fixture
def resting(project: Project) -> Iterator[Run]:
    with served(project, Before) as found:
        run = played(started(found, "nurture"))
    assert run.status == "waiting"
    compiled.workflow.cache_clear()
    yield run
    compiled.workflow.cache_clear()


def woken(run: Run) -> Run:
    Wait.objects.update(deadline=timezone.now())
    clock.tick()
    return played(run)


def again(project: Project, cls: type) -> Any:
    compiled.workflow.cache_clear()
    return served(project, cls)


def test_a_run_whose_next_node_is_gone_fails_instead_of_being_completed(project: Project, resting: Run, alice: User):
    with again(project, After):
        run = woken(resting)
        assert (run.status, run.error["kind"]) == ("failed", "SetupError")
        assert "stands before 'agreed', and workflow 'nurture' no longer has" in run.error["message"]

    with again(project, Before):
        intake.retry(run, actor=alice)
        run = played(run)
        assert run.waits.pending().get().node == "agreed"


def test_a_decision_about_a_gate_that_is_gone_is_kept_until_it_is_back(project: Project, resting: Run, alice: User):
    with again(project, Before):
        run = woken(resting)
    with again(project, After):
        waits.answer(run.waits.pending().get(), waits.Answer("approve"), actor=alice)
        run = played(run)
        assert run.status == "failed"

    with again(project, Before):
        intake.retry(run, actor=alice)
        run = played(run)
        assert (run.status, run.output["sent"], run.output["agreed"]) == ("completed", 1, "approve")
        assert kinds(run).count("gate.opened") == 1


def test_a_yes_that_its_gate_no_longer_knows_is_told_as_no_persons_no(project: Project, resting: Run, alice: User):
    with again(project, Before):
        run = woken(resting)
    with again(project, Otherwise):
        waits.answer(run.waits.pending().get(), waits.Answer("approve"), actor=alice)
        run = played(run)
        assert (run.status, run.error["kind"]) == ("failed", "RunError")
        assert "was decided by 'approve', and now takes 'ship', 'drop'" in run.error["message"]

    with again(project, Before):
        intake.retry(run, actor=alice)
        run = played(run)
        assert (run.status, run.output["sent"]) == ("completed", 1)
