from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import celery
import pytest
from celery import current_app
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from openvibe.bus.memory import MemoryBus
from openvibe.errors import BusError
from openvibe.protocol import streams
from operators import clock
from operators.link import link
from operators.models import Channel, Event, Run, Server, Wait
from operators.services import announcements, intake, leases
from tests.domain.lab import kinds, played, rung, started, thread

LONG_AGO = timedelta(minutes=5)


def test_a_run_whose_worker_died_is_queued_again_and_ends(lab):
    run = started(lab, "four")
    leases.take(run.id)
    Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))

    clock.tick()

    run.refresh_from_db()
    assert (run.status, run.lease_until) == ("queued", None)
    assert kinds(run)[-1] == "run.lost"
    assert played(run).status == "completed"


def test_a_run_that_cannot_be_queued_again_holds_up_no_other(lab):
    broken, other = started(lab, "four"), started(lab, "four")
    for pause, run in enumerate((other, broken), start=1):
        leases.take(run.id)
        Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=pause))
    taken = {"seq": 3, "kind": "agent.message", "run": broken, "created_at": timezone.now()}
    Event.objects.create(project_id="default", channel=f"t_{broken.id}", **taken)

    clock.tick()

    assert Run.objects.get(pk=broken.pk).status == "running"
    assert Run.objects.get(pk=other.pk).status == "queued"


def test_a_run_whose_worker_lives_is_left_alone(lab):
    run = started(lab, "four")
    leases.take(run.id)

    clock.tick()

    assert Run.objects.get(pk=run.pk).status == "running"


def test_a_bell_that_nobody_heard_is_rung_again_with_growing_pauses(lab):
    run = started(lab, "four")

    heard = []
    for waited in (1, 3, 3, 5, 5, 9):
        rung()
        Run.objects.filter(pk=run.pk).update(rung_at=timezone.now() - timedelta(seconds=waited))
        clock.tick()
        heard.append(len(rung()))

    # Pauses of 2, 4, 4 and 8 seconds: too early, rung, too early, rung, too early, rung.
    assert heard == [0, 1, 0, 1, 0, 1]
    assert Run.objects.get(pk=run.pk).rings == 3


@pytest.mark.django_db(transaction=True)
def test_bells_that_still_hang_are_not_rung_again(lab):
    rung()
    runs = [started(lab, "four") for _ in range(3)]
    Run.objects.filter(pk__in=[run.pk for run in runs]).update(rung_at=timezone.now() - LONG_AGO)

    clock.tick()

    assert rung() == [run.id for run in runs]
    assert not Run.objects.exclude(rings=0).exists()


@pytest.mark.django_db(transaction=True)
def test_of_many_bells_those_that_were_rung_first_are_the_ones_that_were_lost(lab):
    rung()
    lost = [started(lab, "four") for _ in range(3)]
    rung()
    hanging = [started(lab, "four") for _ in range(2)]
    for age, run in enumerate([*reversed(hanging), *reversed(lost)]):
        Run.objects.filter(pk=run.pk).update(rung_at=timezone.now() - LONG_AGO - timedelta(seconds=age))

    clock.tick()

    assert sorted(rung()) == sorted(run.id for run in [*hanging, *lost])


def test_a_part_of_the_clocks_work_that_cannot_be_done_holds_no_other_up(lab):
    run = played(started(lab, "nap"))
    Wait.objects.filter(run=run).update(deadline=timezone.now() - timedelta(seconds=1))
    unheard = started(lab, "four")
    Run.objects.filter(pk=unheard.pk).update(rung_at=timezone.now() - LONG_AGO)
    before = current_app._get_current_object()

    # Nobody expects what this broker answers when it is asked how many bells hang.
    celery.Celery("lost", broker="nowhere://", set_as_current=False).set_current()
    try:
        clock.tick()
    finally:
        before.set_current()

    assert Run.objects.get(pk=unheard.pk).rings == 0
    assert Run.objects.get(pk=run.pk).status == "queued"


def test_a_run_handed_back_without_a_ring_is_rung_at_once(lab):
    run = started(lab, "four")
    Run.objects.filter(pk=run.pk).update(rung_at=None)

    clock.tick()

    assert Run.objects.get(pk=run.pk).rung_at is not None


