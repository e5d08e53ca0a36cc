"""`manage.py backfill <file>`: what an external run's agent said while nobody heard it, put on the run's timeline."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from openvibe.protocol.workflow import Identity
from operators.bridge import backfill
from operators.models import DeadLetter, Project
from operators.models.project import DEFAULT


class Command(BaseCommand):
    """Adds what is missing; doing it again adds nothing."""

    help = "Put what an external run's agent left in a file (events as JSON lines, or a log) on the run's timeline."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the file and whose it is."""
        parser.add_argument("file", type=Path, help="events (*.jsonl), or else a log, one message a line")
        parser.add_argument("--run-uid", required=True)
        parser.add_argument("--project", default=DEFAULT, help="whose run it is")
        parser.add_argument("--workflow-name", default="")
        parser.add_argument("--namespace", default="")
        parser.add_argument("--agent", default="agent")
        parser.add_argument("--began", type=datetime.fromisoformat, default=None, help="when the run began (ISO 8601)")

    def handle(
        self, *args: Any, file: Path, run_uid: str, project: str, began: datetime | None, **options: Any
    ) -> None:
        """Do it, and tell how much it was."""
        if not Project.objects.filter(id=project).exists():
            raise CommandError(f"There is no project {project!r}")
        try:
            changed = datetime.fromtimestamp(file.stat().st_mtime, UTC)
            identity = Identity(run_uid, options["workflow_name"], options["namespace"])
            buried = DeadLetter.objects.count()
            added = backfill.fill(file, identity, project=project, agent=options["agent"], began=began or changed)
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error}") from error
        if refused := DeadLetter.objects.count() - buried:
            raise CommandError(f"{refused} of {added} messages are dead letters now; each says why")
        self.stdout.write(f"{added} messages added")
