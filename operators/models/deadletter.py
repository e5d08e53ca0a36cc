"""Messages that could not be read, kept whole with the reason."""

from __future__ import annotations

from django.db import models

from operators.models.jsonfield import JSONField


class DeadLetter(models.Model):
    """One message that the bridge refused. `replayed_at` is when it was read after all."""

    subject = models.TextField()
    headers = JSONField(default=dict)
    body = models.BinaryField()
    reason = models.TextField()
    digest = models.CharField(max_length=64, unique=True)
    received_at = models.DateTimeField(auto_now_add=True)
    replayed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-received_at"]

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}"

    @property
    def text(self) -> str:
        """The body as far as it is text."""
        return bytes(self.body).decode(errors="replace")
