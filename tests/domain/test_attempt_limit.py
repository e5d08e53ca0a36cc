"""A run that loses its worker again and again: it is queued again a few times, then it fails and says why."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from openvibe import node, operator, workflow
from operators import clock
from operators.models import Run
from operators.services import execution, intake, leases
from tests.domain.lab import kinds, meddling, played, served, started, thread

MOST = settings.OPENVIBE.most_losses


class Killed(BaseException):
    """The process is gone: nothing of ours gets to see it."""


def die():
    raise Killed


@operator(id="moth")
class Moth:
    @workflow(id="fly", checkpointed=False)
    class Fly:
        @node
        def rise(self, state):
            return None

        @node
        def burn(self, state):
            die()


def lose(run: Run) -> Run:
    """Let the run's worker die, and the clock notice."""
    with contextlib.suppress(Killed):
        played(run)
    Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    clock.tick()
    return Run.objects.get(pk=run.pk)


def test_a_run_that_kills_its_workers_fails_and_says_how_often_and_where(lab, while_playing):
    run = started(lab, "meddled")
    while_playing(die)

    seen = [lose(run) for _ in range(MOST)]

    assert [item.status for item in seen] == ["queued"] * (MOST - 1) + ["failed"]
    [event] = thread(run).filter(kind="run.failed")
    assert f"has lost its worker {MOST} times in a row at step 'meddle'" in event.data["message"]
    assert (event.node, event.data["kind"], event.data["losses"]) == ("meddle", "WorkerLost", MOST)
    assert seen[-1].error["step_id"] == event.step_id == thread(run).get(kind="step.started", node="meddle").step_id
    assert seen[-1].lease_until is None
    assert kinds(run).count("run.lost") == MOST - 1


def test_a_run_that_dies_before_its_first_step_says_so(lab):
    run = started(lab, "four")
    for _ in range(MOST):
        leases.take(run.id)
        Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        clock.tick()

    assert "before its first step" in Run.objects.get(pk=run.pk).error["message"]


def test_a_new_run_that_kills_its_workers_before_it_writes_anything_fails_too(lab, bells, monkeypatch):
    run = started(lab, "four")
    monkeypatch.setattr(execution.engine, "play", lambda *_, **__: die())
    for _ in range(MOST + 1):
        bells()
        Run.objects.filter(pk=run.pk).update(rung_at=timezone.now() - timedelta(hours=1))
        run = lose(run)

    assert run.status == "failed"
    assert run.error["kind"] == "WorkerLost"
    assert "before its first step" in run.error["message"]


def test_a_finished_step_lets_the_count_begin_anew(lab, while_playing):
    run = started(lab, "meddled")
    Run.objects.filter(pk=run.pk).update(losses=MOST - 1)
    while_playing(die)

    run = lose(run)

    # `before` was committed ahead of the death in `meddle`.
    assert (run.status, run.losses) == ("queued", 1)


def test_what_begins_anew_each_time_makes_no_headway_by_it(project):
    with served(project, Moth) as moth:
        run = started(moth, "fly")
        seen = [lose(run) for _ in range(MOST)]
    assert [item.status for item in seen] == ["queued"] * (MOST - 1) + ["failed"]
    assert "at step 'burn'" in seen[-1].error["message"]


def test_a_run_that_was_given_up_may_be_retried_with_a_fresh_count(lab, while_playing, alice):
    run = started(lab, "meddled")
    while_playing(die)
    for _ in range(MOST):
        run = lose(run)
    meddling.clear()

    assert intake.retry(run, actor=alice).losses == 0
    assert played(run).output["number"] == 3


@pytest.mark.django_db(transaction=True)
def test_two_clocks_count_a_loss_once(lab):
    run = started(lab, "four")
    leases.take(run.id)
    Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1), losses=MOST - 1)
    ready = threading.Barrier(2)

    def tick(_):
        try:
            ready.wait()
            clock.tick()
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(tick, range(2)))

    assert kinds(run).count("run.failed") == 1
    assert Run.objects.get(pk=run.pk).status == "failed"
