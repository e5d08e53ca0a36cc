"""Messages at which the bridge may have ended."""

from __future__ import annotations

from django.db import models


class Suspect(models.Model):
    """A message that came often and is being dealt with by itself. Its row outlives only a bridge that ends at it."""

    position = models.CharField(max_length=300, primary_key=True)
    times = models.PositiveIntegerField(default=0)
    begun_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.position}: {self.times} times"
