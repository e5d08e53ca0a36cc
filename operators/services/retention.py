"""Takes out of the database what a project does not want to keep: first written to the archive, then deleted.

A run's row stays, with its input and its result; what goes is its timeline, its waits and effects, and its
checkpoints, and with the events what came in. What somebody is still to be told of stays, however old it is. Each batch
is one transaction. A crash between writing and deleting repeats the batch, and what the archive holds already is not
written again.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import close_old_connections, connection, transaction
from django.db.models import Exists, F, Min, OuterRef, Q
from django.utils import timezone

from openvibe.protocol import subjects
from operators.models import (
    Channel,
    Checkpoint,
    CheckpointWrite,
    Effect,
    Emission,
    Errand,
    Event,
    InboxItem,
    Project,
    Run,
    Subscription,
    Wait,
)
from operators.models.run import RunQuerySet
from operators.services import agents, archive, forgotten, notices

logger = logging.getLogger(__name__)

#: How often somebody looks, in seconds.
PERIOD = 3600.0
#: Runs and events of one batch, and the pause after it in seconds, in which others get at the database.
RUNS, EVENTS = 20, 1000
PAUSE = 0.05


@dataclass
class Swept:
    """How many runs were archived and pruned, and how many events of other channels were archived."""

    archived: int = 0
    pruned: int = 0
    public: int = 0


def every_hour(ended: threading.Event) -> None:
    """Sweep now and then until told to stop; on a thread of its own, because a long sweep must delay no timer."""
    while not ended.is_set():
        try:
            sweep(timezone.now(), ended=ended)
            forgotten.ask_again(timezone.now())
            notices.forget()
            agents.forget()
        except Exception:
            # What could not be swept is swept an hour later.
            logger.exception("Retention failed")
            close_old_connections()
        if connection.vendor != "sqlite":
            connection.close()
        ended.wait(PERIOD)
    connection.close()


def sweep(now: datetime, *, ended: threading.Event | None = None) -> Swept:
    """Archive and delete everything that is older than its project wants to keep."""
    swept, ended = Swept(), ended or threading.Event()
    for project in Project.objects.all():
        if project.keep_events_days is not None:
            old = now - timedelta(days=project.keep_events_days)
            while not ended.is_set() and (count := _archive(project, old, now)):
                swept.archived += count
                ended.wait(PAUSE)
            for name in {subjects.PUBLIC, *Channel.objects.filter(project=project).values_list("name", flat=True)}:
                while not ended.is_set() and (count := _archive_channel(project, name, old)):
                    swept.public += count
                    ended.wait(PAUSE)
            while not ended.is_set() and _forget(project, old):
                ended.wait(PAUSE)
        if project.keep_checkpoints_days is not None:
            old = now - timedelta(days=project.keep_checkpoints_days)
            while not ended.is_set() and (count := _prune(project, old, now)):
                swept.pruned += count
                ended.wait(PAUSE)
    return swept


def _due(project: Project, old: datetime, *conditions: Any, **unless: Any) -> RunQuerySet:
    """Return the next runs, locked: another sweeper passes over them, and nobody retries them meanwhile."""
    ended = Run.objects.ended().filter(*conditions, project=project, ended_at__lt=old, **unless)
    runs = ended.order_by("ended_at", "id")
    locked: RunQuerySet = runs.select_for_update(
        skip_locked=connection.features.has_select_for_update_skip_locked, no_key=True
    )
    return locked[:RUNS]


def _told() -> Any:
    """Return the condition that a run has nothing left of which the bus, a listener or a tool is to be told."""
    undelivered = Q(delivered_at=None) | Q(published_at=None)
    emissions = Emission.objects.filter(undelivered, run=OuterRef("pk"))
    calls = Wait.objects.unrecalled().filter(run=OuterRef("pk"))
    return Q(announced_seq__gte=F("last_seq")) & ~Exists(emissions) & ~Exists(calls)


@transaction.atomic
def _archive(project: Project, old: datetime, now: datetime) -> int:
    runs = list(_due(project, old, _told(), archived_at=None))
    if not runs:
        return 0
    archive.add_runs(project.pk, runs)
    ids = [run.id for run in runs]
    Event.objects.filter(project=project, channel__in=[subjects.thread(run_id) for run_id in ids]).delete()
    for model in (Wait, Effect, Emission):
        model._default_manager.filter(run_id__in=ids).delete()
    InboxItem.objects.filter(project=project, run_id__in=ids).delete()
    Run.objects.filter(id__in=ids).update(archived_at=now, told=True)
    return len(runs)


@transaction.atomic
def _archive_channel(project: Project, name: str, old: datetime) -> int:
    """Take the oldest events of a channel out, never one from the middle: its numbers have no holes."""
    channel = Event.objects.filter(project=project, channel=name).order_by("seq")
    events = []
    for event in channel.filter(seq__lte=_heard(project, name))[:EVENTS]:
        if event.created_at >= old:
            break
        events.append(event)
    if not events:
        return 0
    archive.add_channel(project.pk, name, events)
    deleted, _ = channel.filter(seq__lte=events[-1].seq).order_by().delete()
    return deleted


def _forget(project: Project, old: datetime) -> int:
    """Delete what came in and is done, and belongs to no run whose events are kept. What it did stands in events.

    So do errands of which their callers know.
    """
    kept = Run.objects.filter(id=OuterRef("run_id"), archived_at=None)
    done = (InboxItem.Status.CONSUMED, InboxItem.Status.SKIPPED, InboxItem.Status.ERROR)
    items = InboxItem.objects.filter(~Exists(kept), project=project, status__in=done, received_at__lt=old)
    ids = list(items.order_by("id").values_list("id", flat=True)[:EVENTS])
    InboxItem.objects.filter(id__in=ids).delete()
    told = Errand.objects.filter(project=project, status=Errand.Status.CLOSED, told_at__lt=old)
    done_with = list(told.order_by("told_at").values_list("id", flat=True)[:EVENTS])
    Errand.objects.filter(id__in=done_with).delete()
    return len(ids) + len(done_with)


def _heard(project: Project, name: str) -> int:
    """Return up to which number the bus has taken a channel, and subscriptions, which hear `public`, looked at it."""
    rows = Channel.objects.filter(project=project, name=name)
    announced: int = rows.values_list("announced_seq", flat=True).first() or 0
    looking = Subscription.objects.filter(project=project, enabled=True)
    behind: int | None = looking.aggregate(cursor=Min("cursor"))["cursor"] if name == subjects.PUBLIC else None
    return announced if behind is None else min(announced, behind)


@transaction.atomic
def _prune(project: Project, old: datetime, now: datetime) -> int:
    runs = list(_due(project, old, pruned_at=None))
    ids = [run.id for run in runs]
    archive.add_checkpoints(project.pk, runs)
    Checkpoint.objects.filter(thread_id__in=ids).delete()
    CheckpointWrite.objects.filter(thread_id__in=ids).delete()
    Run.objects.filter(id__in=ids).update(pruned_at=now)
    return len(ids)
