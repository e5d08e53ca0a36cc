"""APScheduler keeps the clock: a thread of this process, nothing kept beyond it.

Its own crontab reader counts the days of the week from Monday, so it gets its times from ours.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from openvibe import scheduler as schedulers
from openvibe.scheduler import GRACE, Call, Job
from openvibe.scheduler.cron import Cron

THREADS = 10


class CronTrigger(BaseTrigger):  # type: ignore[misc]  # the package has no types
    """The times of a `Cron`, in APScheduler's words."""

    def __init__(self, cron: Cron) -> None:
        self.cron = cron

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Return the slot that follows the last one or, the first time, the present."""
        return self.cron.after(previous_fire_time or now)


class SlotExecutor(ThreadPoolExecutor):  # type: ignore[misc]
    """A pool of threads that tells a job its slot, which APScheduler's own keeps to itself."""

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        told = SimpleNamespace(
            id=job.id,
            func=job.func,
            args=(run_times[-1].astimezone(UTC),),
            kwargs={},
            misfire_grace_time=job.misfire_grace_time,
            _jobstore_alias=job._jobstore_alias,
        )
        super()._do_submit_job(told, run_times)


class ApScheduler:
    """Calls on a pool of threads of this process."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._clock: BackgroundScheduler | None = None

    def every(self, id: str, cron: str | Cron, call: Call, *, timezone: str = "UTC") -> None:
        """Call at every slot of a schedule."""
        self._jobs[id] = job = schedulers.job(id, cron, call, timezone=timezone)
        if self._clock is not None:
            _add(self._clock, job)

    def remove(self, id: str) -> None:
        """Call no more."""
        if self._jobs.pop(id, None) is not None and self._clock is not None:
            self._clock.remove_job(id)

    def jobs(self) -> tuple[Job, ...]:
        """Return what is scheduled, by id."""
        return tuple(self._jobs[name] for name in sorted(self._jobs))

    def start(self) -> None:
        """Start the thread that keeps the clock."""
        if self._clock is not None:
            return
        self._clock = BackgroundScheduler(executors={"default": SlotExecutor(THREADS)}, timezone=UTC)
        for job in self.jobs():
            _add(self._clock, job)
        self._clock.start()

    def stop(self) -> None:
        """Stop it, once the calls that are under way have ended."""
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.shutdown()


def _add(clock: BackgroundScheduler, job: Job) -> None:
    clock.add_job(
        job.fire,
        CronTrigger(job.cron),
        id=job.id,
        replace_existing=True,
        coalesce=True,
        misfire_grace_time=int(GRACE.total_seconds()),
        max_instances=sys.maxsize,
        # The argument is the slot; APScheduler compares the number of arguments when a job is added.
        args=(None,),
    )


def scheduler() -> ApScheduler:
    """Return one without jobs."""
    return ApScheduler()
