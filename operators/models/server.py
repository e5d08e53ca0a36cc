"""Servers that share a bus, as the registry told of them, and what they were asked to answer durably."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from django.db import models
from django.db.models import Q
from django.utils import timezone

from operators.models.jsonfield import JSONField
from operators.models.project import Actor, Project
from operators.models.run import Run

#: How often a server says that it lives, in seconds, and after how many silences it counts as stale.
BEAT_SECONDS = 10.0
MOST_MISSED = 3


class ServerQuerySet(models.QuerySet["Server"]):
    """Which servers."""

    def visible_to(self, user: Actor) -> ServerQuerySet:
        """What they told the user's projects."""
        return self.filter(project__in=Project.objects.visible_to(user))


class Server(models.Model):
    """One server as a project knows it.

    `beat_at` is by its own clock, `heard_at` is when this one last saw that change. `operators` and `capabilities`, by
    operator, are those of the project; `load` is the number of its runs that are being played there.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="servers")
    name = models.CharField(max_length=64)
    operators = JSONField(default=list)
    capabilities = JSONField(default=dict)
    load = models.PositiveIntegerField(default=0)
    version = models.CharField(max_length=40, blank=True)
    beat_at = models.DateTimeField()
    heard_at = models.DateTimeField()

    objects = ServerQuerySet.as_manager()

    class Meta:
        ordering = ["project", "name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="one_server_per_name")]

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> Literal["fresh", "stale"]:
        """Whether it has been heard of lately."""
        silence = timezone.now() - self.heard_at
        return "stale" if silence > timedelta(seconds=MOST_MISSED * BEAT_SECONDS) else "fresh"


class Inquiry(models.Model):
    """A run that answers somebody elsewhere, and the durable subject on which the answer is to be kept."""

    LONGEST = 400

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="inquiries")
    answer_to = models.CharField(max_length=LONGEST)
    asked_at = models.DateTimeField()
    answered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "inquiries"
        constraints = [models.UniqueConstraint(fields=["run", "answer_to"], name="one_inquiry")]
        indexes = [models.Index(fields=["asked_at"], name="inquiry_open", condition=Q(answered_at=None))]

    def __str__(self) -> str:
        return self.answer_to
