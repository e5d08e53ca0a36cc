"""No clock: jobs are kept and nothing is called, until somebody lets time pass by hand."""

from __future__ import annotations

from datetime import datetime

from openvibe import scheduler as schedulers
from openvibe.scheduler import Call, Job
from openvibe.scheduler.cron import Cron


class NoScheduler:
    """Keeps jobs. `elapse` is how a test or a script makes their calls, without waiting."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def every(self, id: str, cron: str | Cron, call: Call, *, timezone: str = "UTC") -> None:
        """Keep a job."""
        self._jobs[id] = schedulers.job(id, cron, call, timezone=timezone)

    def remove(self, id: str) -> None:
        """Forget a job."""
        self._jobs.pop(id, None)

    def jobs(self) -> tuple[Job, ...]:
        """Return the jobs, by id."""
        return tuple(self._jobs[name] for name in sorted(self._jobs))

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""

    def elapse(self, since: datetime, until: datetime) -> None:
        """Make the calls of every slot after `since`, up to and including `until`, in the order of time."""
        now = since
        while due := [(slot, job) for job in self.jobs() if (slot := job.cron.after(now)) <= until]:
            now = min(slot for slot, _ in due)
            for slot, job in due:
                if slot == now:
                    job.fire(slot)


def scheduler() -> NoScheduler:
    """Return one without jobs."""
    return NoScheduler()
