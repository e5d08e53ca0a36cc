"""Celery beat for cron triggers: django-celery-beat's rows, our own reader of schedules, the slot in the message."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from celery import shared_task
from celery.beat import BeatLazyFunc, SchedulingError
from django.db import DatabaseError
from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry

from openvibe.scheduler.celery import CronSchedule
from operators.services import schedule

logger = logging.getLogger(__name__)


class CronEntry(ModelEntry):  # type: ignore[misc]  # the package has no types
    """A row that beat watches. That of a cron trigger is due when our own reader says so."""

    kwargs: dict[str, Any]

    def __init__(self, model: Any, app: Any = None) -> None:
        super().__init__(model, app=app)
        cron = schedule.watched(model)
        if cron is not None:
            self.schedule = CronSchedule(cron, app=self.app)
            self.kwargs = {**self.kwargs, "slot": BeatLazyFunc(self.schedule.slot)}


class BeatScheduler(DatabaseScheduler):  # type: ignore[misc]
    """What `celery --scheduler` is given. It outlives a database and a broker that are away for a while."""

    Entry = CronEntry

    def all_as_schedule(self) -> dict[str, CronEntry]:
        """Read the rows; while the database is away, go on with those that were read last."""
        try:
            entries: dict[str, CronEntry] = super().all_as_schedule()
        except DatabaseError as error:
            # Raised further it would end beat, which nobody starts again before its worker.
            logger.warning("Beat goes on with the schedule that it knows: %s", error)
            return self._schedule or {}
        return entries

    def apply_async(self, entry: CronEntry, producer: Any = None, advance: bool = True, **options: Any) -> Any:
        """Send a task; a slot that the broker does not take is fired here."""
        try:
            return super().apply_async(entry, producer=producer, advance=advance, **options)
        except SchedulingError as error:
            if entry.task != schedule.FIRE:
                raise
            logger.warning("The broker did not take %s, it is fired by beat itself: %s", entry.name, error)
            return schedule.fire(entry.kwargs["workflow_id"])


@shared_task(name=schedule.FIRE, ignore_result=True, acks_late=True)  # type: ignore[untyped-decorator]
def fire_cron(workflow_id: int, slot: str = "") -> None:
    """Start the run of a slot."""
    schedule.fire(workflow_id, datetime.fromisoformat(slot) if slot else None)
