"""Runs. Every transition is one conditional update; no row changed means that somebody else was first."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q

from openvibe.protocol import headers, turns
from operators.models.jsonfield import JSONField
from operators.models.operator import Node, Operator, Workflow
from operators.models.project import Actor, Project
from operators.models.statements import update_returning


class RunQuerySet(models.QuerySet["Run"]):
    """Which runs: somebody's, unfinished ones, and the one row that a transition is about."""

    def visible_to(self, user: Actor) -> RunQuerySet:
        """Those of the user's projects."""
        return self.filter(project__in=Project.objects.visible_to(user))

    def operable_by(self, user: Actor) -> RunQuerySet:
        """Those that the user may cancel and decide about."""
        return self.filter(project__in=Project.objects.operable_by(user))

    def active(self) -> RunQuerySet:
        """Those that have not ended."""
        return self.filter(status__in=Run.ACTIVE)

    def sessions(self) -> RunQuerySet:
        """Those whose workflow hands work to agents elsewhere."""
        return self.filter(Exists(Node.objects.filter(workflow=OuterRef("workflow_id"), kind="remote")))

    def queue(self) -> RunQuerySet:
        """Those that are queued, in the order in which their turn comes."""
        return self.filter(status=Run.Status.QUEUED).order_by("-priority", "created_at", "id")

    def ended(self) -> RunQuerySet:
        """Those that have ended."""
        return self.filter(status__in=Run.ENDED)

    def for_bells(self) -> RunQuerySet:
        """Read no more of them than a bell needs."""
        return self.select_related("operator").only("id", "rung_at", "rings", "operator")

    def claimed(self, run_id: str, epoch: int) -> RunQuerySet:
        """The run, if the claim with this fencing number still holds."""
        return self.filter(id=run_id, epoch=epoch, status=Run.Status.RUNNING)

    def change(self, *fields: str, **values: Any) -> tuple[Any, ...] | None:
        """Update the one selected row and return these fields, or None if the condition no longer holds."""
        if "last_seq" in values:
            values.setdefault("told", False)
        return update_returning(self, *fields, **values)


