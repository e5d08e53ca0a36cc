"""Who wants to be told of events over HTTP, and each telling."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from operators import seals
from operators.models.jsonfield import JSONField
from operators.models.operator import Operator
from operators.models.project import Project


class Subscription(models.Model):
    """An address that is told of a project's events, until it is deleted or has refused too often.

    `cursor` is the number of the general channel's newest event that has been looked at, `failures` counts attempts
    that have failed since the last one that did not. `disabled_reason` is empty while it is enabled. `sealed_secret`
    cannot be read here (see `operators.seals`).
    """

    id = models.CharField(primary_key=True, max_length=64)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="subscriptions")
    url = models.CharField(max_length=2000)
    kinds = JSONField(default=list)
    operator = models.ForeignKey(Operator, on_delete=models.CASCADE, null=True, blank=True, related_name="+")
    sealed_secret = models.TextField()
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField()
    cursor = models.PositiveBigIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.TextField(blank=True)

    class Meta:
        ordering = ["created_at", "id"]

    def __str__(self) -> str:
        return f"{self.id} of {self.project_id}"

    @property
    def secret(self) -> str:
        """The key of the signatures; raises `SealBroken` if it was sealed with another `SECRET_KEY`."""
        return seals.opened(self.sealed_secret)


class Delivery(models.Model):
    """One event on its way to one address. `source` names the event, so that it is told once however often it is found.

    `next_at` is when it is tried next; whoever tries it moves that on first.
    """

    class Status(models.TextChoices):
        """Where it stands."""

        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"

    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE, related_name="deliveries")
    source = models.CharField(max_length=120)
    kind = models.CharField(max_length=80)
    body = JSONField()
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField()
    error = models.TextField(blank=True)
    created_at = models.DateTimeField()
    delivered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "deliveries"
        constraints = [models.UniqueConstraint(fields=["subscription", "source"], name="one_delivery_per_event")]
        indexes = [models.Index(fields=["next_at"], name="delivery_due", condition=Q(status="pending"))]

    def __str__(self) -> str:
        return f"{self.kind} ({self.source}) to {self.subscription_id}"
