"""Emissions: events for other operators, written with the step that emitted them and delivered afterwards."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from operators.models.jsonfield import JSONField
from operators.models.project import Project
from operators.models.run import Run


class Emission(models.Model):
    """One emitted event. It is `delivered` when the workflows that listen to it have been started, and `published`
    when the bus has taken it.
    """

    id = models.CharField(primary_key=True, max_length=64)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="emissions")
    name = models.CharField(max_length=200)
    payload = JSONField(default=dict)
    emitted_at = models.DateTimeField()
    delivered_at = models.DateTimeField(null=True, blank=True)
    published_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["emitted_at"], name="emission_undelivered", condition=Q(delivered_at=None)),
            models.Index(fields=["emitted_at"], name="emission_unpublished", condition=Q(published_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.run_id}"
