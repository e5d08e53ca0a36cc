"""LangGraph's public conformance suite over our checkpointer on real databases: written through, and collected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.base import empty_checkpoint

from openvibe.graph.saver import RowSaver
from operators.models.checkpoint import DatabaseRows
from tests import servers
from tests.contracts import conformance

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, Any]]]:
    """A database's URL, and what the suite said there: Django has one database a process, so another one runs it."""
    with servers.postgres() as server:
        url = servers.new_database(server.url)
        home = str(tmp_path_factory.mktemp("home"))
        environ = {**os.environ, "DATABASE_URL": url, "OPENVIBE_HOME": home, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.contracts.conformance"]
        ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=110, check=False)
        assert ended.returncode == 0, ended.stderr
        yield url, json.loads(ended.stdout.splitlines()[-1])


def passed(report: dict[str, Any]) -> list[str]:
    return [
        name
        for name in conformance.CAPABILITIES
        if report[name]["detected"] and report[name]["passed"] and report[name]["tests_passed"] > 0
    ]


def failures(report: dict[str, Any]) -> list[str]:
    return [failure for name in conformance.CAPABILITIES for failure in report[name]["failures"]]


@pytest.mark.parametrize("way", conformance.WAYS)
def test_all_eight_capabilities_pass_on_sqlite(transactional_db: None, way: str) -> None:
    report = conformance.outcomes(way)
    assert failures(report) == []
    assert len(passed(report)) == 8


def test_what_was_collected_is_read_back_the_same_from_sqlite(transactional_db: None) -> None:
    assert conformance.outcomes("collecting")["stored"] == [True] * 8


@pytest.mark.postgres
@pytest.mark.parametrize("way", conformance.WAYS)
def test_all_eight_capabilities_pass_on_postgresql(on_postgres: tuple[str, dict[str, Any]], way: str) -> None:
    _, said = on_postgres
    assert said["vendor"] == "postgresql"
    assert failures(said[way]) == []
    assert len(passed(said[way])) == 8


@pytest.mark.postgres
def test_what_was_collected_is_read_back_the_same_from_postgresql(on_postgres: tuple[str, dict[str, Any]]) -> None:
    url, said = on_postgres
    assert said["collecting"]["stored"] == [True] * 8
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM operators_checkpoint").fetchone()[0] > 0
        assert connection.execute("SELECT count(*) FROM operators_checkpointwrite").fetchone()[0] > 0


def test_collected_rows_are_stored_whole(transactional_db: None) -> None:
    saver = RowSaver(DatabaseRows(), collect=True)
    checkpoint = {**empty_checkpoint(), "channel_values": {"blob": bytes(range(256)), "text": "ünï\0cödé"}}
    place = saver.put({"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, checkpoint, {"step": 1}, {})
    saver.put_writes(place, [("letter", {"x": [1, None]}), ("letter", b"\0")], "task", "path")
    saver.put_writes(place, [("letter", "too late")], "task", "path")
    collected = saver.collected()
    DatabaseRows().save(*collected)
    found = RowSaver(DatabaseRows()).get_tuple({"configurable": {"thread_id": "t"}})
    assert found.checkpoint == checkpoint
    assert found.metadata["step"] == 1
    assert found.pending_writes == [("task", "letter", {"x": [1, None]}), ("task", "letter", b"\0")]
    assert saver.collected() == ([], [])


def test_storing_the_same_rows_twice_changes_nothing(transactional_db: None) -> None:
    saver = RowSaver(DatabaseRows(), collect=True)
    place = saver.put({"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, empty_checkpoint(), {"step": 1}, {})
    saver.put_writes(place, [("letter", "x"), ("__error__", "first")], "task")
    collected = saver.collected()
    DatabaseRows().save(*collected)
    DatabaseRows().save(*collected)
    RowSaver(DatabaseRows()).put_writes(place, [("letter", "y"), ("__error__", "second")], "task")
    (found,) = RowSaver(DatabaseRows()).list({"configurable": {"thread_id": "t"}})
    assert sorted(found.pending_writes) == [("task", "__error__", "second"), ("task", "letter", "x")]
