"""Agents elsewhere, as their own words tell of them: that they live, and in which sessions they work."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from operators.models.project import Actor, Project
from operators.models.run import Run

#: How often an agent that says no other interval is expected to say that it lives, in seconds, and how many silences
#: make it silent.
BEAT_SECONDS = 10.0
MOST_MISSED = 3


class AgentQuerySet(models.QuerySet["Agent"]):
    """Which agents."""

    def visible_to(self, user: Actor) -> AgentQuerySet:
        """Those of the user's projects."""
        return self.filter(project__in=Project.objects.visible_to(user))

    def operable_by(self, user: Actor) -> AgentQuerySet:
        """Those that the user may stop."""
        return self.filter(project__in=Project.objects.operable_by(user))


class Agent(models.Model):
    """One agent elsewhere. `health` and `beat_at` are from its last word on its health, if it ever sent one."""

    class State(models.TextChoices):
        """What is known of it."""

        RUNNING = "running"
        IDLE = "idle"
        SILENT = "silent"
        ERROR = "error"
        STOPPED = "stopped"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="agents")
    name = models.CharField(max_length=200)
    role = models.CharField(max_length=80, blank=True)
    health = models.CharField(max_length=40, blank=True)
    beat_seconds = models.FloatField(default=BEAT_SECONDS)
    beat_at = models.DateTimeField(null=True, blank=True)
    heard_at = models.DateTimeField()
    created_at = models.DateTimeField()

    objects = AgentQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="one_agent_per_name")]
        indexes = [models.Index(fields=["project", "-created_at"], name="agent_newest")]

    def __str__(self) -> str:
        return self.name

    def state(self, now: datetime | None = None) -> str:
        """Return what is known of it. One that never tells of its health is believed to live until it has stopped."""
        open_still = any(stint.open for stint in self.stints.all())
        if self.beat_at is None:
            return Agent.State.RUNNING if open_still else Agent.State.STOPPED
        silence = (now or timezone.now()) - self.heard_at
        if silence > timedelta(seconds=MOST_MISSED * self.beat_seconds):
            return Agent.State.SILENT if open_still else Agent.State.STOPPED
        if self.health in ("error", "down"):
            return Agent.State.ERROR
        return Agent.State.RUNNING if open_still else Agent.State.IDLE


class StintQuerySet(models.QuerySet["Stint"]):
    """Which stints."""

    def open(self) -> StintQuerySet:
        """Those that were begun and have not ended since."""
        return self.filter(Q(stopped_at=None) | Q(stopped_at__lt=F("started_at")), started_at__isnull=False)


class Stint(models.Model):
    """An agent's work in one session. Both times are the latest that it told, so that their order does not matter."""

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="stints")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="stints")
    role = models.CharField(max_length=80, blank=True)
    container_id = models.CharField(max_length=200, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    stopped_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=500, blank=True)

    objects = StintQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["agent", "run"], name="one_stint")]

    def __str__(self) -> str:
        return f"{self.agent} in {self.run_id}"

    @property
    def open(self) -> bool:
        """Whether it goes on."""
        return self.started_at is not None and (self.stopped_at is None or self.stopped_at < self.started_at)
