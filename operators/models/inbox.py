"""The inbox: inbound messages that may change a run, each kept once before it is applied."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from operators.models.jsonfield import JSONField
from operators.models.project import Project


class InboxItem(models.Model):
    """One inbound message. `correlation_id` names it within its type, so that a repeated one is the same one."""

    class Status(models.TextChoices):
        """Where it stands; a stuck one is applied again."""

        PENDING = "pending"
        PROCESSING = "processing"
        CONSUMED = "consumed"
        SKIPPED = "skipped"
        ERROR = "error"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    type = models.CharField(max_length=40)
    correlation_id = models.CharField(max_length=200)
    run_id = models.CharField(max_length=64, blank=True)
    body = JSONField(default=dict)
    status = models.CharField(max_length=12, choices=Status, default=Status.PENDING)
    reason = models.TextField(blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    received_at = models.DateTimeField()
    changed_at = models.DateTimeField()

    class Meta:
        ordering = ["-received_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "type", "correlation_id"], name="one_inbox_item"),
        ]
        indexes = [
            models.Index(fields=["changed_at"], name="inbox_open", condition=Q(status__in=["pending", "processing"]))
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.correlation_id}"
