"""Effects: what nodes do to the outside world, noted before it is tried."""

from __future__ import annotations

from django.db import models

from operators.models.jsonfield import JSONField
from operators.models.run import Run


class Effect(models.Model):
    """One act of one visit of a node. Left `attempted` by a dead worker it is unknown whether it happened."""

    class State(models.TextChoices):
        """What is known of it."""

        ATTEMPTED = "attempted"
        CONFIRMED = "confirmed"
        FAILED = "failed"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="effects")
    node = models.CharField(max_length=80)
    step_id = models.CharField(max_length=64)
    key = models.CharField(max_length=200)
    state = models.CharField(max_length=12, choices=State)
    attempts = models.PositiveSmallIntegerField(default=1)
    result = JSONField(null=True, blank=True)
    attempted_at = models.DateTimeField()
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "step_id", "key"], name="one_effect_per_visit")]

    def __str__(self) -> str:
        return f"{self.node}/{self.key} of {self.run_id}"
