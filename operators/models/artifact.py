"""What agents of external runs leave behind in files, as far as it has been read."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from operators.models.run import Run


class Artifact(models.Model):
    """One run's file. `due_at` is when it is to be read next, None if not; `state` is what it was like when it was."""

    run = models.OneToOneField(Run, on_delete=models.CASCADE, related_name="artifact")
    due_at = models.DateTimeField(null=True, blank=True)
    tries = models.PositiveSmallIntegerField(default=0)
    state = models.CharField(max_length=80, blank=True)
    added = models.PositiveIntegerField(default=0)
    read_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["due_at"], name="artifact_due", condition=Q(due_at__isnull=False))]

    def __str__(self) -> str:
        return f"artifact of {self.run_id}"
