"""`manage.py retention`: archive and delete what projects do not want to keep, now."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from operators.services import retention


class Command(BaseCommand):
    """Sweep once; the clock does the same every hour."""

    help = "Archive and delete what is older than its project's keep_events_days and keep_checkpoints_days."

    def handle(self, *args: Any, **options: Any) -> None:
        """Sweep and say how much."""
        swept = retention.sweep(timezone.now())
        self.stdout.write(
            f"archived {swept.archived} runs and {swept.public} general events, pruned {swept.pruned} runs"
        )
