"""A run that has never been played is taken by the first write under its claim, before any of its nodes plays."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TypedDict

import pytest
from django.utils import timezone
from langgraph.graph import START, StateGraph

from openvibe import operator, outcomes, workflow
from openvibe.tracing.recorder import Recorder
from operators import definitions
from operators.models import Run
from operators.services import execution, intake, leases
from operators.services.execution import Performance
from operators.services.leases import ClaimLost
from tests.domain.lab import kinds, played, served, started, thread


class State(TypedDict):
    way: str


@pytest.fixture
def meddled(lab, while_playing):
    """A queued run of the workflow in the middle of which somebody meddles, and how often that has played."""
    times = []
    while_playing(lambda: times.append(1))
    return started(lab, "meddled"), times


def test_two_workers_that_heard_of_the_same_new_run_play_it_once(meddled):
    run, times = meddled
    first, second = (leases.take(run.id, by_writing=True) for _ in range(2))

    Performance(first).play()
    told = kinds(run)
    with pytest.raises(ClaimLost):
        Performance(second).play()

    assert len(times) == 1
    assert kinds(run) == told
    assert told.count("run.started") == 1


def test_the_second_of_two_that_begin_at_the_same_time_plays_nothing(meddled):
    run, times = meddled
    first, second = (Performance(leases.take(run.id, by_writing=True)) for _ in range(2))
    second.play()

    with pytest.raises(ClaimLost):
        first.play()

    assert len(times) == 1
    run.refresh_from_db()
    assert list(thread(run).values_list("seq", flat=True)) == list(range(1, run.last_seq + 1))


@pytest.mark.django_db(transaction=True)
def test_whoever_was_slower_leaves_the_lease_of_the_faster_one_alone(meddled, while_playing):
    run, times = meddled
    faster, slower = (leases.take(run.id, by_writing=True) for _ in range(2))
    renewed = []

    def come_too_late():
        with pytest.raises(ClaimLost), leases.keeper.keeping(slower):
            Performance(slower).play()
        Run.objects.filter(id=run.id).update(lease_until=None)
        leases.keeper._renew()
        renewed.append(Run.objects.get(id=run.id).lease_until)

    while_playing(come_too_late)
    with leases.keeper.keeping(faster):
        Performance(faster).play()

    assert len(times) == len(renewed) == 1
    assert renewed[0] is not None


@pytest.mark.django_db(transaction=True)
def test_leases_are_renewed_again_after_whatever_kept_them_from_it(meddled, settings):
    run, _ = meddled
    settings.OPENVIBE = replace(settings.OPENVIBE, lease_seconds=0.3)
    keeper, claim = leases.Keeper(), leases.take(run.id)

    def renewed():
        Run.objects.filter(id=run.id).update(lease_until=None)
        return eventually(lambda: Run.objects.get(id=run.id).lease_until is not None)

    with keeper.keeping(claim):
        assert renewed()
        # Nobody takes this for a number.
        with keeper.keeping(replace(claim, epoch=object())):
            assert not renewed()
        assert renewed()


def eventually(act):
    deadline = time.monotonic() + 1
    while not (found := act()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_a_run_that_is_cancelled_before_it_is_taken_plays_nothing(meddled, alice):
    run, times = meddled
    claim = leases.take(run.id, by_writing=True)
    intake.cancel(run, actor=alice)

    with pytest.raises(ClaimLost):
        Performance(claim).play()

    assert not times
    assert kinds(run)[-1] == "run.cancelled"


def test_the_first_play_is_traced_with_the_start_that_every_later_one_finds(meddled, monkeypatch):
    run, _ = meddled
    plays = []

    class Sink:
        loggers = ()

        def began(self, span):
            plays.append(span.play)

        def ended(self, span): ...

    monkeypatch.setattr(definitions, "tracer", lambda: Recorder(Sink()))
    run = played(run)

    assert {play.started for play in plays} == {run.started_at}


def test_a_fork_goes_on_somewhere_and_is_taken_before_it_is_prepared(meddled):
    run, _ = meddled
    Run.objects.filter(id=run.id).update(forked_at=timezone.now())

    assert leases.take(run.id, by_writing=True).taking is None
    run.refresh_from_db()
    assert (run.status, run.epoch) == ("running", 1)


def test_no_play_goes_on_under_a_claim_that_nothing_has_taken(meddled, monkeypatch):
    run, _ = meddled
    claims = []

    def nothing_to_write(*_, **__):
        yield outcomes.Progress()
        claims.append(Run.objects.values_list("status", flat=True).get(id=run.id))
        yield outcomes.Progress(outcome=outcomes.Completed({}))

    monkeypatch.setattr(execution.engine, "play", nothing_to_write)
    played(run)

    assert claims == ["running"]


def test_what_breaks_before_the_first_write_ends_the_run_all_the_same(meddled, monkeypatch):
    run, times = meddled
    monkeypatch.setattr(execution.engine, "play", lambda *_, **__: 1 / 0)

    run = played(run)

    assert (run.status, run.epoch, run.error["kind"]) == ("failed", 1, "ZeroDivisionError")
    assert kinds(run)[:2] == ["run.queued", "run.started"]
    assert run.started_at is not None
    assert not times


@pytest.mark.django_db(transaction=True)
def test_a_graph_of_somebodys_own_is_taken_before_it_is_asked_for_its_way(project):
    seen = []

    def way(state):
        seen.extend(Run.objects.values_list("status", flat=True))
        return "only"

    graph = StateGraph(State)
    graph.add_node("only", lambda state: state)
    graph.add_conditional_edges(START, way, ["only"])

    @operator(id="maze")
    class Maze:
        @workflow(id="ways", graph=graph)
        class Ways: ...

    with served(project, Maze) as maze:
        run = played(started(maze, "ways"))

    assert (run.status, seen) == ("completed", ["running"])
