"""The one step before the children start: the command `prepare` in a process of its own, its progress passed on."""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from openvibe_site import children
from openvibe_site.errors import CannotStart
from openvibe_site.stop import Stop

LINES_SHOWN = 20


def perform(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    folder: Path,
    log: Path,
    say: Callable[[str], None],
    stop: Stop,
) -> None:
    """Raises `CannotStart` with the end of the log when the step fails."""
    with log.open("ab") as output:
        began = output.tell()
        process = children.spawn(command, environ=environ, folder=folder, stdout=subprocess.PIPE, stderr=output)
        assert process.stdout is not None
        try:
            with process.stdout as stdout:
                for line in _lines(stdout, stop=stop):
                    output.write(line + b"\n")
                    output.flush()
                    say(line.decode(errors="replace"))
            code = process.wait()
        finally:
            children.kill_group(process)
    if code != 0:
        raise CannotStart(f"{_end_of(log, began)}\nOpenVibe could not be prepared; all of it lies in {log}.")


def _lines(stdout: IO[bytes], *, stop: Stop) -> Iterator[bytes]:
    """Lines as they come; looks up ten times a second, because a read that blocks would not hear Ctrl-C."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while True:
            stop.check()
            if not selector.select(timeout=0.1):
                continue
            chunk = os.read(stdout.fileno(), 65536)
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
            if not chunk:
                break
    if rest:
        yield rest


def _end_of(log: Path, began: int) -> str:
    written = log.read_bytes()[began:].decode(errors="replace")
    return "\n".join(written.splitlines()[-LINES_SHOWN:])
