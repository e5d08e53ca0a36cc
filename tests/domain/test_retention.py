# long: one rule about what is old, and every crash and race in which it must hold
"""Retention: what a project does not want to keep is archived once and deleted, and nothing else is touched."""

from __future__ import annotations

import threading
from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import orjson
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections
from django.utils import timezone

from openvibe.events import Event as Fact
from operators import clock
from operators.errors import NotForkable, NotRetryable
from operators.models import (
    Channel,
    Checkpoint,
    CheckpointWrite,
    Emission,
    Event,
    Project,
    Run,
    Subscription,
    Wait,
)
from operators.services import archive, forks, intake, retention, timeline, waits
from tests.domain.lab import played, started, thread

ARCHIVE = settings.OPENVIBE.home / "archive"


def keep(project: Project, *, events: int | None = None, checkpoints: int | None = None) -> None:
    Project.objects.filter(pk=project.pk).update(keep_events_days=events, keep_checkpoints_days=checkpoints)


def aged(run: Run, days: float) -> Run:
    """Let everything about a run have happened that many days ago."""
    run.refresh_from_db()
    then = timezone.now() - timedelta(days=days)
    told = {"announced_seq": run.last_seq, "told": True}
    Run.objects.filter(pk=run.pk).update(ended_at=then if run.ended_at else None, created_at=then, **told)
    Emission.objects.filter(run=run).update(delivered_at=then, published_at=then)
    Event.objects.filter(run=run).update(created_at=then)
    run.refresh_from_db()
    return run


def sweep() -> retention.Swept:
    return retention.sweep(timezone.now())


def lines(name: str = "????-??-??") -> list[dict]:
    files = sorted((ARCHIVE / "default").glob(f"{name}.jsonl"))
    return [orjson.loads(line) for file in files for line in file.read_bytes().splitlines()]


def test_an_old_run_is_archived_whole_and_only_its_row_stays(gate, bob, project):
    waits.answer(gate, waits.Answer("approve"), actor=bob)
    run = aged(played(gate.run), 31)
    seen = list(thread(run).values_list("seq", "kind"))
    keep(project, events=30)

    assert sweep().archived == 1

    [line] = lines(f"{run.ended_at:%Y-%m-%d}")
    assert line["key"] == line["run"]["id"] == run.id
    assert [(event["seq"], event["kind"]) for event in line["events"]] == seen
    assert [(wait["id"], wait["decision"]) for wait in line["waits"]] == [(gate.id, "approve")]
    assert line["effects"] == [] or line["effects"][0]["run_id"] == run.id
    assert not thread(run).exists()
    assert not run.waits.exists()
    run.refresh_from_db()
    assert (run.status, run.archived_at is None, run.announced_seq) == ("completed", False, run.last_seq)
    assert run.output


def test_effects_are_archived_too(lab, project):
    run = played(started(lab, "four"))
    run.effects.create(
        node="one", step_id="s", key="k", state="confirmed", result={"a": 1}, attempted_at=timezone.now()
    )
    aged(run, 31)
    keep(project, events=30)

    sweep()

    assert lines()[0]["effects"][0]["result"] == {"a": 1}
    assert not run.effects.exists()


def test_what_is_young_or_runs_or_belongs_to_a_project_that_keeps_all_is_left_alone(lab, gate, project):
    young, old, waiting = aged(played(started(lab, "four")), 29), played(started(lab, "four")), aged(gate.run, 400)
    assert sweep() == retention.Swept()

    aged(old, 31)
    keep(project, events=30, checkpoints=30)

    assert sweep() == retention.Swept(archived=1, pruned=1)
    for run in (young, waiting):
        assert thread(run).exists()
        assert Checkpoint.objects.filter(thread_id=run.id).exists()
    assert Run.objects.get(pk=waiting.pk).status == "waiting"
    assert sweep() == retention.Swept()


def test_checkpoints_go_by_their_own_days(lab, project, alice):
    run = aged(played(started(lab, "four")), 8)
    step = thread(run).get(kind="step.started", node="one").step_id
    keep(project, events=30, checkpoints=7)

    assert sweep() == retention.Swept(pruned=1)

    assert not Checkpoint.objects.filter(thread_id=run.id).exists()
    assert not CheckpointWrite.objects.filter(thread_id=run.id).exists()
    assert thread(run).exists()
    run.refresh_from_db()
    with pytest.raises(NotForkable, match="no longer kept"):
        forks.fork(run, step_id=step, actor=alice)


@pytest.mark.parametrize("days", [{"events": 30}, {"checkpoints": 30}])
def test_a_failed_run_that_was_swept_cannot_be_retried(lab, project, alice, while_playing, days):
    while_playing(lambda: 1 / 0)
    run = aged(played(started(lab, "meddled")), 31)
    keep(project, **days)
    sweep()

    with pytest.raises(NotRetryable, match="archived"):
        intake.retry(run, actor=alice)


