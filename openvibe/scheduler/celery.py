"""Celery beat keeps the clock, workers make the calls.

`every` registers a task and fills the app's beat schedule, so every worker needs the same jobs before it starts, and so
does whoever runs beat: this process by `start`, or `celery beat`, or `celery worker --beat`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from celery import Celery, beat
from celery.schedules import BaseSchedule, schedstate

from openvibe import scheduler as schedulers
from openvibe.scheduler import GRACE, Call, Job
from openvibe.scheduler.cron import Cron

#: Seconds after which beat looks for jobs that were added meanwhile.
GLANCE = 1.0
#: Seconds that `stop` waits for beat, which may be waiting for its broker.
PATIENCE = 10.0


class CronSchedule(BaseSchedule):  # type: ignore[misc]  # the package has no types
    """A `Cron` as one of Celery's schedules. `nowfun` replaces the app's clock."""

    def __init__(self, cron: Cron, nowfun: Callable[[], datetime] | None = None, app: Celery | None = None) -> None:
        super().__init__(nowfun=nowfun, app=app)
        self.cron = cron

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Tell whether a slot has come since then, and the seconds until the next one.

        Of several slots only the latest counts, and none that is older than `GRACE`.
        """
        now = self.now().astimezone(UTC)
        slot = self.cron.before(now)
        due = slot > self.maybe_make_aware(last_run_at) and now - slot <= GRACE
        return schedstate(due, (self.cron.after(now) - now).total_seconds())

    def slot(self) -> str:
        """Return the latest slot in ISO 8601: what a call that is sent now is for."""
        return self.cron.before(self.now()).isoformat()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CronSchedule) and other.cron == self.cron

    def __hash__(self) -> int:
        return hash(self.cron)

    def __repr__(self) -> str:
        return f"<cron: {self.cron.text} {self.cron.timezone}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return CronSchedule, (self.cron,)


class CeleryScheduler:
    """Fills the beat schedule of a Celery app."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._jobs: dict[str, Job] = {}
        self._beat: beat.Scheduler | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def every(self, id: str, cron: str | Cron, call: Call, *, timezone: str = "UTC") -> None:
        """Register the call as a task, and its schedule with beat."""
        job = schedulers.job(id, cron, call, timezone=timezone)
        self.remove(id)
        self._jobs[id] = job

        @self.app.task(name=_task(id), ignore_result=True, shared=False)  # type: ignore[untyped-decorator]
        def fire(slot: str) -> None:
            job.fire(datetime.fromisoformat(slot))

        schedule = CronSchedule(job.cron, app=self.app)
        entry = {"task": _task(id), "schedule": schedule, "args": (beat.BeatLazyFunc(schedule.slot),)}
        self.app.conf.beat_schedule[id] = entry
        if self._beat is not None:
            self._beat.add(name=id, **entry)

    def remove(self, id: str) -> None:
        """Take it out of the beat schedule; a call that is on its way to a worker is not known there any more."""
        if self._jobs.pop(id, None) is None:
            return
        self.app.conf.beat_schedule.pop(id, None)
        self.app.tasks.pop(_task(id), None)
        if self._beat is not None:
            self._beat.schedule.pop(id, None)

    def jobs(self) -> tuple[Job, ...]:
        """Return what is scheduled, by id."""
        return tuple(self._jobs[name] for name in sorted(self._jobs))

    def start(self) -> None:
        """Run beat on a thread of this process; leave it out where `celery beat` runs."""
        if self._thread is not None:
            return
        self._ended.clear()
        self._beat = beat.Scheduler(app=self.app, max_interval=GLANCE)
        self._thread = threading.Thread(target=self._run, args=(self._beat,), name="celery-beat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End that thread."""
        thread, self._thread, self._beat = self._thread, None, None
        self._ended.set()
        if thread is not None:
            thread.join(PATIENCE)

    def _run(self, clock: beat.Scheduler) -> None:
        try:
            while not self._ended.wait(clock.tick()):
                pass
        finally:
            clock.close()


def _task(id: str) -> str:
    return f"openvibe.cron.{id}"


def scheduler(*, app: Celery) -> CeleryScheduler:
    """Return one for that Celery app."""
    return CeleryScheduler(app)
