"""One set of promises, kept by every scheduler: the same slots, whoever keeps the clock."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from celery import Celery

from openvibe.errors import SetupError
from openvibe.scheduler import GRACE, SCHEDULERS, Scheduler, scheduler
from openvibe.scheduler.apscheduler import CronTrigger
from openvibe.scheduler.celery import CronSchedule
from openvibe.scheduler.cron import Cron

YEAR = datetime(2027, 1, 1, tzinfo=UTC)
END = datetime(2028, 1, 1, tzinfo=UTC)
PATIENCE = 20.0
WEEKEND = {5, 6}

#: A schedule, its hours and minutes, and on which days; in words of Python's calendar, where Monday is 0.
TABLE: list[tuple[str, list[int], list[int], Callable[[date], bool]]] = [
    ("0 7 * * *", [7], [0], lambda day: True),
    ("0 7 * * 1-5", [7], [0], lambda day: day.weekday() not in WEEKEND),
    ("0 7 * * MON-FRI", [7], [0], lambda day: day.weekday() not in WEEKEND),
    ("0 9 * * 1", [9], [0], lambda day: day.weekday() == 0),
    ("0 10 * * 1,4", [10], [0], lambda day: day.weekday() in {0, 3}),
    ("30 8 * * 0", [8], [30], lambda day: day.weekday() == 6),
    ("30 8 * * 7", [8], [30], lambda day: day.weekday() == 6),
    ("30 8 * * 5-7", [8], [30], lambda day: day.weekday() in {4, 5, 6}),
    ("30 8 * * sun", [8], [30], lambda day: day.weekday() == 6),
    ("*/15 9-17/4 * * *", [9, 13, 17], [0, 15, 30, 45], lambda day: True),
    ("5/20 3 1,15 * *", [3], [5, 25, 45], lambda day: day.day in {1, 15}),
    ("0 0 29 2 *", [0], [0], lambda day: (day.month, day.day) == (2, 29)),
    ("0 0 31 * *", [0], [0], lambda day: day.day == 31),
    ("0 6 * jan-mar,12 *", [6], [0], lambda day: day.month in {1, 2, 3, 12}),
    ("0 0 1 * 1", [0], [0], lambda day: day.day == 1 or day.weekday() == 0),
    ("0 0 */2 * 1", [0], [0], lambda day: day.day % 2 == 1 and day.weekday() == 0),
]
#: Berlin's clocks jump from 2:00 to 3:00 on 28 March 2027, and from 3:00 back to 2:00 on 31 October.
BERLIN = ["0 9 * * *", "30 2 * * *", "*/30 1-3 * * *", "15 */2 * * *", "45 1,2,3 * * *"]


def expected(hours: list[int], minutes: list[int], fits: Callable[[date], bool]) -> list[datetime]:
    days = (YEAR + timedelta(days=number) for number in range((END - YEAR).days))
    return [
        day.replace(hour=hour, minute=minute)
        for day in days
        if fits(day.date())
        for hour, minute in itertools.product(hours, minutes)
    ]


def none_slots(cron: Cron, since: datetime, until: datetime) -> list[datetime]:
    fired: list[datetime] = []
    kept = scheduler("none")
    kept.every("job", cron, fired.append)
    kept.elapse(since, until)  # type: ignore[attr-defined]
    return fired


def apscheduler_slots(cron: Cron, since: datetime, until: datetime) -> list[datetime]:
    trigger = CronTrigger(cron)
    slots = [trigger.get_next_fire_time(None, since)]
    while slots[-1] <= until:
        slots.append(trigger.get_next_fire_time(slots[-1], slots[-1] + timedelta(seconds=0.1)))
    return slots[:-1]


def celery_slots(cron: Cron, since: datetime, until: datetime) -> list[datetime]:
    """Beat's loop, with a clock that jumps to whatever beat would sleep for."""
    now = last_run_at = since
    schedule = CronSchedule(cron, nowfun=lambda: now, app=Celery(set_as_current=False))
    slots = []
    while now <= until:
        due, pause = schedule.is_due(last_run_at)
        if due:
            slots.append(datetime.fromisoformat(schedule.slot()))
            last_run_at = now
        now += timedelta(seconds=pause)
    return slots


