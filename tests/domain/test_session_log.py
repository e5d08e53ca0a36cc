"""The sessions' logs on disk: whole lines in order, after any crash, within their bound, and never by two writers."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from openvibe.events import Event as Fact
from operators.models import Event, Node, Operator, Project, Run, Workflow
from operators.services import session_logging, timeline
from operators.services.session_log import PARTS, SessionLog
from operators.services.session_logging import Keeper

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1024 * 1024
ROOT = Path(__file__).resolve().parents[2]


def record(seq: int, text: str = "") -> dict[str, Any]:
    return {"seq": seq, "timestamp": JANUARY + timedelta(minutes=seq), "type": "event.note", "payload": text}


def numbers(log: SessionLog, **asked: Any) -> list[int]:
    return [item["seq"] for item in log.read(**{"limit": 100_000, **asked})]


@pytest.fixture
def log(tmp_path: Path) -> SessionLog:
    return SessionLog(tmp_path / "default" / "run_1.jsonl", MIB)


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_log_that_is_not_there_is_empty(log: SessionLog) -> None:
    assert (log.last(), log.read()) == (0, [])


def test_what_is_written_is_read_in_order_and_behind_a_number_or_a_time(log: SessionLog) -> None:
    log.append([record(seq) for seq in (1, 2, 3)])
    log.append([record(4)])
    assert (numbers(log), log.last()) == ([1, 2, 3, 4], 4)
    assert numbers(log, after=2) == [3, 4]
    assert numbers(log, since=JANUARY + timedelta(minutes=3)) == [4]
    assert numbers(log, limit=2) == [1, 2]


@pytest.mark.parametrize("torn", [b"", b'{"seq": 3', b'{"seq": 3, "payload": "' + b"x" * 200_000])
def test_a_line_that_a_crash_left_unfinished_is_cut_off_and_written_again(log: SessionLog, torn: bytes) -> None:
    log.append([record(1), record(2)])
    with log.path.open("ab") as file:
        file.write(torn)
    assert numbers(log) == [1, 2]
    assert log.last() == 2
    log.append([record(3)])
    assert numbers(log) == [1, 2, 3]
    assert all(orjson.loads(line) for line in log.path.read_bytes().splitlines())


def test_a_file_with_nothing_but_an_unfinished_line_is_begun_anew(log: SessionLog) -> None:
    log.path.parent.mkdir(parents=True)
    log.path.write_bytes(b'{"seq": 1')
    assert log.last() == 0
    log.append([record(1)])
    assert numbers(log) == [1]


def test_a_long_log_is_rotated_and_loses_its_oldest_part_only(tmp_path: Path) -> None:
    log = SessionLog(tmp_path / "run_1.jsonl", 40_000)
    for seq in range(1, 501):
        log.append([record(seq, "x" * 400)])
    kept = numbers(log)
    assert kept == list(range(kept[0], 501))
    assert len(list(tmp_path.iterdir())) == PARTS
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 40_000 + PARTS * 1000
    assert kept[0] > 1
    assert log.last() == 500


def test_a_batch_that_is_larger_than_a_part_is_parted(tmp_path: Path) -> None:
    log = SessionLog(tmp_path / "run_1.jsonl", 400_000)
    log.append([record(seq, "x" * 1000) for seq in range(1, 301)])
    assert numbers(log) == list(range(1, 301))
    assert all(path.stat().st_size <= 101_200 for path in tmp_path.iterdir())


def test_a_crash_right_after_a_rotation_loses_no_place(tmp_path: Path) -> None:
    log = SessionLog(tmp_path / "run_1.jsonl", MIB)
    log.append([record(1), record(2)])
    log.path.replace(tmp_path / "run_1.jsonl.1")
    assert log.last() == 2
    log.append([record(3)])
    assert numbers(log) == [1, 2, 3]


WRITER = """
import sys
from pathlib import Path
from operators.services.session_log import SessionLog

log = SessionLog(Path(sys.argv[1]), 1 << 30)
seq = log.last()
while True:
    log.append([{"seq": seq + step, "payload": "y" * 3000} for step in range(1, 20)])
    seq += 19