def test_a_crash_between_writing_and_deleting_leaves_nothing_twice(lab, project):
    runs = [aged(played(started(lab, "four")), 31) for _ in range(3)]
    keep(project, events=30)
    # The archive was written, and the process died before its transaction was committed.
    archive.add_runs("default", runs[:2])
    [file] = (ARCHIVE / "default").glob("*.jsonl")

    assert sweep().archived == 3

    assert sorted(line["key"] for line in lines()) == sorted(run.id for run in runs)
    assert len(file.read_bytes().splitlines()) == 3


def test_what_is_noted_after_a_crash_between_writing_and_deleting_is_archived_too(lab, project):
    run, other = (aged(played(started(lab, "four")), 31) for _ in range(2))
    keep(project, events=30)
    archive.add_runs("default", [run, other])
    timeline.note(run.id, Fact("answer.refused", data={"reason": "too late"}))
    aged(run, 31)

    assert sweep().archived == 2

    archived = {line["key"]: line["events"] for line in lines()}
    assert [event["kind"] for event in archived[run.id]][-2:] == ["run.completed", "answer.refused"]
    assert [line["key"] for line in lines()] == [run.id, other.id, run.id]
    assert not thread(run).exists()


def test_a_line_that_a_crash_has_cut_is_written_anew(lab, project):
    run = aged(played(started(lab, "four")), 31)
    keep(project, events=30)
    archive.add_runs("default", [run])
    [file] = (ARCHIVE / "default").glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-20])

    sweep()

    [line] = lines()
    assert len(line["events"]) == run.last_seq


def test_more_runs_than_one_batch_go_in_several_transactions(lab, project):
    many = retention.RUNS + 1
    for _ in range(many):
        aged(played(started(lab, "four")), 31)
    keep(project, events=30)

    assert sweep().archived == many
    assert len({line["key"] for line in lines()}) == len(lines()) == many


def test_a_run_stays_until_the_bus_has_taken_all_of_its_events(lab, project):
    run = aged(played(started(lab, "four")), 31)
    Run.objects.filter(pk=run.pk).update(announced_seq=run.last_seq - 1, told=False)
    keep(project, events=30)

    assert sweep() == retention.Swept()
    assert thread(run).count() == run.last_seq

    Run.objects.filter(pk=run.pk).update(announced_seq=run.last_seq)
    assert sweep().archived == 1


@pytest.mark.parametrize("missing", ["delivered_at", "published_at"])
def test_a_run_stays_until_what_it_has_emitted_is_everywhere(lab, project, missing):
    run = played(started(lab, "four"))
    emission = Emission.objects.create(
        id="emission_1", project=project, run=run, name="lab.done", emitted_at=timezone.now()
    )
    aged(run, 31)
    Emission.objects.update(**{missing: None})
    keep(project, events=30)

    assert sweep() == retention.Swept()
    assert Emission.objects.get() == emission

    Emission.objects.update(**{missing: timezone.now()})
    assert sweep().archived == 1


def test_a_run_stays_until_its_tools_know_that_nobody_waits(lab, project):
    run = played(started(lab, "nap"))
    Wait.objects.update(kind="tool", status="cancelled", sent_at=timezone.now(), closed_at=timezone.now())
    Run.objects.update(status="cancelled", ended_at=timezone.now())
    aged(run, 31)
    keep(project, events=30)
    assert sweep() == retention.Swept()

    Wait.objects.update(recalled_at=timezone.now())

    assert sweep().archived == 1


def test_checkpoints_are_written_to_the_archive_before_they_go(lab, project):
    run = aged(played(started(lab, "four")), 8)
    seen = [(row.checkpoint_id, bytes(row.blob)) for row in Checkpoint.objects.filter(thread_id=run.id).order_by("pk")]
    written = CheckpointWrite.objects.filter(thread_id=run.id).count()
    keep(project, checkpoints=7)

    assert sweep().pruned == 1

    [file] = ARCHIVE.glob(f"default/checkpoints-{run.ended_at:%Y-%m-%d}/*")
    assert (file.name, file.stat().st_mode & 0o077) == (f"{run.id}.jsonl", 0)
    told = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    kept = [line["checkpoint"] for line in told if "checkpoint" in line]
    assert [(row["checkpoint_id"], b64decode(row["blob"])) for row in kept] == seen
    assert (len([line for line in told if "write" in line]), written > 0) == (written, True)


def test_checkpoints_that_cannot_be_archived_stay(lab, project):
    run = aged(played(started(lab, "four")), 8)
    keep(project, checkpoints=7)
    ARCHIVE.mkdir(parents=True)
    (ARCHIVE / "default").write_text("no folder")
    try:
        with pytest.raises(OSError, match="default"):
            sweep()
    finally:
        (ARCHIVE / "default").unlink()

    assert Checkpoint.objects.filter(thread_id=run.id).exists()
    assert sweep().pruned == 1