class Run(models.Model):
    """One execution of a workflow, from its trigger to its end.

    `epoch` is the fencing number: every claim raises it, and a write with an older one changes nothing. `last_seq` is
    the number of the newest event in the run's thread, `announced_seq` the newest one that the bus has taken,
    and `told` says that it has taken all of a run that is not being played. `parent`
    is the run that started this one, `depth` the number of runs above it. `passed_on` are headers of whatever started
    it, which go on in all that it says, as its `traceparent` does. `key` names the request, so that one that comes
    twice starts one run; it is null where nobody gave one. `key_sha256` is the hash of what was asked for.
    `forked_from` is the run whose state this one began with, `forked_at` the step there. Of the runs that wait for a
    slot the one with the highest `priority` is next, then the oldest. `losses` counts the workers that died while they
    played it, since its last finished step; `retries` how often it was let try again after it had failed. `archived_at`
    is when its events were taken out of the database, `pruned_at` when its checkpoints were. `allowance_usd` is
    what a person has allowed it to cost in all, where a budget was used up.
    """

    class Status(models.TextChoices):
        """Where a run stands; the words are on pages and on the wire."""

        QUEUED = "queued"
        RUNNING = "running"
        WAITING = "waiting"
        COMPLETED = "completed"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ACTIVE = (Status.QUEUED, Status.RUNNING, Status.WAITING)
    ENDED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)

    id = models.CharField(primary_key=True, max_length=64)
    # Every change of status writes into every index: the few below serve foreign keys, too.
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="runs", db_index=False)
    operator = models.ForeignKey(Operator, on_delete=models.PROTECT, related_name="runs", db_index=False)
    workflow = models.ForeignKey(Workflow, on_delete=models.PROTECT, related_name="runs", db_index=False)
    workflow_version = models.CharField(max_length=12)
    trigger = models.CharField(max_length=200)
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
    )
    traceparent = models.CharField(max_length=64, blank=True)
    passed_on = JSONField(default=dict)
    parent = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="children", db_index=False
    )
    depth = models.PositiveSmallIntegerField(default=0)
    forked_from = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="forks", db_index=False
    )
    forked_at = models.CharField(max_length=64, blank=True)
    priority = models.SmallIntegerField(default=0)
    key = models.CharField(max_length=200, null=True, blank=True)
    key_sha256 = models.CharField(max_length=64, blank=True)

    status = models.CharField(max_length=12, choices=Status, default=Status.QUEUED)
    epoch = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    rung_at = models.DateTimeField(null=True, blank=True)
    rings = models.PositiveSmallIntegerField(default=0)
    losses = models.PositiveSmallIntegerField(default=0)
    retries = models.PositiveSmallIntegerField(default=0)
    last_seq = models.PositiveIntegerField(default=0)
    announced_seq = models.PositiveIntegerField(default=0)
    told = models.BooleanField(default=False)

    input = JSONField(default=dict)
    output = JSONField(null=True, blank=True)
    error = JSONField(null=True, blank=True)

    tokens_in = models.PositiveIntegerField(default=0)
    tokens_out = models.PositiveIntegerField(default=0)
    cost_usd = models.DecimalField(max_digits=14, decimal_places=8, default=Decimal(0))
    allowance_usd = models.DecimalField(max_digits=12, decimal_places=4, null=True, blank=True)
    unpriced_calls = models.PositiveIntegerField(default=0)
    llm_calls = models.PositiveIntegerField(default=0)
    nodes_executed = models.PositiveIntegerField(default=0)
    nodes_failed = models.PositiveIntegerField(default=0)
    running_seconds = models.FloatField(default=0)

    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    updated_at = models.DateTimeField()
    archived_at = models.DateTimeField(null=True, blank=True)
    pruned_at = models.DateTimeField(null=True, blank=True)

    #: Whether the request that returned this object made the run; not stored.
    new = False

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["project", "key"], name="one_run_per_key")]
        # What every step writes (the lease, counters, `updated_at`) stands in no index, so that PostgreSQL changes the
        # row within its page and touches none of them.
        indexes = [
            models.Index(fields=["project", "-created_at"], name="run_newest"),
            models.Index(fields=["operator", "-created_at"], name="run_of_operator"),
            models.Index(fields=["parent"], name="run_children", condition=Q(parent__isnull=False)),
            models.Index(fields=["forked_from"], name="run_forks", condition=Q(forked_from__isnull=False)),
            models.Index(fields=["project", "operator"], name="run_slots", condition=Q(status="running")),
            models.Index(
                fields=["project", "-priority", "created_at", "id"], name="run_turns", condition=Q(status="queued")
            ),
            models.Index(
                fields=["project", "ended_at"],
                name="run_archivable",
                condition=Q(archived_at=None, ended_at__isnull=False),
            ),
            models.Index(
                fields=["project", "ended_at"], name="run_prunable", condition=Q(pruned_at=None, ended_at__isnull=False)
            ),
            models.Index(
                fields=["expires_at"],
                name="run_expiring",
                condition=Q(status__in=["queued", "running", "waiting"], expires_at__isnull=False),
            ),
            models.Index(fields=["created_at"], name="run_untold", condition=Q(told=False)),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.status in Run.ACTIVE

    @property
    def turn_id(self) -> str:
        """Its `agent_turn_id` on the wire: each retry is a turn of its own."""
        return turns.turn_id(self.id, self.retries)

    @property
    def tracestate(self) -> str:
        """What belongs to its `traceparent`, or an empty text."""
        return str(self.passed_on.get(headers.TRACESTATE, ""))

    @property
    def cost(self) -> Decimal | None:
        """US dollars, or None if the price of a call is not known."""
        return None if self.unpriced_calls else self.cost_usd

    def duration_seconds(self, now: datetime) -> float:
        """Seconds from the start to the end, or until now."""
        begin = self.started_at or self.created_at
        return max(0.0, ((self.ended_at or now) - begin).total_seconds())
