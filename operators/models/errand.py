"""Errands: calls of tools of our own, the runs that each has started, and what it came to."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from operators.models.jsonfield import JSONField
from operators.models.project import Project


class Errand(models.Model):
    """One call. `caller` quotes who has called and how; `wait_id` is the wait of a run of ours that called.

    `tasks` are what was asked for; the run of each bears the key `run_key(index)`. `look_at` is when the clock looks
    after it. `result` and `outcome`, a status of the dialect `cg`, are there when it is closed, `told_at` is when
    the caller knew.
    """

    class Status(models.TextChoices):
        """Where it stands."""

        RUNNING = "running"
        CLOSED = "closed"

    #: What the key of a run begins with that an errand has started.
    KEY = "errand:"

    id = models.CharField(primary_key=True, max_length=64)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    tool = models.CharField(max_length=40)
    caller = JSONField(default=dict)
    wait_id = models.CharField(max_length=64, blank=True)
    depth = models.PositiveSmallIntegerField(default=0)
    traceparent = models.CharField(max_length=64, blank=True)
    passed_on = JSONField(default=dict)
    tasks = JSONField(default=list)
    fail_fast = models.BooleanField(default=False)
    status = models.CharField(max_length=12, choices=Status, default=Status.RUNNING)
    outcome = models.CharField(max_length=12, blank=True)
    result = JSONField(null=True, blank=True)
    created_at = models.DateTimeField()
    deadline = models.DateTimeField(null=True, blank=True)
    look_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    told_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["look_at"], name="errand_open", condition=Q(told_at=None)),
            models.Index(fields=["wait_id"], name="errand_of_wait"),
        ]

    def __str__(self) -> str:
        return f"{self.tool} {self.id}"

    def run_key(self, index: int) -> str:
        """Return the key of the run that does this task."""
        return f"{self.KEY}{self.id}:{index}"

    @classmethod
    def of_key(cls, key: str) -> str:
        """Return the id of the errand that has started a run with this key."""
        return key.removeprefix(cls.KEY).rpartition(":")[0]
