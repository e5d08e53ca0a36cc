"""Boxes: ordered lists of cards, such as what a turn began with and what it delivered."""

from __future__ import annotations

from django.db import models

from operators.models.jsonfield import JSONField
from operators.models.project import Project


class Box(models.Model):
    """One list of cards of one project; `cards` are their `sha256`, in order. It never changes."""

    LONGEST = 100

    # The constraint begins with it.
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="boxes", db_index=False)
    name = models.CharField(max_length=LONGEST)
    cards = JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="one_box_per_name")]

    def __str__(self) -> str:
        return self.name