SLOTS = {"none": none_slots, "apscheduler": apscheduler_slots, "celery": celery_slots}


@pytest.fixture(params=SCHEDULERS)
def kept(request: pytest.FixtureRequest) -> Iterator[Scheduler]:
    """A scheduler of each kind, in this process: Celery's calls are made where beat would send them."""
    app = Celery(broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True
    made = scheduler(request.param, **({"app": app} if request.param == "celery" else {}))
    yield made
    made.stop()


class Often(Cron):
    """Slots every fifth of a second: what no cron can say, so that a test need not wait for a minute."""

    def after(self, moment: datetime) -> datetime:
        return self.before(moment) + timedelta(seconds=0.2)

    def before(self, moment: datetime) -> datetime:
        return datetime.fromtimestamp(moment.timestamp() * 10 // 2 / 5, UTC)


OFTEN = Often("* * * * *")


class Calls:
    """What was called, as it comes."""

    def __init__(self, kept: Scheduler) -> None:
        self.kept = kept
        self.slots: queue.Queue[datetime] = queue.Queue()
        self.now = datetime.now(UTC)

    def next(self) -> datetime:
        """The next slot that was called; without a clock, time is made to pass."""
        if hasattr(self.kept, "elapse"):
            since, self.now = self.now, self.now + timedelta(seconds=0.2)
            self.kept.elapse(since, self.now)
        return self.slots.get(timeout=PATIENCE)


@pytest.fixture
def calls(kept: Scheduler) -> Calls:
    return Calls(kept)


def test_every_scheduler_that_can_be_chosen_is_held_to_the_contract():
    assert set(SLOTS) == set(SCHEDULERS)


@pytest.mark.parametrize("name", SLOTS)
@pytest.mark.parametrize(("text", "hours", "minutes", "fits"), TABLE, ids=[row[0] for row in TABLE])
def test_a_year_has_exactly_the_slots_that_the_schedule_says(name, text, hours, minutes, fits):
    found = SLOTS[name](Cron(text), YEAR - timedelta(seconds=1), END - timedelta(seconds=1))

    assert found == expected(hours, minutes, fits)


@pytest.mark.parametrize("text", BERLIN)
def test_a_year_with_clock_changes_has_the_same_slots_everywhere(text):
    cron = Cron(text, "Europe/Berlin")
    first, *others = [slots(cron, YEAR, END) for slots in SLOTS.values()]

    assert len(first) >= 365
    assert first == sorted(set(first))
    assert others == [first] * len(others)


@pytest.mark.parametrize(
    ("text", "day", "wanted"),
    [
        ("0 9 * * *", date(2027, 1, 5), ["08:00"]),
        ("0 9 * * *", date(2027, 7, 5), ["07:00"]),
        ("30 2 * * *", date(2027, 3, 28), ["01:00"]),
        ("30 2 * * *", date(2027, 10, 31), ["00:30"]),
        ("30 * * * *", date(2027, 10, 31), [f"{hour:02d}:30" for hour in range(24)]),
    ],
)
def test_the_clock_changes_of_a_time_zone_lose_and_double_nothing(text, day, wanted):
    start = datetime.combine(day, datetime.min.time(), UTC)

    found = none_slots(Cron(text, "Europe/Berlin"), start - timedelta(seconds=1), start + timedelta(hours=23.99))

    assert [slot.strftime("%H:%M") for slot in found] == wanted


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("text", [row[0] for row in TABLE if row[0] != "0 0 29 2 *"] + BERLIN)
def test_the_last_slot_and_the_next_one_surround_every_moment(text, zone):
    cron = Cron(text, zone)
    slots = none_slots(cron, YEAR - timedelta(days=60), END + timedelta(days=60))
    changes = [datetime(2027, 3, 28, tzinfo=UTC), datetime(2027, 10, 31, tzinfo=UTC)]
    moments = [change + timedelta(minutes=7.5 * number) for change in changes for number in range(40)]

    for moment in [*moments, *slots[100:110]]:
        position = bisect.bisect_right(slots, moment)
        assert (cron.before(moment), cron.after(moment)) == (slots[position - 1], slots[position]), moment


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "0 fields"),
        ("0 9 * *", "4 fields"),
        ("0 0 9 * * 1", "6 fields"),
        ("60 * * * *", "'60' is no minute"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 0 0 * *", "'0' is no day-of-month"),
        ("0 0 * 13 *", "'13' is no month"),
        ("0 0 * * 8", "'8' is no day-of-week"),
        ("0 0 * * MON-", "'MON-' is no day-of-week"),
        ("0 0 * * funday", "'funday' is no day-of-week"),
        ("0 17-9 * * *", "'17-9' is no hour"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("0 0 L * *", "'L' is no day-of-month"),
        ("0 0 30 2 *", "'30' is no day-of-month"),
        ("every day at nine", "4 fields"),
    ],
)
def test_a_wrong_schedule_is_told_with_its_place_and_the_remedy(text, named):
    problem = Cron.problem(text)

    assert named in problem
    assert "write five fields" in problem
    assert "'0 9 * * 1-5'" in problem


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_a_right_schedule_has_no_problem_and_tells_its_numbers(row):
    text, hours, minutes, _ = row

    assert Cron.problem(text) == ""
    assert Cron(text).values[:2] == (tuple(minutes), tuple(hours))


def test_an_unknown_scheduler_is_told_with_those_there_are():
    with pytest.raises(SetupError, match=r"'cron'; use one of: none, apscheduler, celery"):
        scheduler("cron")


def test_a_wrong_schedule_and_a_wrong_time_zone_are_refused_and_change_nothing(kept):
    kept.every("job", "0 9 * * 1", print)

    with pytest.raises(SetupError, match="'at nine' has 2 fields"):
        kept.every("job", "at nine", print)
    with pytest.raises(SetupError, match="'Mars/Olympus'"):
        kept.every("other", "0 9 * * 1", print, timezone="Mars/Olympus")
    assert [(job.id, job.cron) for job in kept.jobs()] == [("job", Cron("0 9 * * 1"))]


def test_jobs_are_told_by_id_and_the_latest_word_about_one_counts(kept):
    kept.every("weekly", "0 9 * * 1", print)
    kept.every("daily", "0 9 * * *", print, timezone="Europe/Berlin")
    kept.every("weekly", "0 9 * * 2", print)

    assert [(job.id, job.cron) for job in kept.jobs()] == [
        ("daily", Cron("0 9 * * *", "Europe/Berlin")),
        ("weekly", Cron("0 9 * * 2")),
    ]


def test_a_removed_job_is_gone_and_removing_it_again_is_no_mistake(kept):
    kept.every("job", "0 9 * * 1", print)
    kept.start()

    kept.remove("job")
    kept.remove("job")

    assert kept.jobs() == ()


def test_a_call_gets_its_slot_in_utc_and_slots_come_in_order(kept, calls):
    before = datetime.now(UTC)
    kept.every("job", OFTEN, calls.slots.put)
    kept.start()
    kept.start()

    slots = [calls.next() for _ in range(3)]

    assert all(slot.utcoffset() == timedelta(0) and slot == OFTEN.before(slot) for slot in slots)
    assert slots == sorted(set(slots))
    assert before < slots[0]


def test_a_coroutine_function_is_awaited(kept, calls):
    async def call(slot: datetime) -> None:
        await asyncio.sleep(0)
        calls.slots.put(slot)

    kept.every("job", OFTEN, call)
    kept.start()

    assert calls.next() < calls.next()


def test_a_call_that_fails_is_logged_and_the_next_slot_comes(kept, calls, caplog):
    def call(slot: datetime) -> None:
        calls.slots.put(slot)
        raise RuntimeError("no luck")

    kept.every("job", OFTEN, call)
    kept.start()

    assert calls.next() < calls.next()
    assert "The call of 'job' for" in caplog.text
    assert "no luck" in caplog.text


def test_a_job_that_is_added_later_is_called_too(kept, calls):
    kept.start()
    kept.every("job", OFTEN, calls.slots.put)

    assert calls.next()


def test_a_job_that_is_replaced_is_called_by_its_new_call(kept, calls):
    kept.every("job", OFTEN, lambda slot: None)
    kept.start()
    kept.every("job", OFTEN, calls.slots.put)

    assert calls.next()


def test_nothing_is_called_before_the_start_and_after_the_stop(kept):
    called: list[datetime] = []
    kept.every("job", OFTEN, called.append)
    later = threading.Event()

    assert not later.wait(0.5)
    assert called == []
    kept.start()
    kept.stop()
    before = len(called)
    assert not later.wait(0.5)
    assert len(called) == before


def test_after_a_stop_a_start_goes_on_with_the_same_jobs(kept, calls):
    kept.every("job", OFTEN, calls.slots.put)
    kept.start()
    kept.stop()
    kept.start()

    assert calls.next()


def test_of_the_slots_that_were_missed_only_the_latest_is_made_up_by_beat():
    now = datetime(2027, 1, 5, 9, 20, tzinfo=UTC)
    schedule = CronSchedule(Cron("*/5 * * * *"), nowfun=lambda: now, app=Celery(set_as_current=False))

    due, pause = schedule.is_due(now - timedelta(days=3))

    assert (due, schedule.slot(), pause) == (True, "2027-01-05T09:20:00+00:00", 300)
    assert not schedule.is_due(now).is_due


@pytest.mark.parametrize(("late", "due"), [(GRACE, True), (GRACE + timedelta(seconds=1), False)])
def test_a_missed_slot_is_made_up_within_the_grace_only(late, due):
    now = datetime(2027, 1, 5, 9, tzinfo=UTC) + late
    schedule = CronSchedule(Cron("0 9 * * *"), nowfun=lambda: now, app=Celery(set_as_current=False))

    assert schedule.is_due(now - timedelta(days=3)).is_due is due


def test_apscheduler_makes_up_the_latest_missed_slot_only():
    """Its clock was away for three slots: the job, as APScheduler's own run loop sees it then."""
    called: queue.Queue[datetime] = queue.Queue()
    kept = scheduler("apscheduler")
    kept.every("job", OFTEN, called.put)
    kept.start()
    clock = kept._clock  # type: ignore[attr-defined]  # only its own pause is a sleep of the machine
    first = called.get(timeout=PATIENCE)
    clock.pause()
    resumed = OFTEN.before(datetime.now(UTC)) + timedelta(seconds=1)
    while not called.empty():
        first = called.get()
    while datetime.now(UTC) < resumed:
        time.sleep(0.02)
    clock.resume()
    slot = called.get(timeout=PATIENCE)
    kept.stop()

    assert slot >= resumed > first + timedelta(seconds=0.4)


def test_a_beat_schedule_survives_the_file_in_which_celery_keeps_it():
    app = Celery(set_as_current=False)
    kept = scheduler("celery", app=app)
    kept.every("job", "0 9 * * 1", print, timezone="Europe/Berlin")
    entry = app.conf.beat_schedule["job"]

    schedule, (told,) = pickle.loads(pickle.dumps((entry["schedule"], entry["args"])))

    assert schedule == entry["schedule"]
    assert Cron("0 9 * * 1", "Europe/Berlin").before(datetime.now(UTC)).isoformat() == told()
    assert entry["task"] in app.tasks
