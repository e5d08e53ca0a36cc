"""Waits: the durable pauses of runs. A gate is a wait of kind `approval`, as people see it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Coalesce

from openvibe import answers, interrupts
from openvibe.outcomes import EACH, TERMINATE
from operators.models.jsonfield import JSONField
from operators.models.project import Actor, Project
from operators.models.run import Run

#: What others do for a run, and are to be told when it is not needed any more.
RECALLABLE = ("tool", "work", "reply")
UNRECALLED = Q(kind__in=RECALLABLE, status__in=["cancelled", "expired"], recalled_at=None, sent_at__isnull=False)
#: How the name of a pause begins whose run's state was overridden: it is no pause any more, and is asked anew.
OVERRIDDEN = "overridden/"


class WaitQuerySet(models.QuerySet["Wait"]):
    """Which waits: somebody's, open ones, gates."""

    def visible_to(self, user: Actor) -> WaitQuerySet:
        """Those of the user's projects."""
        return self.filter(run__project__in=Project.objects.visible_to(user))

    def pending(self) -> WaitQuerySet:
        """Those that nobody has answered."""
        return self.filter(status=Wait.Status.PENDING)

    def unrecalled(self) -> WaitQuerySet:
        """What others were told to do, for which nobody waits any more, and they do not know yet."""
        return self.filter(UNRECALLED)

    def gates(self) -> WaitQuerySet:
        """Those that wait for a person."""
        return self.filter(kind=Wait.Kind.APPROVAL)

    def cancel(self, *, now: datetime) -> int:
        """Close those that nobody has answered, and return how many; who may have been told counts as told."""
        sent_at = Coalesce("sent_at", "tried_at")
        return self.pending().update(status=Wait.Status.CANCELLED, closed_at=now, sent_at=sent_at)


class Wait(models.Model):
    """One pause of one run.

    `payload_sha256` covers what the person saw, and `version` rises when that changes; a decision quotes both.
    `interrupt_id` is LangGraph's name for the pause: the answer goes there and nowhere else. An engine wait, which lies
    between super-steps, has a name with a `/` in it and no answer. `form` is how a foreign graph wants its answer.
    `sent_at` is when whoever is to answer was told, where that is not a person or the clock, `tried_at` when somebody
    tried last to tell them, `recalled_at` when they were told that nobody waits for it any more. Gates have a
    `decision`, the other kinds a `result` or an `error`; the decision of a tool's result may be `TERMINATE`: it ends
    the run.

    Waits of one interrupt are a group: `seat` counts them, and under `rule` so many good answers as `needed` end it.
    Under the rule `each` the others stay open, and the group in which the run waits next takes those along whose `name`
    is asked for again. `approver` is the user, or the group of users, that a gate of a group is asked of; `assignee` is
    who is asked after the deadline.
    """

    class Kind(models.TextChoices):
        """Who may answer."""

        APPROVAL = "approval"
        TIMER = "timer"
        TOOL = "tool"
        WORK = "work"
        REPLY = "reply"
        CHANGE = "change"

    class Status(models.TextChoices):
        """Where a wait stands."""

        PENDING = "pending"
        RESOLVED = "resolved"
        EXPIRED = "expired"
        CANCELLED = "cancelled"

    id = models.CharField(primary_key=True, max_length=64)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="waits")
    kind = models.CharField(max_length=12, choices=Kind)
    status = models.CharField(max_length=12, choices=Status, default=Status.PENDING)
    node = models.CharField(max_length=80)
    step_id = models.CharField(max_length=64)
    interrupt_id = models.CharField(max_length=200)
    seat = models.PositiveSmallIntegerField(default=0)
    rule = models.CharField(max_length=8, blank=True)
    needed = models.PositiveSmallIntegerField(default=0)
    approver = models.CharField(max_length=200, blank=True)
    name = models.CharField(max_length=200, blank=True)
    form = models.CharField(max_length=20, blank=True)
    version = models.PositiveIntegerField(default=1)
    payload_sha256 = models.CharField(max_length=64)
    prompt = models.TextField()
    payload = JSONField(default=dict)
    schema = JSONField(default=dict)
    decisions = JSONField(default=list)
    edits = JSONField(default=list)
    deadline = models.DateTimeField(null=True, blank=True)
    on_timeout = models.CharField(max_length=80, blank=True)
    timeout_seconds = models.FloatField(null=True, blank=True)
    escalate_to = models.CharField(max_length=200, blank=True)
    assignee = models.CharField(max_length=200, blank=True)
    opened_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)
    tried_at = models.DateTimeField(null=True, blank=True)
    recalled_at = models.DateTimeField(null=True, blank=True)

    closed_at = models.DateTimeField(null=True, blank=True)
    decision = models.CharField(max_length=80, blank=True)
    notes = models.TextField(blank=True)
    values = JSONField(null=True, blank=True)
    result = JSONField(null=True, blank=True)
    error = models.TextField(blank=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    decider = models.CharField(max_length=200, blank=True)

    objects = WaitQuerySet.as_manager()

    class Meta:
        ordering = ["opened_at", "seat", "id"]
        constraints = [
            # The same pause is one wait, however often its super-step is played.
            models.UniqueConstraint(fields=["run", "interrupt_id", "seat"], name="one_wait_per_seat"),
        ]
        indexes = [
            models.Index(fields=["deadline"], name="wait_due", condition=Q(status="pending")),
            models.Index(fields=["opened_at"], name="wait_open", condition=Q(status="pending")),
            models.Index(
                fields=["opened_at"],
                name="wait_unsent",
                condition=Q(status="pending", sent_at=None),
            ),
            models.Index(
                fields=["closed_at"],
                name="wait_unrecalled",
                condition=UNRECALLED,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.node} of {self.run_id}"

    @property
    def pending(self) -> bool:
        """Whether nobody has answered yet."""
        return self.status == Wait.Status.PENDING

    @property
    def counted(self) -> bool:
        """Whether its answer is one of several that decide together."""
        return self.rule not in ("", EACH)

    @property
    def overridden(self) -> bool:
        """Whether the state behind it has been changed, and it has not been asked anew since."""
        return self.interrupt_id.startswith(OVERRIDDEN)

    @property
    def group(self) -> WaitQuerySet:
        """The waits that are answered together with this one, itself among them."""
        return Wait.objects.filter(run_id=self.run_id, interrupt_id=self.interrupt_id).order_by("seat")

    @property
    def answer(self) -> Any:
        """What goes into the graph."""
        if self.kind != Wait.Kind.APPROVAL:
            ends = {"ends": True} if self.decision == TERMINATE else {}
            return answers.settled(self.kind, self.payload, result=self.result, error=self.error) | ends
        answer = {"decision": self.decision, "notes": self.notes, "values": self.values or {}}
        return interrupts.resume(self.form, self.payload, answer) if self.form else answer
