"""A bridge process by itself, between a NATS server and a database of the test's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.site import ROOT

COMMAND = (sys.executable, "-m", "openvibe_site")


@dataclass
class BridgeProcess:
    """The process; `start` after `kill` is what a supervisor does."""

    environ: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it reads as soon as it can."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "bridge"], cwd=ROOT, env=self.environ, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """End it in order."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(60)


@contextmanager
def running(home: Path, *, nats_url: str, database_url: str) -> Iterator[BridgeProcess]:
    """Prepare the database (an empty text: SQLite in `home`) and run a bridge until the block ends."""
    home.mkdir(parents=True, exist_ok=True)
    environ = {
        **os.environ,
        "OPENVIBE_HOME": str(home),
        "NATS_URL": nats_url,
        "DATABASE_URL": database_url,
        # A dead letter is worth a line in a log, and here there are hundreds.
        "OPENVIBE_LOG_LEVEL": "ERROR",
        # Frozen it may be for longer than a moment.
        "OPENVIBE_LEASE_SECONDS": "300",
    }
    log = home / "bridge.log"
    with log.open("ab") as output:
        subprocess.run([*COMMAND, "prepare"], cwd=ROOT, env=environ, check=True, stdout=output, stderr=output)
    bridge = BridgeProcess(environ, log)
    bridge.start()
    try:
        yield bridge
    finally:
        bridge.stop()
