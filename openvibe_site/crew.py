"""All children of one supervisor, kept in a file so that the next supervisor finds what a killed one left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from openvibe_site import children
from openvibe_site.children import Child
from openvibe_site.home import Home, write_private

# Set for every child beside OPENVIBE_HOME: together they prove that a process number still means our process.
MARK = "OPENVIBE_CHILD"
LEFTOVER_GRACE = 10.0


class Crew:
    def __init__(self, record: Path) -> None:
        self.record = record
        self.children: list[Child] = []

    def start(self, child: Child) -> None:
        self.children.append(child)
        child.start()
        self._write_record()

    def tend(self) -> None:
        changed = [child for child in self.children if child.tend()]
        if changed:
            self._write_record()

    def renew(self, *, kept: Iterable[str], grace: float, hurried: Callable[[], bool]) -> None:
        """Ends all children but the kept ones in order, and starts them again."""
        ended = [child for child in self.children if child.name not in set(kept)]
        children.end(ended, grace=grace, hurried=hurried)
        for child in ended:
            child.start()
        self._write_record()

    def end(self, *, last: Iterable[str], grace: float, hurried: Callable[[], bool]) -> None:
        """Ends the children named in `last` after the others, which may still need them."""
        kept = set(last)
        children.end([child for child in self.children if child.name not in kept], grace=grace, hurried=hurried)
        children.end([child for child in self.children if child.name in kept], grace=grace, hurried=hurried)
        self.children.clear()
        with contextlib.suppress(OSError):
            self.record.unlink(missing_ok=True)

    def _write_record(self) -> None:
        # A full disk must not end what runs; the record is only for the case that all else fails.
        with contextlib.suppress(OSError):
            write_private(self.record, json.dumps({child.name: child.pid for child in self.children if child.pid}))


def end_leftovers(home: Home, *, say: Callable[[str], None]) -> None:
    """Ends what a killed supervisor of this home left alive. Only the holder of the home's lock may call it."""
    left = leftovers(home)
    if not left:
        return
    say(f"an earlier OpenVibe left {', '.join(sorted(set(left.values())))} running; ending them first")
    _signal(left, signal.SIGTERM)
    deadline = time.monotonic() + LEFTOVER_GRACE
    while (left := leftovers(home)) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal(left, signal.SIGKILL)
    while leftovers(home):
        time.sleep(0.05)


def leftovers(home: Home) -> dict[int, str]:
    """Process numbers and names of recorded children that still live, and of what these have started."""
    try:
        recorded = {int(pid): str(name) for name, pid in json.loads(home.children.read_text("utf-8")).items()}
        numbers = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    except (OSError, ValueError, AttributeError):
        return {}
    found = {}
    for number in numbers:
        with contextlib.suppress(OSError):
            name = recorded.get(os.getpgid(number))
            if name is not None and _is_ours(number, home, name):
                found[number] = name
    return found


def _is_ours(number: int, home: Home, name: str) -> bool:
    variables = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
    return os.fsencode(f"OPENVIBE_HOME={home.root}") in variables and os.fsencode(f"{MARK}={name}") in variables


def _signal(numbers: Iterable[int], what: signal.Signals) -> None:
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, what)
