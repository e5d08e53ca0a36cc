"""Limits: no more runs at once than an operator or a project allows, in order, and nobody is forgotten."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from openvibe import node, operator, workflow
from operators import clock, definitions
from operators.errors import AgentBusy
from operators.models import Operator, Project, Run
from operators.services import compiled, doorbell, execution, intake, leases, registration, waits
from tests.domain.lab import played, rung, started
from tests.threads import Crowd


@operator(id="annex", name="Annex")
class Annex:
    number: int = 0

    @workflow(id="one")
    class One:
        @node
        def one(self, state):
            return None


@pytest.fixture
def annex(project):
    yield registration.register(project, definitions.registry.register(Annex))
    definitions.registry.remove("annex")
    compiled.workflow.cache_clear()


def limit(rows: Operator | Project, most: int | None) -> None:
    type(rows).objects.filter(pk=rows.pk).update(max_running=most)


def queued(operator: Operator, many: int, *, slug: str = "four", **options) -> list[Run]:
    flow = operator.workflows.get(slug=slug)
    return [intake.request(flow, input={}, actor=None, **options) for _ in range(many)]


def taken(run: Run) -> str | None:
    claim = leases.take(run.id)
    return claim and claim.run.id


def test_no_more_runs_are_claimed_than_the_operator_allows(lab):
    limit(lab, 2)
    runs = queued(lab, 3)

    assert [taken(run) for run in runs] == [runs[0].id, runs[1].id, None]
    assert Run.objects.get(pk=runs[2].pk).status == "queued"


def test_no_more_runs_are_claimed_than_the_project_allows(lab, annex, project):
    limit(project, 1)
    [first] = queued(lab, 1)
    [second] = queued(annex, 1, slug="one")

    assert taken(first) == first.id
    assert taken(second) is None


def test_without_a_limit_nobody_waits(lab, annex):
    limit(annex, 0)
    runs = queued(lab, 3)

    assert [taken(run) for run in runs] == [run.id for run in runs]


def test_any_bell_is_good_for_the_oldest_run(lab):
    limit(lab, 1)
    first, second = queued(lab, 2)

    assert taken(second) == first.id


def test_a_higher_priority_goes_first(lab):
    limit(lab, 1)
    first, _ = queued(lab, 2)
    [urgent] = queued(lab, 1, priority=5)

    assert taken(first) == urgent.id


@pytest.mark.django_db(transaction=True)
def test_a_bell_that_was_good_for_another_run_is_rung_again_if_there_is_a_slot(lab):
    limit(lab, 2)
    first, second, _ = queued(lab, 3)
    rung()

    assert taken(second) == first.id
    assert rung() == [second.id]
    assert taken(second) == second.id
    assert rung() == []


def test_a_full_operator_does_not_hold_up_the_others_of_a_limited_project(lab, annex, project):
    limit(project, 2)
    limit(lab, 1)
    first, second = queued(lab, 2)
    [other] = queued(annex, 1, slug="one")
    taken(first)

    assert taken(second) == other.id


def test_a_run_that_waits_holds_no_slot(gate):
    operator = gate.run.operator
    limit(operator, 1)
    flow = gate.run.workflow
    other = intake.request(flow, input=flow.sample_input, actor=None)

    assert taken(other) == other.id


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ending", ["completed", "failed", "cancelled", "waiting", "lost"])
def test_whoever_frees_a_slot_rings_for_the_next(registered, alice, ending, lab, while_playing):
    holder, operator, slug, sample = _holder(ending, registered, lab)
    limit(operator, 1)
    following = intake.request(operator.workflows.get(slug=slug), input=sample, actor=None)
    if ending == "failed":
        while_playing(lambda: 1 / 0)
    rung()

    if ending in ("cancelled", "lost"):
        leases.take(holder.id)
    if ending == "cancelled":
        intake.cancel(holder, actor=alice)
    elif ending == "lost":
        Run.objects.filter(pk=holder.pk).update(lease_until=timezone.now() - timedelta(1), losses=1000)
        clock.tick()
    else:
        played(holder)

    holder.refresh_from_db()
    assert holder.status == {"lost": "failed"}.get(ending, ending)
    assert following.id in rung()


def _holder(ending, registered, lab):
    if ending == "waiting":
        sample = registered["revenue_ops"].workflows.get(slug="engagement").sample_input
        run = started(registered["revenue_ops"], "engagement", **sample)
        return run, run.operator, "engagement", sample
    return started(lab, "meddled"), lab, "meddled", {}


def test_a_blocked_run_hears_no_bell_from_the_clock(lab):
    limit(lab, 1)
    holder, blocked = queued(lab, 2)
    taken(holder)
    Run.objects.filter(pk=blocked.pk).update(rung_at=timezone.now() - timedelta(minutes=5))
    rung()

    clock.tick()

    assert rung() == []
    assert Run.objects.get(pk=blocked.pk).rings == 0


def test_the_clock_rings_for_as_many_as_there_are_slots_when_all_bells_were_lost(lab):
    limit(lab, 2)
    runs = queued(lab, 4)
    Run.objects.all().update(rung_at=timezone.now() - timedelta(minutes=5))
    rung()

    clock.tick()
    clock.tick()

    assert rung() == [runs[0].id, runs[1].id]


def test_many_runs_whose_workers_are_away_hide_no_lost_bell_of_another_queue(lab, annex):
    rung()
    for run in queued(annex, clock.MOST + 1, slug="one"):
        doorbell.ring(run.id, annex)
    [lost] = queued(lab, 1)
    Run.objects.filter(operator=annex).update(rung_at=timezone.now() - timedelta(minutes=5))
    Run.objects.filter(pk=lost.pk).update(rung_at=timezone.now() - timedelta(seconds=3))

    assert doorbell.hanging(doorbell.queue(lab)) == 0
    clock.tick()

    assert Run.objects.get(pk=lost.pk).rings == 1
    assert not Run.objects.filter(operator=annex).exclude(rings=0).exists()
    rung()


def test_a_limit_that_is_lifted_lets_everybody_go(lab):
    limit(lab, 0)
    [run] = queued(lab, 1)
    assert taken(run) is None

    limit(lab, None)

    assert taken(run) == run.id


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("whose", ["operator", "project"])
def test_many_workers_at_once_never_exceed_a_limit_and_every_run_ends(lab, project, whose, while_playing):
    limit(lab if whose == "operator" else project, 2)
    runs = queued(lab, 12, slug="meddled")
    playing = Crowd()
    # Whoever plays waits for a second one: both slots are used, again and again.
    pair = threading.Barrier(2, timeout=30)

    def meddle():
        with playing:
            pair.wait()

    while_playing(meddle)
    _work(runs, workers=6)

    assert playing.most == 2
    assert set(Run.objects.values_list("status", flat=True)) == {"completed"}


def _work(runs: list[Run], *, workers: int) -> None:
    """Hear bells as workers do, each once, until nothing is queued; the clock is not there to help."""
    rung()
    bells = [run.id for run in runs]
    lock = threading.Lock()
    deadline = time.monotonic() + 60

    def next_bell() -> str | None:
        with lock:
            bells.extend(rung())
            return bells.pop(0) if bells else None

    def work(_) -> None:
        try:
            while Run.objects.active().exists():
                assert time.monotonic() < deadline, "a run was forgotten"
                bell = next_bell()
                if bell is None:
                    time.sleep(0.005)
                else:
                    execution.perform(bell)
        finally:
            connection.close()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("whose", ["operator", "project"])
def test_of_many_claims_at_once_one_wins_the_only_slot(lab, project, whose):
    limit(lab if whose == "operator" else project, 1)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            runs = queued(lab, 8)
            ready = threading.Barrier(8)
            claims = [claim for claim in pool.map(_claim, runs, [ready] * 8) if claim]
            assert claims == [min(runs, key=lambda run: (run.created_at, run.id)).id]
            Run.objects.all().update(status="cancelled")


def _claim(run: Run, ready: threading.Barrier) -> str | None:
    try:
        connection.ensure_connection()
        ready.wait()
        return taken(run)
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_two_slots_that_are_freed_at_once_are_both_filled(lab, alice):
    limit(lab, 2)
    first, second, third, fourth = queued(lab, 4)
    taken(first)
    taken(second)
    rung()

    with transaction.atomic():
        intake.cancel(first, actor=alice)
        intake.cancel(second, actor=alice)

    assert set(rung()) == {third.id, fourth.id}


def test_a_gate_that_is_answered_queues_its_run_in_its_old_place(gate, bob):
    limit(gate.run.operator, 1)
    flow = gate.run.workflow
    younger = intake.request(flow, input=flow.sample_input, actor=None)
    waits.answer(gate, waits.Answer("approve"), actor=bob)

    assert taken(younger) == gate.run_id


def test_what_is_to_begin_at_once_is_refused_where_it_would_wait(lab):
    limit(lab, 2)
    lab.refresh_from_db()
    first = queued(lab, 1)[0]
    second = queued(lab, 1, at_once=True)[0]
    # Nobody has begun to play them; their slots are promised all the same.
    with pytest.raises(AgentBusy, match="plays as many runs as it may"):
        queued(lab, 1, at_once=True)
    played(first)
    played(second)
    assert queued(lab, 1, at_once=True)[0].status == "queued"
    assert Run.objects.count() == 3


def test_what_is_to_begin_at_once_minds_the_projects_limit_and_its_operators_own(lab, annex, project):
    limit(project, 3)
    limit(lab, 1)
    lab.refresh_from_db()
    annex.refresh_from_db()
    queued(lab, 1, at_once=True)
    with pytest.raises(AgentBusy):
        queued(lab, 1, at_once=True)
    queued(annex, 2, slug="one", at_once=True)
    with pytest.raises(AgentBusy):
        queued(annex, 1, slug="one", at_once=True)


@pytest.mark.django_db(transaction=True)
def test_of_many_that_are_to_begin_at_once_only_so_many_are_taken_as_there_are_slots(lab):
    limit(lab, 2)
    lab.refresh_from_db()

    def ask(number: int) -> str:
        try:
            return str(queued(lab, 1, at_once=True, key=f"k{number}")[0].status)
        except AgentBusy as refused:
            return refused.code
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(ask, range(8))) == ["agent_busy"] * 6 + ["queued"] * 2


def test_without_a_limit_nobody_is_busy_and_the_same_request_again_is_the_same_run(lab):
    first = queued(lab, 1, at_once=True, key="k")[0]
    limit(lab, 1)
    lab.refresh_from_db()
    assert queued(lab, 1, at_once=True, key="k")[0] == first
