"""Notices: messages of ours that tell of no recorded event, kept until the bus has taken them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from operators.models.jsonfield import JSONField
from operators.models.run import Run


class Notice(models.Model):
    """One message, written with what it tells of. Its `message_id` makes a repeated one the same one."""

    subject = models.CharField(max_length=300)
    type = models.CharField(max_length=80)
    message_id = models.CharField(max_length=80, unique=True)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, null=True, blank=True, related_name="+")
    traceparent = models.CharField(max_length=64, blank=True)
    depth = models.PositiveIntegerField(default=0)
    passed_on = JSONField(default=dict)
    body = JSONField(default=dict)
    written_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["written_at"], name="notice_unsent", condition=Q(sent_at=None))]

    def __str__(self) -> str:
        return f"{self.type} on {self.subject}"
