"""Calling something by a cron schedule, through one protocol whoever keeps the clock.

A *slot* is the moment for which a call was scheduled, to the minute; the call gets it, however late it comes. A slot
that was missed because nobody was awake is not made up, except the latest one, within `GRACE`.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from openvibe.errors import SetupError
from openvibe.scheduler.cron import Cron

logger = logging.getLogger(__name__)

#: How late the latest missed slot may still be made up.
GRACE = timedelta(hours=1)
#: Scheduler names and the modules that implement them, imported when asked for.
SCHEDULERS = {
    "none": "openvibe.scheduler.none",
    "apscheduler": "openvibe.scheduler.apscheduler",
    "celery": "openvibe.scheduler.celery",
}

#: What a slot calls: a function or a coroutine function that takes the slot, an aware datetime in UTC.
Call = Callable[[datetime], Any]


@dataclass(frozen=True)
class Job:
    """What is called by which schedule."""

    id: str
    cron: Cron
    call: Call

    def fire(self, slot: datetime) -> None:
        """Make the call for one slot, wait for its end, and log what it raises: the next slot comes all the same.

        Not for a thread whose event loop is running: a coroutine gets a loop of its own.
        """
        try:
            answer = self.call(slot)
            if inspect.iscoroutine(answer):
                asyncio.run(answer)
        except Exception:
            logger.exception("The call of %r for %s failed", self.id, slot.isoformat())


class Scheduler(Protocol):
    """What keeps the clock. Calls come on threads of its own, and those of two slots may overlap."""

    def every(self, id: str, cron: str | Cron, call: Call, *, timezone: str = "UTC") -> None:
        """Call at every slot of a schedule from now on; an id that is known already gets the new schedule and call.

        `timezone` is the one in which a text is read; a `Cron` has its own.

        Raises:
            SetupError: the schedule or the time zone is wrong.
        """

    def remove(self, id: str) -> None:
        """Call no more; an unknown id is no mistake."""

    def jobs(self) -> tuple[Job, ...]:
        """Return what is scheduled, by id."""

    def start(self) -> None:
        """Begin to call; a second time changes nothing."""

    def stop(self) -> None:
        """Make no more calls. What is scheduled stays, and `start` goes on with it."""


def job(id: str, cron: str | Cron, call: Call, *, timezone: str = "UTC") -> Job:
    """Make a job of what `Scheduler.every` is given. Raises `SetupError` if the schedule is wrong."""
    return Job(id, cron if isinstance(cron, Cron) else Cron(cron, timezone), call)


def scheduler(name: str, **options: Any) -> Scheduler:
    """Make the scheduler of that name; `options` go to its constructor.

    Raises:
        SetupError: no such scheduler, or its package is not installed.
    """
    module = SCHEDULERS.get(name)
    if module is None:
        raise SetupError(f"No scheduler is called {name!r}; use one of: {', '.join(SCHEDULERS)}")
    try:
        made: Scheduler = importlib.import_module(module).scheduler(**options)
    except ImportError as error:
        raise SetupError(f"Scheduler {name!r} needs a package: pip install openvibe[{name}] ({error})") from error
    return made
