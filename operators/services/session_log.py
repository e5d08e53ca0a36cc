"""A session's log on disk: JSON lines, one record each, in the order of `seq`. It is a copy; the database is the truth.

The newest lines lie in `<session>.jsonl`, older ones in `.1`, `.2` and so on, each a part of the bound; the oldest part
goes when there is no room. A line that a crash has left unfinished is cut off and written again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

Record = dict[str, Any]
#: Files of one session.
PARTS = 4
#: From how far behind a file's end its last line is looked for at first.
TAIL = 64 * 1024


@dataclass(frozen=True)
class SessionLog:
    """The log of one session. One process writes, any number read."""

    path: Path
    most_bytes: int

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write records behind those that are there; they are on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [orjson.dumps(record, default=str) + b"\n" for record in records]
        while lines:
            room = self.most_bytes // PARTS - self._size()
            if room <= 0:
                self._rotate()
                continue
            # At least one line, however long it is: a part may be one line over its bound.
            part, size = [lines.pop(0)], 0
            while lines and (size := size + len(part[-1])) + len(lines[0]) <= room:
                part.append(lines.pop(0))
            self._write(b"".join(part))

    def last(self) -> int:
        """Return the number of the newest record, or 0; an unfinished line is cut off."""
        _mend(self.path)
        for path in self._parts():
            if line := _last_line(path):
                return int(orjson.loads(line)["seq"])
        return 0

    def read(self, *, after: int = 0, since: datetime | None = None, limit: int = 500) -> list[Record]:
        """Return at most so many of the records behind number `after`, and later than `since`, in order."""
        found: list[Record] = []
        for record in self._records():
            late = since is None or datetime.fromisoformat(record["timestamp"]) > since
            if record["seq"] > after and late:
                found.append(record)
            if len(found) == limit:
                break
        return found

    def _records(self) -> Iterator[Record]:
        for path in reversed(self._parts()):
            with path.open("rb") as file:
                for line in file:
                    # The writer may be in the middle of the last one.
                    if line.endswith(b"\n"):
                        yield orjson.loads(line)

    def _parts(self) -> list[Path]:
        """Return the files that there are, the newest first."""
        return [path for number in range(PARTS) if (path := self._part(number)).exists()]

    def _part(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _rotate(self) -> None:
        for number in range(PARTS - 1, 0, -1):
            if (part := self._part(number - 1)).exists():
                part.replace(self._part(number))

    def _write(self, data: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _mend(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start, tail = end, b""
        while start and b"\n" not in tail:
            start = max(0, start - TAIL)
            file.seek(start)
            tail = file.read(end - start)
        whole = start + tail.rfind(b"\n") + 1
        if whole < end:
            file.truncate(whole)
            os.fsync(file.fileno())


def _last_line(path: Path) -> bytes:
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start, tail = end, b""
        while start and b"\n" not in tail[:-1]:
            start = max(0, start - TAIL)
            file.seek(start)
            tail = file.read(end - start)
        return tail.rstrip(b"\n").rpartition(b"\n")[2]
