"""Reads the files that agents of external runs leave behind, and tells what of them NATS has never brought.

A run that ends makes its file due; a look over all folders finds those of runs whose end nobody heard. Nothing is read
before what NATS has kept has been taken in, so that no message is told twice.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db.models import F
from django.utils import timezone

from openvibe.protocol import subjects
from openvibe.protocol.workflow import Identity
from operators.bridge import backfill
from operators.models import Artifact, Event, Project, Run
from operators.models.project import DEFAULT
from operators.services import external
from operators.threads import aside

logger = logging.getLogger(__name__)

#: Seconds between two looks for what is due, and between two looks over all folders.
PAUSE = 1.0
SCAN_SECONDS = 60.0
#: How long nobody may have written to a file, or spoken of its run, before it is read without the run's end.
QUIET = timedelta(minutes=2)
#: How old a file may be to be looked at: as long as the stream keeps what could have been heard.
OLDEST = timedelta(days=7)
#: How long one that is not there yet is looked for again, at doubling pauses.
FIRST_PAUSE, MOST_TRIES = timedelta(seconds=5), 12
#: How many messages of a run are looked at to learn who speaks.
MOST_HEARD = 100
#: The names of files, the better first: events as JSON lines, then a log.
NAMES = ("*implementation-events.jsonl", "*agent.log")


async def read_for_ever(caught_up: asyncio.Event) -> None:
    """Read what is due whenever everything that NATS keeps of external runs has been taken in."""
    scanned = 0.0
    while settings.OPENVIBE.artifacts:
        await caught_up.wait()
        try:
            if asyncio.get_running_loop().time() - scanned > SCAN_SECONDS or not scanned:
                await aside(scan, timezone.now())
                scanned = asyncio.get_running_loop().time()
            await aside(read_due, timezone.now())
        except Exception:
            logger.exception("Artifacts could not be read; they are looked at again")
        await asyncio.sleep(PAUSE)


def read_due(now: datetime) -> int:
    """Read the files that are due, and return how many messages they added."""
    found = Artifact.objects.select_related("run").filter(due_at__lte=now).order_by("due_at")
    return sum(_read(item, now) for item in found[:100] if _taken(item, now))


def scan(now: datetime) -> None:
    """Let files be read that have changed since they were, of runs that nobody tells of any more, known or not."""
    folders = settings.OPENVIBE.artifacts
    known = set(Project.objects.names())
    for project, identity, file in _lying(folders):
        if project not in known:
            continue
        changed = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        if not now - OLDEST < changed < now - QUIET:
            continue
        run_id = external.begin(project, identity)
        run = Run.objects.get(id=run_id)
        last = Event.objects.filter(run_id=run_id, channel=subjects.thread(run_id)).order_by("-seq").first()
        fresh = last is not None and last.kind.startswith("agent.") and last.created_at > now - QUIET
        if run.archived_at or fresh:
            continue
        item, _ = Artifact.objects.get_or_create(run=run)
        Artifact.objects.filter(pk=item.pk, due_at=None).exclude(state=_state(file)).update(due_at=now, tries=0)


def _taken(item: Artifact, now: datetime) -> bool:
    """Take a try, so that of several bridges one reads; a file that never comes is given up in the end."""
    later = now + FIRST_PAUSE * (1 << item.tries) if item.tries < MOST_TRIES else None
    mine = Artifact.objects.filter(pk=item.pk, due_at=item.due_at)
    return bool(mine.update(due_at=later, tries=F("tries") + 1))


def _read(item: Artifact, now: datetime) -> int:
    run = item.run
    identity = Identity(
        run.input.get("workflow_uid", ""), run.input.get("workflow_name", ""), run.input.get("workflow_namespace", "")
    )
    file = find(settings.OPENVIBE.artifacts, identity, project=run.project_id)
    if file is None or run.archived_at:
        return 0
    state = _state(file)
    agent, heard = _speaker(run)
    added = 0
    # A log's lines are no messages: they stand in for those of a run of which nothing was heard.
    if file.suffix == ".jsonl" or not heard:
        added = backfill.fill(file, identity, project=run.project_id, agent=agent, began=run.created_at)
    done = Artifact.objects.filter(pk=item.pk)
    done.update(due_at=None, tries=0, state=state, added=F("added") + added, read_at=now)
    if added:
        name = file.parent / backfill.name(file)
        logger.info("%s told of %d messages of run %s that nobody had heard", name, added, run.id)
    return added


def _speaker(run: Run) -> tuple[str, bool]:
    """Return who has spoken in a run first, and whether anybody has said more than that it has begun or ended."""
    rows = Event.objects.filter(run=run, channel=subjects.thread(run.id), kind__startswith="agent.").order_by("seq")
    told = [
        (actor, data.get("role"))
        for actor, data in rows.values_list("actor", "data")[:MOST_HEARD]
        if (data.get("attrs") or {}).get("source") != backfill.SOURCE
    ]
    return next((actor for actor, _ in told if actor), "agent"), any(role != "system" for _, role in told)


def find(pattern: str, identity: Identity, *, project: str) -> Path | None:
    """Return the file of a run, or None. `pattern` is the folder, with `{uid}`, perhaps `{name}` and `{namespace}`.

    A pattern without `{project}` tells of runs of `default` only.
    """
    names = {"uid": identity.uid, "name": identity.name, "namespace": identity.namespace, "project": project}
    if project != DEFAULT and "{project}" not in pattern:
        return None
    if not all(subjects.token(value) == value for name, value in names.items() if f"{{{name}}}" in pattern):
        # What somebody else chose must not lead out of the folder.
        return None
    return _best(Path(pattern.format(**names)))


def _best(folder: Path) -> Path | None:
    try:
        return next((file for name in NAMES for file in sorted(folder.glob(name)) if file.is_file()), None)
    except OSError as error:
        logger.warning("What lies in %s cannot be read: %s", folder, error)
        return None


def _lying(pattern: str) -> Iterator[tuple[str, Identity, Path]]:
    """Yield the file of every run that there is, with whose it is."""
    parts = Path(pattern).parts
    first = next(number for number, part in enumerate(parts) if "{" in part)
    inner = str(Path(*parts[first:]))
    reader = re.compile(
        re.sub(r"\\\{(uid|name|namespace|project)\\\}", r"(?P<\1>[A-Za-z0-9_-]{1,64})", re.escape(inner))
    )
    root = Path(*parts[:first])
    for folder in root.glob(re.sub(r"\{\w+\}", "*", inner)):
        told = reader.fullmatch(str(folder.relative_to(root)))
        file = _best(folder) if told and folder.is_dir() else None
        if told and file:
            names = told.groupdict()
            yield names.pop("project", DEFAULT), Identity(**names), file


def _state(file: Path) -> str:
    facts = file.stat()
    return f"{backfill.name(file)[-40:]}:{facts.st_size}:{facts.st_mtime_ns}"
