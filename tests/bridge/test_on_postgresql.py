"""The bridge's tests once more, in a process of their own on a real PostgreSQL, which refuses more than SQLite does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import servers

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.postgres
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "module",
    [
        "test_ingest.py",
        "test_unkeepable.py",
        "test_sessions.py",
        "test_process.py",
        "test_external.py",
        "test_turns.py",
        "test_foreign_turns.py",
        "test_actions.py",
    ],
)
def test_the_bridges_tests_pass_on_postgresql(module: str) -> None:
    with servers.postgres() as server:
        environ = {**os.environ, "DATABASE_URL": servers.new_database(server.url)}
        # The database goes with its server; a thread that still holds a connection would keep it from being dropped.
        command = [sys.executable, "-m", "pytest", "-q", "--reuse-db", f"tests/bridge/{module}"]
        # Longer than one test may take: that one tells where it stood, and ends its servers.
        ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stdout[-8000:]
