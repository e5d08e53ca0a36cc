"""Tenants, who belongs to them, and the tokens by which programs come in."""

from __future__ import annotations

import hashlib
import secrets

from django.conf import settings
from django.contrib.auth.models import AbstractUser, AnonymousUser
from django.db import models

DEFAULT = "default"

#: Whoever acts: a signed-in user, or nobody.
Actor = AbstractUser | AnonymousUser


class ProjectQuerySet(models.QuerySet["Project"]):
    """Which projects somebody may enter."""

    def names(self) -> list[str]:
        """Their ids, in order."""
        return list(self.order_by("id").values_list("id", flat=True))

    def visible_to(self, user: Actor) -> ProjectQuerySet:
        """Those the user is a member of; all of them for a superuser."""
        if user.is_superuser:
            return self
        # Nobody's key is null, and a filter on null would find the projects without members.
        return self.none() if user.pk is None else self.filter(memberships__user_id=user.pk)

    def operable_by(self, user: Actor) -> ProjectQuerySet:
        """Those in which the user may start, cancel and decide."""
        if user.is_superuser:
            return self
        if user.pk is None:
            return self.none()
        return self.filter(memberships__user_id=user.pk, memberships__role__in=Membership.OPERATING)

    def overridable_by(self, user: Actor) -> ProjectQuerySet:
        """Those in which the user may override what certain people are asked: a right that no role brings."""
        if user.is_superuser:
            return self
        if user.pk is None:
            return self.none()
        held = {"memberships__role__in": Membership.OPERATING, "memberships__may_override": True}
        return self.filter(memberships__user_id=user.pk, **held)

    def owned_by(self, user: Actor) -> ProjectQuerySet:
        """Those whose definitions the user may change."""
        if user.is_superuser:
            return self
        if user.pk is None:
            return self.none()
        return self.filter(memberships__user_id=user.pk, memberships__role=Membership.Role.OWNER)


class Project(models.Model):
    """A tenant. Its id is a token of NATS subjects."""

    id = models.SlugField(primary_key=True, max_length=64)
    name = models.CharField(max_length=200)
    max_running = models.PositiveIntegerField(
        "most running at once", null=True, blank=True, help_text="Further runs wait their turn. Empty: no limit."
    )
    keep_events_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Days after its end after which a run's events, waits and effects are archived. Empty: never.",
    )
    keep_checkpoints_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Days after its end after which a run can be neither retried nor forked. Empty: never.",
    )
    ui_allowed = models.CharField(
        "allowed to user interfaces",
        max_length=200,
        blank=True,
        help_text="What programs may do over NATS in the name of a user whom they name themselves, of: "
        "start cancel retry approve answer. Empty: nothing.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ProjectQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """What one user may do in one project."""

    class Role(models.TextChoices):
        """From looking on to changing definitions."""

        VIEWER = "viewer", "Viewer: sees"
        OPERATOR = "operator", "Operator: starts, cancels, decides"
        OWNER = "owner", "Owner: everything"

    OPERATING = (Role.OPERATOR, Role.OWNER)

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=20, choices=Role, default=Role.VIEWER)
    may_override = models.BooleanField(
        "overrides",
        default=False,
        help_text="May change the state of runs that stand at open gates, and fork runs with other values after gates "
        "that ask certain people. No role brings this; a viewer has no use for it.",
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "user"], name="one_membership_per_project")]

    def __str__(self) -> str:
        return f"{self.user} in {self.project_id}"


class ApiToken(models.Model):
    """A bearer token: its user's rights in one project. Only a hash is kept, so a stolen database opens nothing."""

    key_sha256 = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=100)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="tokens")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name

    @staticmethod
    def fingerprint(key: str) -> str:
        """Return what is kept of a key."""
        return hashlib.sha256(key.encode()).hexdigest()

    @staticmethod
    def new_key() -> str:
        """Return a fresh key with 256 random bits."""
        return f"ov_{secrets.token_urlsafe(32)}"
