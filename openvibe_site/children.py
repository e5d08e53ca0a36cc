"""One child process of the supervisor: its own session, started again when it dies, ended with all it started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
STEADY_AFTER = 30.0

PR_SET_PDEATHSIG = 1
# Loaded before any fork, because a child must not load a library between fork and exec.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """A command that should always run. `tend` it often; it says on `say` what it does."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        folder: Path,
        log: Path,
        say: Callable[[str], None],
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.environ = environ
        self.folder = folder
        self.log = log
        self.say = say
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.restart_at = 0.0
        self.next_pause = FIRST_PAUSE

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def start(self) -> None:
        self.started_at = time.monotonic()
        try:
            with self.log.open("ab") as log:
                self.process = spawn(
                    self.command, environ=self.environ, folder=self.folder, stdout=log, stderr=subprocess.STDOUT
                )
        except (OSError, subprocess.SubprocessError) as error:
            self.say(f"{self.name} cannot start ({error}); trying again")
            self._rest()

    def tend(self) -> bool:
        """Starts it again when it has died and its pause is over; True when it died or came back."""
        if self.process is None:
            if time.monotonic() < self.restart_at:
                return False
            self.start()
            return True
        code = reaped(self.process)
        if code is None:
            return False
        self.process = None
        self.say(f"{self.name} ended with {code}; starting it again")
        self._rest()
        return True

    def terminate(self) -> None:
        """Asks the child alone; what it started is its own to end in order."""
        if self.process is not None:
            self.process.terminate()

    def gone(self) -> bool:
        if self.process is not None and (code := reaped(self.process)) is not None:
            self.process = None
            if code < 0 and -code != signal.SIGTERM:
                self.say(f"{self.name} did not end in order: {signal.Signals(-code).name}")
        return self.process is None

    def kill(self) -> None:
        if self.process is not None:
            kill_group(self.process)
            self.process = None

    def _rest(self) -> None:
        now = time.monotonic()
        if now - self.started_at >= STEADY_AFTER:
            self.next_pause = FIRST_PAUSE
        self.restart_at = now + self.next_pause
        self.next_pause = min(self.next_pause * 2, LONGEST_PAUSE)


def spawn(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    folder: Path,
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int,
) -> subprocess.Popen[bytes]:
    """A session of its own keeps the terminal's Ctrl-C away: the supervisor alone decides the order of ending.

    Call it from the main thread: Linux ends the child when the thread that started it ends.
    """
    supervisor = os.getpid()
    return subprocess.Popen(
        command,
        env=environ,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        # Safe here, since the supervisor has no second thread.
        preexec_fn=lambda: _end_with(supervisor),  # noqa: PLW1509
    )


def reaped(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code of a process that has ended, after ending what it left in its group; None while it runs."""
    if hasattr(os, "waitid"):
        # Looked at but not yet reaped, it still reserves the group's number, so that no stranger can be hit.
        if process.returncode is None and not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return None
    elif process.poll() is None:
        return None
    return kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> int:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def end(children: Sequence[Child], *, grace: float, hurried: Callable[[], bool] = lambda: False) -> None:
    """Ends all of them at once: SIGTERM, up to `grace` seconds for what they have in hand, then SIGKILL."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + grace
    while not all(child.gone() for child in children) and time.monotonic() < deadline and not hurried():
        time.sleep(0.02)
    for child in children:
        child.kill()


def _end_with(supervisor: int) -> None:
    """Runs in the child before its program: kill -9 of the supervisor then asks the child to end as well."""
    if LIBC is None:
        return
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        os._exit(1)
