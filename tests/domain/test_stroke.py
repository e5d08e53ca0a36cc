"""One stroke: a run's row and what goes with it, all or nothing, whatever the database."""

from __future__ import annotations

import pytest
from django.db import DataError, IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from operators.models import Event, Run, Wait
from operators.models.checkpoint import CheckpointWrite
from operators.models.stroke import Change, Insert, Update, strike
from tests.domain.lab import started


@pytest.fixture
def run(lab) -> Run:
    return started(lab, "four")


def event(run: Run, kind: str, **data: object) -> Event:
    return Event(
        project_id=run.project_id, channel=f"t_{run.id}", kind=kind, run_id=run.id, data=data, created_at=timezone.now()
    )  # fmt: skip


def write(run: Run, idx: int, blob: bytes) -> CheckpointWrite:
    return CheckpointWrite(
        thread_id=run.id, checkpoint_id="c", task_id="t", idx=idx, channel="x", type="msgpack", blob=blob
    )  # fmt: skip


def change(run: Run, *inserts: Insert, updates=(), **where: object) -> Change:
    return Change(
        Run,
        where={"id": run.id, "status": Run.Status.QUEUED, **where},
        put={"updated_at": timezone.now(), "output": {"a": "it's % fine"}},
        add={"last_seq": sum(len(item.rows) for item in inserts if item.numbered), "running_seconds": 0.5},
        counter="last_seq",
        inserts=inserts,
        updates=updates,
    )


def test_the_row_changes_and_what_goes_with_it_is_written_and_numbered(run):
    told = [event(run, "one", text="it's 100%"), event(run, "two", nothing=None)]
    assert (
        strike(change(run, Insert(Event, told, numbered="seq"), Insert(CheckpointWrite, [write(run, 0, b"\x00'\\")])))
        == 3
    )
    assert [item.seq for item in told] == [2, 3]
    rows = Event.objects.filter(run=run).order_by("seq")
    assert [(row.seq, row.kind, row.data) for row in rows[1:]] == [
        (2, "one", {"text": "it's 100%"}),
        (3, "two", {"nothing": None}),
    ]
    assert bytes(CheckpointWrite.objects.get().blob) == b"\x00'\\"
    run.refresh_from_db()
    assert (run.last_seq, run.output, run.running_seconds) == (3, {"a": "it's % fine"}, 0.5)


def test_without_the_row_nothing_is_written(run):
    wait = Wait.objects.create(
        id="w", run=run, kind="timer", node="n", step_id="s", interrupt_id="i", payload_sha256="", prompt="",
        opened_at=timezone.now(),
    )  # fmt: skip
    closing = Update(Wait, {"run_id": run.id, "status": "pending"}, {"status": "cancelled"})
    assert strike(change(run, Insert(Event, [event(run, "late")], numbered="seq"), updates=[closing], epoch=7)) is None
    assert Event.objects.filter(kind="late").count() == 0
    wait.refresh_from_db()
    assert wait.status == "pending"
    assert strike(change(run, Insert(Event, [event(run, "on time")], numbered="seq"), updates=[closing])) == 2
    wait.refresh_from_db()
    assert wait.status == "cancelled"


@pytest.mark.parametrize(("on_conflict", "kept"), [("ignore", b"old"), ("replace", b"new")])
def test_a_row_that_is_there_is_kept_or_replaced(run, on_conflict, kept):
    strike(change(run, Insert(CheckpointWrite, [write(run, 0, b"old")])))
    strike(
        change(run, Insert(CheckpointWrite, [write(run, 0, b"new"), write(run, 1, b"other")], on_conflict=on_conflict))
    )
    assert [bytes(row.blob) for row in CheckpointWrite.objects.order_by("idx")] == [kept, b"other"]


def test_it_is_one_statement_where_the_database_takes_it_so(run):
    with CaptureQueriesContext(connection) as seen:
        strike(
            change(
                run, Insert(Event, [event(run, "one")], numbered="seq"), Insert(CheckpointWrite, [write(run, 0, b"x")])
            )
        )
    said = [query["sql"] for query in seen if not query["sql"].startswith(("SAVEPOINT", "RELEASE"))]
    assert len(said) == (1 if connection.vendor == "postgresql" else 3), said


def test_a_value_that_is_too_long_is_refused_and_never_cut(run):
    long = event(run, "k" * 81)
    if connection.vendor == "postgresql":
        with pytest.raises(DataError), transaction.atomic():
            strike(change(run, Insert(Event, [long], numbered="seq")))
    else:
        # SQLite knows no lengths.
        strike(change(run, Insert(Event, [long], numbered="seq")))
        assert Event.objects.get(seq=2).kind == "k" * 81


def test_what_fails_leaves_nothing_behind_in_the_callers_transaction(run):
    twice = [event(run, "one"), event(run, "two")]
    strike(change(run, Insert(Event, twice[:1], numbered="seq")))
    Event.objects.filter(run=run, seq=2).update(seq=3)
    with transaction.atomic():
        with pytest.raises(IntegrityError):
            strike(change(run, Insert(Event, twice, numbered="seq")))
        assert Run.objects.get(pk=run.pk).last_seq == 2
