"""What a runtime keeps: in SQLite, across processes, and never without the claim."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path

import pytest
from langgraph.checkpoint.conformance import validate
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer

from openvibe import (
    OperatorRuntime,
    SetupError,
    workflow,
)
from openvibe.graph.rows import CheckpointRow, WriteRow
from openvibe.graph.saver import RowSaver
from openvibe.graph.sqlite import Database, SqliteRows
from openvibe.ledger import Ledger, Overtaken
from tests.contracts.conformance import CAPABILITIES
from tests.unit.desks import Ask, Write, desk, timed

ROOT = Path(__file__).resolve().parents[2]
DAY = timedelta(days=1)


@pytest.mark.parametrize("collect", [False, True], ids=["direct", "collecting"])
def test_langgraphs_conformance_suite_passes_on_sqlite(collect, tmp_path):
    async def savers():
        database = Database(str(tmp_path / "rows.db"))
        saver = RowSaver(SqliteRows(database), collect=collect)
        yield saver
        database.close()

    def outcome():
        return asyncio.run(validate(RegisteredCheckpointer(name="sqlite", factory=savers))).to_dict()["results"]

    report = outcome()
    assert [failure for name in CAPABILITIES for failure in report[name]["failures"]] == []
    assert [name for name in CAPABILITIES if not report[name]["passed"]] == []


def test_rows_read_back_as_they_were_saved():
    rows = SqliteRows(Database())
    checkpoint = CheckpointRow("t", "", "1", "", "r", "msgpack", b"\0\xff", "{}")
    kept, special = (WriteRow("t", "", "1", "task", "", idx, "c", "msgpack", b"first") for idx in (0, -1))
    late, replacing = (WriteRow("t", "", "1", "task", "", idx, "c", "msgpack", b"second") for idx in (0, -1))
    rows.save([checkpoint], [kept, special])
    rows.save([checkpoint], [late, replacing])
    assert rows.checkpoints(threads=["t"]) == [checkpoint]
    assert rows.writes([checkpoint.key]) == [replacing, kept]
    rows.delete([checkpoint.key])
    assert (rows.checkpoints(), rows.writes([checkpoint.key])) == ([], [])


def test_a_run_goes_on_in_another_runtime_on_the_same_file(tmp_path):
    place = f"sqlite:///{tmp_path}/runs.db"
    with OperatorRuntime(checkpointer=place) as first:
        first.register(desk(Ask))
        run = first.activate("desk", "ask")
    with OperatorRuntime(checkpointer=place) as second:
        second.register(desk(Ask))
        assert second.runs() == [run]
        ended = second.resume(run.id, "approve", values={"letter": "Dear Ada"})
    assert ended.output["letter"] == "Dear Ada, sent"
    assert ended.metrics.nodes_executed == 3


PROGRAM = """
    import sys
    from openvibe import OperatorRuntime, human_in_the_loop, node, operator, workflow

    @operator(id="desk")
    class Desk:
        letter: str = ""

        @workflow(id="ask")
        class Ask:
            @node
            def draft(self, state):
                print("draft", flush=True)
                return {"letter": "Dear all"}

            @node
            def slow(self, state):
                print("slow", flush=True)
                if sys.argv[2] == "die":
                    import time
                    time.sleep(60)

            @human_in_the_loop(prompt="Send it?")
            def review(self, state):
                return {}

    with OperatorRuntime(checkpointer=f"sqlite:///{sys.argv[1]}") as runtime:
        runtime.register(Desk)
        if sys.argv[2] in ("start", "die"):
            print(runtime.activate("desk", "ask").id)
        elif sys.argv[2] == "recover":
            print(*(run.status for run in runtime.recover()))
        else:
            [run] = runtime.runs()
            print(runtime.resume(run.id, "approve").status)
"""


@pytest.fixture
def program(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(word):
        command = [sys.executable, str(script), str(tmp_path / "runs.db"), word]
        return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)

    def run(word):
        with start(word) as process:
            said, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return said.split()

    run.start = start
    return run


def test_a_second_process_decides_for_a_run_of_the_first(program):
    *steps, _ = program("start")
    assert steps == ["draft", "slow"]
    assert program("resume") == ["completed"]


def test_a_second_process_goes_on_where_a_killed_one_stopped(program):
    with program.start("die") as process:
        assert [process.stdout.readline().strip() for _ in range(2)] == ["draft", "slow"]
        process.send_signal(signal.SIGKILL)
    assert program("recover") == ["slow", "waiting"]
    assert program("resume") == ["completed"]


def test_the_checkpoints_of_an_unchecked_workflow_are_not_kept(tmp_path):
    @workflow(id="write", checkpointed=False)
    class Quick:
        step = Write.draft
        also = Write.draft

    ledger = Ledger(str(tmp_path / "runs.db"))
    with OperatorRuntime(checkpointer=ledger) as runtime:
        runtime.register(desk(Quick))
        assert runtime.activate("desk", "write").status == "completed"
        assert ledger.rows.checkpoints() == []


def test_a_commit_without_the_claim_keeps_nothing():
    with OperatorRuntime(checkpointer=(ledger := Ledger())) as runtime:
        runtime.register(desk(Ask))
        run = runtime.activate("desk", "ask")
        with pytest.raises(Overtaken):
            ledger.commit(run, checkpoints=[], writes=[], puts={("content", "x"): 1}, started=[])
        assert ledger.value("content", "x") is None


@pytest.mark.parametrize("given", ["sqlite", "sqlite:///", "postgres:///x", 7, "sqlite:////nowhere/at/all.db"])
def test_a_checkpointer_that_is_none_is_refused(given):
    with pytest.raises(SetupError):
        OperatorRuntime(checkpointer=given)


def test_the_clock_leaves_runs_alone_whose_operators_are_not_registered(tmp_path):
    place = f"sqlite:///{tmp_path}/runs.db"
    with OperatorRuntime(checkpointer=place) as first:
        first.register(timed(on_timeout="approve"))
        run = first.activate("desk", "ask")
    with OperatorRuntime(checkpointer=place) as stranger:
        assert stranger.advance(2 * DAY) == []
        assert stranger.recover() == []
        assert stranger.run(run.id) == run


def test_a_database_is_closed_between_two_transactions_and_tells_who_comes_too_late():
    database, inside, go = Database(), threading.Event(), threading.Event()

    def work():
        with database.transaction():
            inside.set()
            assert go.wait(10)
            return database.rows("SELECT 1")

    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(work)
        assert inside.wait(10)
        closing = pool.submit(database.close)
        assert not wait([closing], timeout=0.2).done
        go.set()
        assert working.result(10) == [(1,)]
        closing.result(10)
    with pytest.raises(sqlite3.ProgrammingError):
        database.rows("SELECT 1")
