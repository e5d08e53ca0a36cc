"""Cards: immutable payloads, named by their content, that events point at instead of carrying them."""

from __future__ import annotations

from django.db import models

from operators.models.jsonfield import JSONField
from operators.models.project import Project


class Card(models.Model):
    """One JSON value of one project, kept once however often it is pointed at. `size` is in bytes."""

    # The constraint begins with it.
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="cards", db_index=False)
    sha256 = models.CharField(max_length=64)
    content = JSONField()
    size = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "sha256"], name="one_card_per_content")]

    def __str__(self) -> str:
        return self.sha256