"""


def test_a_writer_that_is_killed_again_and_again_leaves_no_hole_and_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "run_1.jsonl"
    log = SessionLog(path, 1 << 30)
    for _ in range(3):
        before = path.stat().st_size if path.exists() else 0
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=ROOT)
        deadline = time.monotonic() + 60
        while not path.exists() or path.stat().st_size <= before:
            assert time.monotonic() < deadline, "the writer did not write"
        writer.kill()
        writer.wait(20)
    log.last()
    found = numbers(log)
    assert found == list(range(1, len(found) + 1))


# ── from the database to the file ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def session(project: Project) -> Run:
    operator = Operator.objects.create(project=project, slug="lab", name="Lab")
    workflow = Workflow.objects.create(operator=operator, slug="mend", name="Mend")
    Node.objects.create(workflow=workflow, slug="work", kind="remote", position=0)
    return Run.objects.create(
        id="run_1", project=project, operator=operator, workflow=workflow, status=Run.Status.WAITING,
        created_at=datetime.now(UTC), updated_at=datetime.now(UTC),
    )  # fmt: skip


@pytest.fixture
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, session_log=tmp_path / "logs")
    return tmp_path / "logs"


def written(run: Run) -> list[int]:
    log = session_logging.of(run)
    assert log is not None
    return numbers(log)


@pytest.mark.django_db(transaction=True)
def test_what_happens_in_a_session_is_written_behind_what_was_written(session: Run, folder: Path) -> None:
    keeper = Keeper(folder)
    timeline.note(session.id, Fact("log", data={"message": "one"}))
    keeper.look()
    keeper.look()
    assert written(session) == [1]
    timeline.note(session.id, Fact("log", data={"message": "two"}))
    keeper.look()
    assert written(session) == [1, 2]
    keeper.close()


@pytest.mark.django_db(transaction=True)
def test_a_new_keeper_goes_on_where_the_file_ends_and_writes_again_what_is_lost(session: Run, folder: Path) -> None:
    for _ in range(3):
        timeline.note(session.id, Fact("log", data={"message": "x"}))
    first = Keeper(folder)
    first.look()
    first.close()
    timeline.note(session.id, Fact("log", data={"message": "x"}))
    second = Keeper(folder)
    second.look()
    assert written(session) == [1, 2, 3, 4]
    log = session_logging.of(session)
    assert log is not None
    log.path.unlink()
    second.close()
    third = Keeper(folder)
    third.look()
    third.close()
    assert written(session) == [1, 2, 3, 4]


@pytest.mark.django_db(transaction=True)
def test_of_two_keepers_of_one_folder_one_writes_and_the_other_takes_over(session: Run, folder: Path) -> None:
    one, two = Keeper(folder), Keeper(folder)
    one.look()
    timeline.note(session.id, Fact("log", data={"message": "x"}))
    two.look()
    assert written(session) == []
    one.close()
    two.look()
    assert written(session) == [1]
    two.close()


@pytest.mark.django_db(transaction=True)
def test_a_run_that_hands_nobody_any_work_has_no_log(session: Run, folder: Path) -> None:
    Node.objects.all().delete()
    timeline.note(session.id, Fact("log", data={"message": "x"}))
    keeper = Keeper(folder)
    keeper.look()
    keeper.close()
    assert not list(folder.glob("*/*"))


@pytest.mark.django_db(transaction=True)
def test_a_log_that_cannot_be_written_holds_up_no_other(session: Run, folder: Path) -> None:
    other = Run.objects.create(
        id="run_2", project=session.project, operator=session.operator, workflow=session.workflow,
        created_at=datetime.now(UTC), updated_at=datetime.now(UTC),
    )  # fmt: skip
    for run in (session, other):
        timeline.note(run.id, Fact("log", data={"message": "x"}))
    blocked = folder / "default" / "run_1.jsonl"
    blocked.mkdir(parents=True)
    keeper = Keeper(folder)
    keeper.look()
    assert written(other) == [1]
    blocked.rmdir()
    timeline.note(session.id, Fact("log", data={"message": "x"}))
    keeper.look()
    keeper.close()
    assert written(session) == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_a_log_or_an_event_that_nobody_can_make_sense_of_holds_up_no_other(session: Run, folder: Path) -> None:
    others = [
        Run.objects.create(
            id=f"run_{number}", project=session.project, operator=session.operator, workflow=session.workflow,
            created_at=datetime.now(UTC), updated_at=datetime.now(UTC),
        )
        for number in (2, 3)
    ]  # fmt: skip
    for run in (session, *others):
        timeline.note(run.id, Fact("log", data={"message": "x"}))
    (folder / "default").mkdir(parents=True)
    (folder / "default" / "run_1.jsonl").write_bytes(b"{}\n")
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    Event.objects.filter(run_id="run_2").update(data={"message": deep})
    keeper = Keeper(folder)
    keeper.look()
    keeper.close()
    assert written(others[1]) == [1]


@pytest.mark.django_db(transaction=True)
def test_only_new_events_are_looked_at(session: Run, folder: Path, django_assert_num_queries: Any) -> None:
    timeline.note(session.id, Fact("log", data={"message": "x"}))
    keeper = Keeper(folder)
    keeper.look()
    with django_assert_num_queries(3):
        keeper.look()
    Node.objects.all().delete()
    with django_assert_num_queries(1):
        keeper.look()
    keeper.close()


@pytest.mark.django_db(transaction=True)
def test_old_logs_are_forgotten(session: Run, folder: Path) -> None:
    timeline.note(session.id, Fact("log", data={"message": "x"}))
    old = folder / "default" / "run_0.jsonl.1"
    old.parent.mkdir(parents=True)
    old.write_text("{}\n")
    os.utime(old, (0, 0))
    keeper = Keeper(folder)
    keeper.look()
    keeper.close()
    assert not old.exists()
    assert written(session) == [1]


@pytest.mark.django_db(transaction=True)
def test_the_thread_that_keeps_the_logs_ends_when_it_is_told_to(session: Run, folder: Path) -> None:
    timeline.note(session.id, Fact("log", data={"message": "x"}))
    ended = threading.Event()
    keeping = threading.Thread(target=session_logging.write_until, args=(ended,))
    keeping.start()
    deadline = time.monotonic() + 30
    while not written(session):
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.05)
    ended.set()
    keeping.join(30)
    assert not keeping.is_alive()