def test_a_crash_after_the_checkpoints_were_written_leaves_one_file(lab, project):
    run = aged(played(started(lab, "four")), 8)
    archive.add_checkpoints("default", [run])
    keep(project, checkpoints=7)

    assert sweep().pruned == 1

    assert len(list(ARCHIVE.rglob("*.*"))) == 1


@pytest.mark.parametrize(("announced", "looked_at", "gone"), [(1, 5, 1), (5, 1, 1), (5, 5, 2), (0, 5, 0)])
def test_the_general_channel_keeps_what_the_bus_or_a_subscription_has_not_heard(
    lab, project, announced, looked_at, gone
):
    for seq, days in enumerate((40, 35, 1), start=1):
        then = timezone.now() - timedelta(days=days)
        Event.objects.create(project=project, channel="public", seq=seq, kind="agent.message", created_at=then)
    Channel.objects.create(project=project, name="public", last_seq=3, announced_seq=announced)
    Subscription.objects.create(id="sub", project=project, url="https://a", cursor=looked_at, created_at=timezone.now())
    keep(project, events=30)

    assert sweep().public == gone


def test_the_general_channel_loses_its_oldest_events_only(lab, project):
    now = timezone.now()
    Channel.objects.create(project=project, name="public", last_seq=5, announced_seq=5)
    for seq, days in enumerate((40, 35, 10, 38, 1), start=1):
        then = now - timedelta(days=days)
        Event.objects.create(project=project, channel="public", seq=seq, kind="agent.message", created_at=then)
    keep(project, events=30)

    assert sweep().public == 2

    # One from the middle stays, however old it is: the channel's numbers have no holes.
    assert list(Event.objects.filter(channel="public").values_list("seq", flat=True)) == [3, 4, 5]
    assert [line["event"]["seq"] for line in lines("public-*")] == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_two_sweepers_at_once_archive_each_run_once(lab, project):
    many = 2 * retention.RUNS
    for _ in range(many):
        aged(played(started(lab, "four")), 31)
    keep(project, events=30)
    ready = threading.Barrier(2)

    def act(_):
        try:
            ready.wait()
            return sweep().archived
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        archived = list(pool.map(act, range(2)))

    assert sum(archived) == many
    assert len({line["key"] for line in lines()}) == len(lines()) == many


@pytest.mark.django_db(transaction=True)
def test_a_retry_and_a_sweep_at_once_leave_a_run_that_is_whole_or_swept(lab, project, alice, while_playing):
    while_playing(lambda: 1 / 0)
    run = aged(played(started(lab, "meddled")), 31)
    keep(project, events=30)
    ready = threading.Barrier(2)

    def retry():
        try:
            ready.wait()
            return bool(intake.retry(run, actor=alice))
        except NotRetryable:
            return False
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        retrying = pool.submit(retry)
        ready.wait()
        archived = sweep().archived
        retried = retrying.result(20)

    assert retried != bool(archived)
    assert thread(run).exists() == retried


def test_a_run_whose_archiving_fails_loses_nothing(lab, project):
    run = aged(played(started(lab, "four")), 31)
    keep(project, events=30)
    ARCHIVE.mkdir(exist_ok=True)
    folder = ARCHIVE / "default"
    for file in folder.glob("*"):
        file.unlink()
    if folder.exists():
        folder.rmdir()
    folder.write_text("no folder")
    try:
        with pytest.raises(OSError, match="default"):
            sweep()
    finally:
        folder.unlink()

    assert thread(run).count() == run.last_seq
    run.refresh_from_db()
    assert run.archived_at is None


def test_the_command_sweeps_and_says_how_much(lab, project, capsys):
    aged(played(started(lab, "four")), 31)
    keep(project, events=30, checkpoints=30)

    call_command("retention")

    assert capsys.readouterr().out == "archived 1 runs and 0 general events, pruned 1 runs\n"


@pytest.mark.django_db(transaction=True)
def test_the_clock_sweeps_on_a_thread_of_its_own(lab, project):
    run = aged(played(started(lab, "four")), 31)
    keep(project, events=30)
    _tick_until(lambda: Run.objects.get(pk=run.pk).archived_at is not None)
    assert not [thread for thread in threading.enumerate() if thread.name == "retention"]


@pytest.mark.django_db(transaction=True)
def test_the_clock_lets_be_asked_again_what_the_bus_has_forgotten(gate):
    long_ago = timezone.now() - timedelta(days=8)
    Wait.objects.filter(pk=gate.pk).update(sent_at=long_ago)
    _tick_until(lambda: Wait.objects.get(pk=gate.pk).sent_at != long_ago)


def _tick_until(done: Callable[[], bool]) -> None:
    ended = threading.Event()
    ticking = threading.Thread(target=_ticking, args=(ended,))
    ticking.start()
    try:
        deadline = timezone.now() + timedelta(seconds=20)
        while not done():
            assert timezone.now() < deadline
            ended.wait(0.02)
    finally:
        ended.set()
        ticking.join(10)


def _ticking(ended: threading.Event) -> None:
    try:
        clock.run_until(ended)
    finally:
        connections.close_all()
