"""What tests of processes look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from openvibe_site.children import Child

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="this system has no /proc")


def eventually(condition: Callable[[], object], *, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "this did not become true in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """False for a zombie too: an orphan may wait long for somebody who reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pid_of(child: Child) -> int:
    assert child.pid is not None
    return child.pid