def test_an_answer_is_brought_although_many_others_wait_for_long(lab):
    asker, answerer = played(started(lab, "nap")), played(started(lab, "four"))
    Wait.objects.filter(run=asker).delete()
    asked = {"kind": "reply", "node": "ask", "step_id": "ask", "payload_sha256": "0" * 64, "prompt": "?"}
    for number in range(clock.MOST + 1):
        opened_at = timezone.now() - LONG_AGO + timedelta(seconds=number / 1000)
        Wait.objects.create(
            id=f"wait_{number}", run=asker, interrupt_id=str(number), opened_at=opened_at, sent_at=opened_at, **asked
        )  # fmt: skip
    Run.objects.filter(pk=answerer.pk).update(
        key=f"reply:wait_{clock.MOST}", ended_at=timezone.now() - timedelta(minutes=1)
    )

    clock.tick()

    assert Wait.objects.get(pk=f"wait_{clock.MOST}").status == "resolved"


def test_a_deadline_in_the_future_does_not_fire(gate):
    clock.tick()

    assert Wait.objects.get(pk=gate.pk).pending


@pytest.mark.django_db(transaction=True)
def test_a_deadline_fires_once_although_two_clocks_tick(gate):
    Wait.objects.filter(pk=gate.pk).update(deadline=timezone.now() - timedelta(seconds=1))
    ready = threading.Barrier(2)

    def tick(_):
        try:
            ready.wait()
            clock.tick()
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(tick, range(2)))

    assert kinds(gate.run).count("gate.expired") == 1
    assert Run.objects.get(pk=gate.run_id).status == "queued"


@pytest.mark.django_db(transaction=True)
def test_what_the_bus_did_not_take_is_announced_later(lab):
    run = played(started(lab, "four"))
    assert announcements.settle(20)
    assert Run.objects.get(pk=run.pk).announced_seq == 0
    heard = _bus()
    Run.objects.filter(pk=run.pk).update(updated_at=timezone.now() - LONG_AGO)

    clock.tick()

    assert announcements.settle(20)
    assert any(subject.endswith(f"t_{run.id}.evt.sys.timeline.recorded") for subject in heard)
    assert _soon(lambda: Run.objects.get(pk=run.pk).announced_seq == run.last_seq)
    assert set(Event.objects.filter(channel="public").values_list("kind", flat=True)) == {
        "run.started", "run.completed",
    }  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_what_follows_a_gap_does_not_count_as_announced_before_the_gap_is(lab):
    run = played(started(lab, "four"))
    assert announcements.settle(20)
    _bus()
    events = list(Event.objects.filter(channel=f"t_{run.id}").order_by("seq"))

    # Another process recorded the third event and died before it told anybody.
    announcements.tell([*events[:2], *events[3:]])

    assert _soon(lambda: Run.objects.get(pk=run.pk).announced_seq == 2)
    announcements.tell(events[2:])
    assert _soon(lambda: Run.objects.get(pk=run.pk).announced_seq == run.last_seq)


@pytest.mark.django_db(transaction=True)
def test_a_gap_in_a_general_channel_that_another_process_fills_holds_up_what_follows(lab):
    for _ in range(3):
        played(started(lab, "four"))
    assert announcements.settle(20)
    _bus()
    events = list(Event.objects.filter(channel="public").order_by("seq"))
    told = Channel.objects.filter(name="public").values_list("announced_seq", flat=True)

    announcements.tell([*events[:2], *events[3:]])
    assert _soon(lambda: told.get() == 2)
    announcements.tell(events[2:3])

    assert _soon(lambda: told.get() == len(events) == 6)


def _bus() -> list[str]:
    """Let the process send over a bus that keeps everything; return the subjects that it is told of."""
    heard: list[str] = []

    async def hear(message):
        heard.append(message.subject)

    async def made():
        bus = MemoryBus()
        await bus.connect()
        await bus.ensure(streams.STREAMS)
        await bus.subscribe("cg.>", hear)
        return bus

    link.use(asyncio.run(made()))
    return heard


