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
#: What an agent says of its health when something is wrong with it.
FAULTY = ("error", "down")


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

    def working(self) -> list[Stint]:
        """Return its stints that go on, the latest first; a list may have fetched them beforehand, as `open_stints`."""
        fetched: list[Stint] | None = getattr(self, "open_stints", None)
        return list(self.stints.open().order_by("-started_at")) if fetched is None else fetched

    def state(self, now: datetime | None = None) -> str:
        """Return what is known of it. One that never tells of its health is believed to live until it has stopped."""
        works = bool(self.working())
        if self.beat_at is None:
            return Agent.State.RUNNING if works else Agent.State.STOPPED
        silence = (now or timezone.now()) - self.heard_at
        if silence > timedelta(seconds=MOST_MISSED * self.beat_seconds):
            return Agent.State.SILENT if works else Agent.State.STOPPED
        if self.health in FAULTY:
            return Agent.State.ERROR
        return Agent.State.RUNNING if works else Agent.State.IDLE


class StintQuerySet(models.QuerySet["Stint"]):
    """Which stints."""

    def open(self) -> StintQuerySet:
        """Those that were begun and have not ended since, in sessions that have not ended either."""
        later = Q(stopped_at=None) | Q(stopped_at__lt=F("started_at"))
        return self.filter(later, started_at__isnull=False, run__status__in=Run.ACTIVE)


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
