"""The context that a project's operators share: values with revisions, and their history."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from operators.models.jsonfield import JSONField
from operators.models.project import Actor, Project


class ContextQuerySet(models.QuerySet["ContextEntry"]):
    """Which values: somebody's, and those that are there."""

    def visible_to(self, user: Actor) -> ContextQuerySet:
        """Those of the user's projects."""
        return self.filter(project__in=Project.objects.visible_to(user))

    def present(self) -> ContextQuerySet:
        """Those that have not been deleted."""
        return self.filter(deleted=False)


class ContextEntry(models.Model):
    """One value. `revision` rises with every change, also over a deletion; a writer may quote the one it read.

    `watched` says whether runs may be waiting for the next change. `mirrored_revision` is the newest one that NATS KV
    has, and `kv_revision` what NATS KV calls it.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="context")
    bucket = models.CharField(max_length=40)
    key = models.CharField(max_length=400)
    value = JSONField(null=True)
    revision = models.PositiveIntegerField(default=1)
    deleted = models.BooleanField(default=False)
    author = models.CharField(max_length=200, blank=True)
    updated_at = models.DateTimeField()
    watched = models.BooleanField(default=False)
    mirrored_revision = models.PositiveIntegerField(default=0)
    kv_revision = models.PositiveBigIntegerField(default=0)

    objects = ContextQuerySet.as_manager()

    class Meta:
        ordering = ["bucket", "key"]
        verbose_name_plural = "context entries"
        constraints = [models.UniqueConstraint(fields=["project", "bucket", "key"], name="one_value_per_key")]
        indexes = [
            models.Index(
                fields=["updated_at"], name="context_unmirrored", condition=Q(mirrored_revision__lt=F("revision"))
            )
        ]

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}"


class ContextRevision(models.Model):
    """What a value was."""

    entry = models.ForeignKey(ContextEntry, on_delete=models.CASCADE, related_name="history")
    revision = models.PositiveIntegerField()
    value = JSONField(null=True)
    deleted = models.BooleanField(default=False)
    author = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ["-revision"]
        constraints = [models.UniqueConstraint(fields=["entry", "revision"], name="one_row_per_revision")]

    def __str__(self) -> str:
        return f"{self.entry_id}@{self.revision}"
