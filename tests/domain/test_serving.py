"""Servers that share a database: each plays what it holds the code of, and leaves the rest to the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from openvibe import config, node, operator, workflow
from openvibe.registry import define
from openvibe_site import celery
from operators import clock, definitions
from operators.errors import Misfit
from operators.models import ApiToken, Emission, Operator, Process, Project, Run
from operators.services import compiled, deliveries, doorbell, intake, leases, presence, registration, schedule, serving
from tests.domain.lab import GREETER, Lab, kinds, played, started
from tests.domain.village import Baker, Grocer


@operator(id="sundial")
class Sundial:
    @workflow(id="noon", trigger="cron:0 12 * * *", inputs=())
    class Noon:
        @node
        def strike(self, state):
            return None


@contextmanager
def elsewhere(cls: type) -> Iterator[None]:
    """Let this process not hold an operator that is registered: its code is on another server."""
    name = define(cls).spec.id
    definitions.registry.remove(name)
    compiled.workflow.cache_clear()
    try:
        yield
    finally:
        definitions.registry.register(cls)
        compiled.workflow.cache_clear()


@pytest.fixture
def village(project: Project) -> Iterator[dict[str, Operator]]:
    yield {cls.__name__: registration.register(project, definitions.registry.register(cls)) for cls in (Baker, Grocer)}
    definitions.registry.remove("baker")
    definitions.registry.remove("grocer")
    compiled.workflow.cache_clear()


def worker(*held: str) -> None:
    kind = Process.Kind.WORKER
    Process.objects.create(id=f"{kind}@{'-'.join(held)}:1", kind=kind, operators=list(held), seen_at=timezone.now())


@pytest.mark.django_db(transaction=True)
def test_the_bells_of_a_run_hang_in_its_operators_queue(village, bells):
    run = started(village["Baker"], "bake", flour=50)
    assert bells() == [("runs-baker", doorbell.PERFORM, run.id)]
    played(run)
    emission = Emission.objects.get()
    assert bells() == [("runs-baker", doorbell.DELIVER, emission.id)]
    deliveries.deliver(emission.id)
    assert [bell[:2] for bell in bells()] == [("runs-grocer", doorbell.PERFORM)]


@pytest.mark.django_db(transaction=True)
def test_whoever_wakes_a_run_rings_in_its_operators_queue(village, bells):
    asking = played(started(village["Baker"], "ask", loaves=3))
    assert bells()[-1] == ("runs-baker", doorbell.ASK, asking.waits.get().id)
    deliveries.ask(asking.waits.get().id)
    child = Run.objects.get(parent=asking)
    assert bells() == [("runs-grocer", doorbell.PERFORM, child.id)]
    played(child)
    assert bells() == [("runs-grocer", doorbell.REPLY, child.id)]
    deliveries.reply(child.id)
    assert bells() == [("runs-baker", doorbell.PERFORM, asking.id)]


@pytest.mark.django_db(transaction=True)
def test_the_clock_rings_again_in_the_operators_queue(lab, bells):
    lost, unheard = started(lab, "four"), started(lab, "four")
    leases.take(lost.id)
    Run.objects.filter(id=lost.id).update(lease_until=timezone.now() - timedelta(seconds=1))
    Run.objects.filter(id=unheard.id).update(rung_at=None)
    bells()
    clock.tick()
    assert sorted(bells()) == sorted(("runs-lab", doorbell.PERFORM, run.id) for run in (lost, unheard))


@pytest.mark.django_db(transaction=True)
def test_what_was_registered_over_rest_rings_for_every_worker(project, bells, alice):
    definition = config.parse(GREETER, name="greeter.yaml").definitions()[0]
    row = registration.register(project, definition, source="0" * 64)
    assert doorbell.queue(row) == doorbell.SHARED
    assert serving.served(row) is False
    worker("lab")
    assert serving.served(row) is True


def test_a_worker_hears_the_queues_of_what_it_holds_and_no_others(lab):
    queues = celery.app.amqp.queues
    before = queues._consume_from
    try:
        celery._listen()
        # Ringing elsewhere makes a queue known to the process, which it must not begin to hear.
        celery.app.send_task(doorbell.PERFORM, args=["run_nowhere"], queue="runs-elsewhere")
        heard = set(queues.consume_from)
    finally:
        queues._consume_from = before
    held = {definition.spec.id for definition in definitions.from_code()}
    assert heard == {"runs", *(f"runs-{name}" for name in held)}
    assert "runs-lab" in heard


def test_a_worker_leaves_a_run_of_an_operator_that_it_does_not_hold_queued(lab):
    run = started(lab, "four")
    with elsewhere(Lab):
        after = played(run)
    assert (after.status, after.epoch, after.started_at, kinds(after)) == ("queued", 0, None, ["run.queued"])
    assert played(run).status == "completed"


def test_a_claim_asks_the_database_nothing_more_for_it(lab):
    run = started(lab, "four")
    with CaptureQueriesContext(connection) as queries:
        leases.take(run.id)
    asked = [query["sql"] for query in queries if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "BEGIN"))]
    assert len(asked) == (2 if connection.vendor == "postgresql" else 3), asked


def test_a_run_may_be_started_where_nobody_has_its_code(village):
    with elsewhere(Baker):
        run = started(village["Baker"], "bake", flour=50)
        with pytest.raises(Misfit) as caught:
            started(village["Baker"], "bake", flour="much")
        with pytest.raises(Misfit):
            started(village["Baker"], "bake", sugar=1)
    assert caught.value.detail["errors"][0]["field"] == "flour"
    assert played(run).status == "completed"


def test_an_event_starts_a_listener_whose_code_is_on_another_server_once(village):
    baked = played(started(village["Baker"], "bake", flour=50))
    emission = Emission.objects.get()
    with elsewhere(Grocer):
        deliveries.deliver(emission.id)
        # Another server hears of it over the bus, and starts what listens, too.
        deliveries.start_listeners("default", emission.name, emission.payload, message_id=emission.id)
    [child] = Run.objects.filter(parent=baked)
    assert (child.status, child.operator.slug) == ("queued", "grocer")
    assert Run.objects.exclude(id=baked.id).count() == 1


def test_a_request_to_an_operator_of_another_server_waits_for_that_server(village):
    run = played(started(village["Baker"], "ask", loaves=3))
    with elsewhere(Grocer):
        assert deliveries.ask(run.waits.get().id) is True
        [child] = Run.objects.filter(parent=run)
        assert played(child).status == "queued"
    assert played(child).status == "completed"


def test_two_beats_fire_a_slot_once_and_into_the_operators_queue(project):
    row = registration.register(project, definitions.registry.register(Sundial))
    try:
        schedule.write(project)
        assert PeriodicTask.objects.get(name__contains="sundial").queue == "runs-sundial"
        with elsewhere(Sundial):
            slot = timezone.now().replace(microsecond=0)
            runs = [schedule.fire(row.workflows.get().pk, slot) for _ in range(2)]
    finally:
        definitions.registry.remove("sundial")
    assert len({run.id for run in runs if run}) == 1
    assert Run.objects.filter(operator=row).count() == 1


def test_a_limited_project_passes_over_runs_whose_servers_are_away(village, project):
    Project.objects.filter(pk=project.pk).update(max_running=1)
    first = started(village["Grocer"], "sell", loaves=1)
    second = started(village["Baker"], "bake", flour=1)
    worker("baker")
    with elsewhere(Grocer):
        assert leases.take(second.id).run.id == second.id
    assert Run.objects.get(id=first.id).status == "queued"


@pytest.mark.django_db(transaction=True)
def test_a_bell_for_a_limited_project_is_passed_on_to_the_server_whose_turn_it_is(village, project, bells):
    Project.objects.filter(pk=project.pk).update(max_running=1)
    first = started(village["Grocer"], "sell", loaves=1)
    second = started(village["Baker"], "bake", flour=1)
    worker("baker")
    worker("grocer")
    bells()
    with elsewhere(Grocer):
        assert leases.take(second.id) is None
    assert bells() == [("runs-grocer", doorbell.PERFORM, first.id)]
    assert leases.take(second.id).run.id == first.id


@pytest.mark.django_db(transaction=True)
def test_a_process_says_which_operators_it_holds(lab):
    presence._say("worker@here:1", Process.Kind.WORKER)
    assert "lab" in Process.objects.get().operators
    assert serving.complete()
    Process.objects.update(operators=["lab"])
    assert not serving.complete()


def test_two_homes_on_one_database_keep_a_token_each(db, tmp_path: Path, monkeypatch, capsys):
    tokens = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(settings, "OPENVIBE", _at(tmp_path / name))
        call_command("prepare")
        tokens.append((tmp_path / name / "token").read_text().strip())
    known = set(ApiToken.objects.values_list("key_sha256", flat=True))
    assert {ApiToken.fingerprint(token) for token in tokens} <= known


def _at(home: Path):
    return dataclasses.replace(settings.OPENVIBE, home=home)


def test_a_start_that_repeats_a_key_is_one_run_whichever_server_takes_it(village):
    flow = village["Baker"].workflows.get(slug="bake")
    first = intake.request(flow, input={"flour": 1}, actor=None, key="webhook:1")
    with elsewhere(Baker):
        second = intake.request(flow, input={"flour": 1}, actor=None, key="webhook:1")
    assert first.id == second.id