def _soon(happened) -> bool:
    deadline = time.monotonic() + 5
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Mute(MemoryBus):
    """A bus that lets whoever sends to a session wait, and then takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = 0

    async def store(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        if subject.startswith("sessions."):
            self.tried += 1
            await asyncio.sleep(clock.LONGEST_SLEEP * 1.1)
        raise BusError("nothing is taken")


def test_a_bus_that_keeps_the_clock_waiting_is_asked_once_a_look(registered):
    workflow = registered["revenue_ops"].workflows.get(slug="engagement")
    for _ in range(3):
        played(intake.request(workflow, input=workflow.sample_input, actor=None))
    Wait.objects.update(opened_at=timezone.now() - timedelta(minutes=1))
    bus = Mute()
    link.submit(bus.connect()).result(5)
    link.use(bus)
    clock.tick()
    assert bus.tried == 1
    assert Wait.objects.filter(sent_at=None).count() == 3


def test_a_question_is_asked_however_many_wait_for_a_server_that_is_away(lab):
    bus = MemoryBus()
    link.submit(bus.connect()).result(5)
    link.use(bus)
    asker = played(started(lab, "nap"))
    Wait.objects.all().delete()
    # A server that was heard of a moment ago, and answers nothing now.
    now = timezone.now()
    offers = {"capabilities": {"far": ["price"]}, "operators": ["far"]}
    Server.objects.create(project_id="default", name="far", beat_at=now, heard_at=now, **offers)
    asked = {"run": asker, "kind": "reply", "node": "ask", "step_id": "ask", "payload_sha256": "0" * 64, "prompt": "?"}
    for number in range(clock.MOST + 1):
        # The last one nobody offers, which is an answer.
        payload = {"operator": "far", "capability": "price" if number < clock.MOST else "fame", "payload": {}}
        opened_at = now - LONG_AGO + timedelta(seconds=number / 1000)
        Wait.objects.create(
            id=f"wait_{number}", interrupt_id=str(number), opened_at=opened_at, payload=payload, **asked
        )  # fmt: skip

    clock.tick()
    clock.tick()

    assert Wait.objects.get(pk=f"wait_{clock.MOST}").status == "resolved"
    assert Wait.objects.pending().filter(sent_at=None).count() == clock.MOST


def test_timers_that_are_due_fire_together_each_once(napping):
    runs = [napping() for _ in range(5)]
    early = napping()
    _due(*runs)

    with CaptureQueriesContext(connection) as one:
        clock.meet_deadlines()

    assert {Run.objects.get(pk=run.pk).status for run in runs} == {"queued"}
    assert Run.objects.get(pk=early.pk).status == "waiting"
    assert all(kinds(run)[-1] == "timer.fired" for run in runs)
    _due(early)
    with CaptureQueriesContext(connection) as other:
        clock.meet_deadlines()
    assert len(one) == len(other)
    assert all(played(run).status == "completed" for run in [*runs, early])
    for run in [*runs, early]:
        assert list(thread(run).values_list("seq", flat=True)) == list(range(1, len(kinds(run)) + 1))
        assert kinds(run).count("timer.fired") == 1


@pytest.mark.django_db(transaction=True)
def test_several_clocks_fire_each_timer_once(napping):
    runs = [napping() for _ in range(12)]
    _due(*runs)

    def look() -> None:
        clock.meet_deadlines()
        connection.close()

    with ThreadPoolExecutor(4) as clocks:
        for future in [clocks.submit(look) for _ in range(12)]:
            future.result()
    assert [kinds(run).count("timer.fired") for run in runs] == [1] * len(runs)
    assert {Run.objects.get(pk=run.pk).status for run in runs} == {"queued"}


def test_a_timer_that_cannot_fire_holds_up_no_other(napping):
    broken, other = napping(), napping()
    _due(broken, other)
    taken = {"seq": broken.last_seq + 1, "kind": "agent.message", "run": broken, "created_at": timezone.now()}
    Event.objects.create(project_id="default", channel=f"t_{broken.id}", **taken)

    clock.tick()

    assert Run.objects.get(pk=broken.pk).status == "waiting"
    assert Run.objects.get(pk=other.pk).status == "queued"


def test_a_timer_of_a_cancelled_run_fires_no_more(napping, alice):
    run = napping()
    _due(run)
    intake.cancel(run, actor=alice)
    clock.tick()
    assert kinds(run)[-1] == "run.cancelled"


@pytest.fixture
def napping(lab):
    """Let a run sleep."""
    return lambda: played(started(lab, "nap"))


def _due(*runs: Run) -> None:
    Wait.objects.filter(run__in=runs).update(deadline=timezone.now() - timedelta(seconds=1))
