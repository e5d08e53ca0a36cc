"""Processes that have said that they live; what `/readyz` and the pages know of workers and bridges."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.utils import timezone

from operators.models.jsonfield import JSONField

#: How often a process says that it lives, and after how much silence it counts as gone, in seconds.
BEAT_SECONDS = 5.0
SILENCE_SECONDS = 20.0


class Process(models.Model):
    """One worker or bridge process. `operators` are the ids of those whose code it has.

    `paused` are the streams from which an administrator of NATS lets a bridge read nothing; null where nobody looks.
    """

    class Kind(models.TextChoices):
        """What the process does."""

        WORKER = "worker"
        BRIDGE = "bridge"

    id = models.CharField(primary_key=True, max_length=200)
    kind = models.CharField(max_length=10, choices=Kind)
    operators = JSONField(default=list)
    bus_connected = models.BooleanField(default=False)
    paused = JSONField(null=True)
    seen_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "processes"

    def __str__(self) -> str:
        return self.id

    @classmethod
    def living(cls) -> models.QuerySet[Process]:
        """Return the processes that were heard of lately."""
        return cls.objects.filter(seen_at__gt=timezone.now() - timedelta(seconds=SILENCE_SECONDS))

    @classmethod
    def alive(cls, kind: str) -> bool:
        """Tell whether a process of this kind was heard of lately."""
        return cls.living().filter(kind=kind).exists()
