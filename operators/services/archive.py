"""The archive: a file of JSON lines for each project and day, under `archive/` in the home. Nothing is in it twice."""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from django.conf import settings
from django.db.models import Model

from openvibe.protocol import subjects
from operators.models import Effect, Event, Run, Wait


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


def _folder(project_id: str) -> Path:
    folder: Path = settings.OPENVIBE.home / "archive" / project_id
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
            if key not in known:
                file.write(orjson.dumps({"key": key, **content}, default=str) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _known(file: BinaryIO) -> set[str]:
    """Return the keys of the lines that the file holds, and cut off a last one that a crash has left unfinished."""
    known, whole = set(), 0
    file.seek(0)
    for line in file:
        if not line.endswith(b"\n"):
            file.truncate(whole)
            break
        whole += len(line)
        known.add(str(orjson.loads(line)["key"]))
    return known
