"""Cron triggers: what beat is told to watch, and the one run that each slot starts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery
from django.db import connection
from django.utils import timezone
from django_celery_beat.models import PeriodicTask, PeriodicTasks

from openvibe import node, operator, workflow
from openvibe.registry import define
from openvibe.scheduler import GRACE
from openvibe.scheduler.cron import Cron
from openvibe_site import commands, env
from openvibe_site.celery import app as site
from operators import definitions
from operators.beat import BeatScheduler, fire_cron
from operators.models import Operator, Project, Run
from operators.services import compiled, registration, schedule
from tests.domain.lab import kinds, played

DAILY = "cron:default:clockwork.daily"
MINUTELY = "cron:default:clockwork.minutely"
SPARE = "cron:default:clockwork.spare"


@operator(id="clockwork", name="Clockwork")
class Clockwork:
    name: str

    @workflow(id="daily", trigger="cron:0 9 * * 1-5", inputs=())
    class Daily:
        @node
        def tick(self, state):
            return None

    @workflow(id="minutely", trigger="cron:* * * * *", inputs=())
    class Minutely:
        @node
        def tick(self, state):
            return None

    @workflow(id="spare", trigger="cron:* * * * *", inputs=())
    class Spare:
        @node
        def tick(self, state):
            return None

    @workflow(id="by_hand", inputs=())
    class ByHand:
        @node
        def tick(self, state):
            return None


@operator(id="clockwork", name="Clockwork")
class Later:
    @workflow(id="daily", trigger="cron:30 * 1 * 5", inputs=())
    class Daily:
        @node
        def tick(self, state):
            return None


@pytest.fixture
def clockwork(project: Project) -> Iterator[Operator]:
    definition = definitions.registry.register(Clockwork)
    made = registration.register(project, definition)
    schedule.write(project)
    yield made
    definitions.registry.remove("clockwork")
    compiled.workflow.cache_clear()


@pytest.fixture
def minutely(clockwork: Operator) -> int:
    return clockwork.workflows.get(slug="minutely").pk


def _slot(minutes_ago: int = 0) -> datetime:
    return timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=minutes_ago)


@pytest.fixture
def beat() -> Iterator[Callable[..., BeatScheduler]]:
    """Beat as the worker carries it, over the real rows; a task that it sends is performed at once."""
    made: list[BeatScheduler] = []

    def begin(app: Celery | None = None) -> BeatScheduler:
        if app is None:
            app = Celery(broker="memory://", set_as_current=False)
            app.conf.update(task_always_eager=True, timezone="UTC")
        made.append(BeatScheduler(app=app))
        return made[-1]

    yield begin
    for scheduler in made:
        scheduler.close()
        # Else it writes its rows once more when Python ends.
        scheduler._finalize.cancel()


def _tick(scheduler: BeatScheduler) -> None:
    """Let it do everything that is due."""
    for _ in range(20):
        if scheduler.tick() > 0:
            return
    raise AssertionError("beat finds no end")


def test_each_cron_trigger_is_watched_and_nothing_else(clockwork):
    tasks = {task.name: task for task in PeriodicTask.objects.filter(task="operators.fire_cron")}

    assert set(tasks) == {DAILY, MINUTELY, SPARE}
    daily = tasks[DAILY]
    assert json.loads(daily.kwargs) == {"workflow_id": clockwork.workflows.get(slug="daily").pk}
    assert (daily.crontab.hour, daily.crontab.minute, daily.crontab.day_of_week) == ("9", "0", "1,2,3,4,5")
    assert (daily.crontab.day_of_month, str(daily.crontab.timezone), daily.enabled) == ("*", "UTC", True)
    assert schedule.watched(daily) == Cron("0 9 * * 1-5")


def test_cron_triggers_count_in_the_time_zone_of_the_settings(clockwork, project, settings):
    settings.TIME_ZONE = "Europe/Berlin"

    schedule.write(project)

    daily = PeriodicTask.objects.get(name=DAILY)
    assert schedule.watched(daily) == Cron("0 9 * * 1-5", "Europe/Berlin")
    assert str(daily.crontab.timezone) == "Europe/Berlin"


def test_writing_again_changes_nothing_and_wakes_nobody(clockwork, project):
    before = list(PeriodicTask.objects.order_by("pk").values()), PeriodicTasks.last_change()

    schedule.write(project)

    assert (list(PeriodicTask.objects.order_by("pk").values()), PeriodicTasks.last_change()) == before


def test_what_an_administrator_disabled_stays_disabled(clockwork, project):
    PeriodicTask.objects.filter(name=DAILY).update(enabled=False, description="Not in August")

    schedule.write(project)

    daily = PeriodicTask.objects.get(name=DAILY)
    assert (daily.enabled, daily.description) == (False, schedule.DESCRIPTION)


def test_what_the_code_changed_follows_the_code_and_fires_no_slot_of_the_past(clockwork, project):
    PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(days=3))
    registration.register(project, define(Later))

    schedule.write(project)

    (task,) = PeriodicTask.objects.filter(task="operators.fire_cron")
    assert task.name == DAILY
    assert schedule.watched(task) == Cron("30 * 1 * 5")
    assert (task.crontab.minute, task.crontab.day_of_month, task.crontab.day_of_week) == ("30", "1", "5")
    assert timezone.now() - task.last_run_at < timedelta(minutes=1)


def test_another_projects_rows_and_an_administrators_own_stay(clockwork, other_project):
    own = PeriodicTask.objects.get(name=MINUTELY)
    own.pk, own.name, own.task = None, "cron:default:mine", "mine"
    own.save()

    schedule.write(other_project)
    clockwork.workflows.update(retired=True)
    schedule.write(clockwork.project)

    assert [task.name for task in PeriodicTask.objects.all()] == ["cron:default:mine"]


def test_a_trigger_that_nobody_can_read_is_told_and_left_out(clockwork, project, caplog):
    clockwork.workflows.filter(slug="daily").update(trigger="cron:at nine")

    schedule.write(project)

    assert not PeriodicTask.objects.filter(name=DAILY).exists()
    assert "'at nine' has 2 fields" in caplog.text


def test_a_slot_starts_a_run_that_plays(minutely):
    run = schedule.fire(minutely, _slot())

    assert run is not None
    assert (run.trigger, run.input, run.started_by, run.depth) == ("cron", {}, None, 0)
    assert run.key == f"cron:clockwork.minutely:{_slot():%Y-%m-%dT%H:%M:00Z}"
    assert kinds(run) == ["run.queued"]
    assert played(run).status == "completed"


def test_a_slot_that_is_told_again_starts_nothing_more(minutely):
    slot = _slot(1)
    first = schedule.fire(minutely, slot)

    again = schedule.fire(minutely, slot.astimezone(UTC))
    next_slot = schedule.fire(minutely, slot + timedelta(minutes=1))

    assert (again.id, again.new) == (first.id, False)
    assert next_slot.id != first.id
    assert Run.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_two_beats_at_the_same_time_start_one_run_a_slot(minutely):
    slot, ready, runs = _slot(), threading.Barrier(2), []

    def fire() -> None:
        ready.wait(10)
        runs.append(schedule.fire(minutely, slot))
        connection.close()

    threads = [threading.Thread(target=fire) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(run.new for run in runs) == [False, True]
    assert Run.objects.count() == 1


def test_without_a_slot_the_latest_one_is_fired(minutely):
    before, run, after = _slot(), schedule.fire(minutely), _slot()

    assert run.key in {f"cron:clockwork.minutely:{slot:%Y-%m-%dT%H:%M:00Z}" for slot in (before, after)}


def test_a_slot_within_the_grace_is_made_up_and_an_older_one_is_not(minutely, caplog):
    assert schedule.fire(minutely, timezone.now() - GRACE + timedelta(seconds=30)) is not None
    assert schedule.fire(minutely, timezone.now() - GRACE - timedelta(seconds=1)) is None
    assert "too old to be made up" in caplog.text
    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda operator: operator.workflows.update(retired=True),
        lambda operator: operator.workflows.update(trigger="on_demand"),
        lambda operator: Operator.objects.update(enabled=False),
    ],
    ids=["retired", "no cron any more", "operator disabled"],
)
def test_a_workflow_that_may_not_start_starts_nothing(clockwork, minutely, change):
    change(clockwork)

    assert schedule.fire(minutely, _slot()) is None
    assert not Run.objects.exists()


def test_a_workflow_that_is_gone_starts_nothing(clockwork):
    assert schedule.fire(10**6, _slot()) is None


def test_the_task_carries_the_slot(minutely):
    fire_cron(minutely, slot=_slot(1).isoformat())
    fire_cron(workflow_id=minutely)

    assert Run.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_beat_fires_what_is_due_once_with_its_slot(clockwork, beat):
    PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(days=2))
    before = _slot()

    scheduler = beat()
    _tick(scheduler)
    _tick(scheduler)

    run = Run.objects.filter(workflow__slug="minutely").earliest("created_at")
    assert run.key in {f"cron:clockwork.minutely:{slot:%Y-%m-%dT%H:%M:00Z}" for slot in (before, _slot())}
    # A minute may have turned meanwhile; two days of minutes have not been made up.
    assert Run.objects.filter(workflow__slug="minutely").count() <= 2


@pytest.mark.django_db(transaction=True)
def test_beat_that_starts_again_without_its_memory_starts_nothing_twice(clockwork, beat):
    long_ago = timezone.now() - timedelta(days=2)
    for _ in range(2):
        PeriodicTask.objects.update(last_run_at=long_ago)
        _tick(beat())

    keys = Run.objects.filter(workflow__slug="minutely").values_list("key", flat=True)
    assert 1 <= len(keys) <= 2
    assert len(keys) == len(set(keys))


@pytest.mark.django_db(transaction=True)
def test_beat_does_not_fire_what_an_administrator_disabled(clockwork, beat):
    PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(days=2), enabled=False)

    _tick(beat())

    assert not Run.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_beat_reads_the_definitions_schedule_and_not_the_row_that_shows_it(clockwork, project, beat):
    registration.register(project, define(Later))
    schedule.write(project)

    entry = beat().schedule[DAILY]

    # The first of a month or a Friday, as cron reads it; the row alone would mean both.
    friday = datetime(2027, 1, 8, 17, 30, tzinfo=UTC)
    assert entry.schedule.cron.after(friday - timedelta(hours=1)) == friday


@pytest.mark.django_db(transaction=True)
def test_beat_goes_on_after_a_row_that_tells_no_schedule(clockwork, caplog, beat):
    PeriodicTask.objects.filter(name=SPARE).update(headers='{"cron": "at nine", "timezone": "UTC"}')
    PeriodicTask.objects.filter(name=MINUTELY).update(last_run_at=timezone.now() - timedelta(days=2))

    _tick(beat())

    assert "its headers tell no schedule" in caplog.text
    assert Run.objects.filter(workflow__slug="minutely").exists()


@pytest.mark.django_db(transaction=True)
def test_a_slot_that_the_broker_does_not_take_is_fired_all_the_same(clockwork, minutely, caplog, beat):
    app = Celery(broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.update(timezone="UTC", task_publish_retry=False)
    scheduler = beat(app)

    scheduler.apply_async(scheduler.schedule[MINUTELY], advance=False)

    assert Run.objects.get().workflow_id == minutely
    assert "The broker did not take cron:default:clockwork.minutely" in caplog.text


def test_the_worker_knows_the_task(db):
    site.loader.import_default_modules()

    assert "operators.fire_cron" in site.tasks


@pytest.mark.parametrize(
    ("environ", "number", "carried"),
    [({}, 1, True), ({}, 2, False), ({"OPENVIBE_SCHEDULER": "none"}, 1, False)],
    ids=["the first worker", "another worker", "no scheduler"],
)
def test_one_worker_carries_beat_unless_nobody_wants_it(environ, number, carried):
    command = commands.worker(number, env.read(environ))

    assert ("operators.beat:BeatScheduler" in command) is carried
    assert ("--beat" in command) is carried
