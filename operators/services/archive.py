"""The archive: files of JSON lines for each project and day, under `archive/` in the home. No line is in it twice.

If something is told of a run after a crash between writing and deleting, it is written once more, with all of it: of
lines with the same key the last one counts.
"""

from __future__ import annotations

import fcntl
import os
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from django.conf import settings
from django.db.models import Model

from openvibe.protocol import subjects
from operators.models import Checkpoint, CheckpointWrite, Effect, Event, Run, Wait


def add_runs(project_id: str, runs: Sequence[Run]) -> None:
    """Write ended runs, each with its events, waits and effects, to the files of the days on which they ended."""
    ids = [run.id for run in runs]
    parts: dict[str, dict[str, list[Any]]] = {run.id: {"events": [], "waits": [], "effects": []} for run in runs}
    threads = {subjects.thread(run_id): run_id for run_id in ids}
    for event in Event.objects.filter(project_id=project_id, channel__in=threads).order_by("channel", "seq"):
        parts[threads[event.channel]]["events"].append(_columns(event))
    for name, rows in (("waits", Wait.objects.all()), ("effects", Effect.objects.all())):
        for row in rows.filter(run_id__in=ids).order_by("pk"):
            parts[row.run_id][name].append(_columns(row))
    days: dict[str, dict[str, Any]] = defaultdict(dict)
    for run in runs:
        assert run.ended_at is not None
        days[f"{run.ended_at:%Y-%m-%d}"][run.id] = {"run": _columns(run), **parts[run.id]}
    for day, lines in days.items():
        _append(_folder(project_id) / f"{day}.jsonl", lines)


def add_channel(project_id: str, name: str, events: Iterable[Event]) -> None:
    """Write events of a channel that is no run's to its files of the days on which they happened."""
    days: dict[str, dict[str, Any]] = defaultdict(dict)
    for event in events:
        days[f"{event.created_at:%Y-%m-%d}"][str(event.seq)] = {"event": _columns(event)}
    for day, lines in days.items():
        _append(_folder(project_id) / f"{name}-{day}.jsonl", lines)


def add_checkpoints(project_id: str, runs: Iterable[Run]) -> None:
    """Write the checkpoints of ended runs, a file for each, to the folders of the days on which they ended.

    A file is there whole or not at all, so that a second try writes the same one. The states in it are not masked.
    """
    for run in runs:
        assert run.ended_at is not None
        kept = {"checkpoint": Checkpoint.objects.all(), "write": CheckpointWrite.objects.all()}
        rows = [(word, row) for word, found in kept.items() for row in found.filter(thread_id=run.id).order_by("pk")]
        if rows:
            lines = (orjson.dumps({word: _columns(row)}, default=_plain) + b"\n" for word, row in rows)
            folder = _folder(project_id, f"checkpoints-{run.ended_at:%Y-%m-%d}")
            _replace(folder / f"{subjects.token(run.id)}.jsonl", lines)


def _plain(value: Any) -> str:
    # Serialized states, as `type` beside them says.
    return b64encode(value).decode() if isinstance(value, (bytes, memoryview)) else str(value)


def _replace(path: Path, lines: Iterable[bytes]) -> None:
    """Write a file and let it appear under its name once it is on the disk, for nobody else to read."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _folder(project_id: str, *parts: str) -> Path:
    folder: Path = settings.OPENVIBE.home.joinpath("archive", project_id, *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _columns(row: Model) -> dict[str, Any]:
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def _append(path: Path, lines: Mapping[str, Any]) -> None:
    """Add what the file lacks. It is on the disk when this returns, because then the database forgets it."""
    with path.open("a+b") as file:
        # Two processes on one host may archive the same day.
        fcntl.flock(file, fcntl.LOCK_EX)
        known = _known(file)
        for key, content in lines.items():
            line = orjson.dumps({"key": key, **content}, default=str) + b"\n"
            if _digest(line) not in known:
                file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _known(file: BinaryIO) -> set[bytes]:
    """Return the digests of the lines that the file holds, and cut off a last one that a crash has left unfinished."""
    known, whole = set(), 0
    file.seek(0)
    for line in file:
        if not line.endswith(b"\n"):
            file.truncate(whole)
            break
        whole += len(line)
        known.add(_digest(line))
    return known


def _digest(line: bytes) -> bytes:
    return sha256(line).digest()
