"""Lines of text as they come: those of a stream, or of a file that grows, is cut short or is replaced."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

#: How often a file is looked at, in seconds.
LOOK_SECONDS = 0.2


def given(source: IO[str], ended: threading.Event) -> Iterator[str]:
    """Yield a stream's lines to its end, or until `ended` is set."""
    for line in source:
        yield line.rstrip("\r\n")
        if ended.is_set():
            return


def followed(path: Path, ended: threading.Event) -> Iterator[str]:
    """Yield a file's lines from its beginning and as it grows, as `tail -F` does, until `ended` is set.

    A file that is not there yet is waited for. One that is replaced, or cut short, is read anew.
    """
    rest = b""
    while True:
        last = ended.is_set()
        try:
            with path.open("rb") as file:
                for line in _of(file, path, ended):
                    if line.endswith(b"\n"):
                        yield _text(rest + line)
                        rest = b""
                    else:
                        rest += line
        except FileNotFoundError:
            pass
        if rest and (last or ended.is_set() or path.exists()):
            # The file is done with: its last line has no end.
            yield _text(rest)
            rest = b""
        if last or ended.is_set():
            return
        ended.wait(LOOK_SECONDS)


def _of(file: BinaryIO, path: Path, ended: threading.Event) -> Iterator[bytes]:
    """Yield a file's lines, and parts of lines, until another one stands in its place."""
    while True:
        last = ended.is_set()
        yield from file
        if last or _replaced(file, path):
            yield from file
            return
        ended.wait(LOOK_SECONDS)


def _replaced(file: BinaryIO, path: Path) -> bool:
    ours = os.fstat(file.fileno())
    try:
        now = path.stat()
    except FileNotFoundError:
        # Moved away: whoever has it open may still write to it until the next one stands there.
        return False
    return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino) or now.st_size < file.tell()


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r\n")
