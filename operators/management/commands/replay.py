"""`manage.py replay <run_id>`: a run's timeline once more, in its order and with its pauses."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError

from openvibe import controls
from openvibe.protocol import subjects
from operators.models import Event, Run
from operators.services import timeline


class Command(BaseCommand):
    """Print a run's events as JSON lines; `at` is the time in seconds since the first one."""

    help = "Print a run's timeline as JSON lines, event after event, with the pauses that were between them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the run and the speed."""
        parser.add_argument("run_id")
        parser.add_argument("--speed", type=float, default=1.0, help="times as fast; 0 prints everything at once")

    def handle(self, *args: Any, run_id: str, speed: float, **options: Any) -> None:
        """Print them."""
        run = Run.objects.filter(id=run_id).first()
        if run is None:
            raise CommandError(f"There is no run {run_id!r}")
        if run.archived_at:
            raise CommandError(f"The timeline of {run_id} is in the archive since {run.archived_at:%Y-%m-%d}")
        if not 0 <= speed < float("inf"):
            raise CommandError(f"--speed {speed} makes no sense; use a number from 0 on")
        began = time.monotonic()
        first = None
        for event in _events(run):
            first = first or event.created_at
            at = (event.created_at - first).total_seconds()
            if speed:
                time.sleep(max(0.0, at / speed - (time.monotonic() - began)))
            self.stdout.write(controls.escaped(orjson.dumps({"at": at, **event.wire()}).decode()))
            self.stdout.flush()


def _events(run: Run) -> Iterator[Event]:
    seq = 0
    while events := timeline.read(run.project_id, subjects.thread(run.id), after=seq):
        yield from events
        seq = events[-1].seq
