"""Operators and their workflows as people see and configure them. The code behind them lives in `definitions`."""

from __future__ import annotations

from typing import Any

from django.core.validators import MinValueValidator
from django.db import models

from openvibe.subscriptions import Listen
from operators.models.jsonfield import JSONField
from operators.models.project import Actor, Project

#: The operator that every external run belongs to; nobody sees it in lists, and nobody can start it.
EXTERNAL = "external_agents"


class OperatorQuerySet(models.QuerySet["Operator"]):
    """Which operators somebody may see."""

    def visible_to(self, user: Actor) -> OperatorQuerySet:
        """Those of the user's projects."""
        return self.filter(project__in=Project.objects.visible_to(user), retired=False)

    def operable_by(self, user: Actor) -> OperatorQuerySet:
        """Those that the user may start."""
        return self.filter(project__in=Project.objects.operable_by(user), retired=False)


#: An amount of US dollars that may be left open.
AMOUNT: dict[str, Any] = {
    "max_digits": 12, "decimal_places": 4, "null": True, "blank": True, "validators": [MinValueValidator(0.0001)]
}  # fmt: skip


class Operator(models.Model):
    """A named actor. `slug` is the id that its author gave it.

    `source` is the hash of the text behind it, if somebody registered it over REST; empty for one from code.
    `declared_budget` is the definition's budget; what an administrator changed stays until the definition changes.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="operators")
    slug = models.SlugField("id", max_length=64)
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    owner = models.CharField(max_length=200, blank=True)
    enabled = models.BooleanField(default=True, help_text="A disabled operator starts no new runs.")
    max_running = models.PositiveIntegerField(
        "most running at once", null=True, blank=True, help_text="Further runs wait their turn. Empty: no limit."
    )
    budget_run_usd = models.DecimalField(
        "a run may cost, in US dollars", **AMOUNT, help_text="Then a person is asked. Empty: no limit."
    )
    budget_day_usd = models.DecimalField(
        "the runs of a day may cost", **AMOUNT, help_text="Those that began that day, UTC. Empty: no limit."
    )
    budget_month_usd = models.DecimalField(
        "the runs of a month may cost", **AMOUNT, help_text="Those that began that month, UTC. Empty: no limit."
    )
    declared_budget = JSONField(null=True, blank=True, editable=False)
    registered_at = models.DateTimeField(auto_now=True)
    source = models.CharField(max_length=64, blank=True, editable=False)
    retired = models.BooleanField(default=False, editable=False, help_text="Removed; its runs are kept.")

    objects = OperatorQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "slug"], name="one_operator_per_id")]
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class OperatorSource(models.Model):
    """The YAML of an operator that somebody registered over REST. Every process of the server reads it from here."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="sources")
    # Definitions are known by their id alone, whatever the project.
    slug = models.SlugField("id", max_length=64, unique=True)
    text = models.TextField()
    digest = models.CharField(max_length=64)
    author = models.CharField(max_length=200, blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.slug


class Workflow(models.Model):
    """One workflow. `spec` is its frozen description (`openvibe.specs.WorkflowSpec`) as JSON, `version` its hash."""

    operator = models.ForeignKey(Operator, on_delete=models.CASCADE, related_name="workflows")
    slug = models.SlugField("id", max_length=64)
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    trigger_id = models.SlugField(max_length=64)
    trigger = models.CharField(max_length=200)
    version = models.CharField(max_length=12)
    spec = JSONField(default=dict)
    position = models.PositiveSmallIntegerField(default=0)
    retired = models.BooleanField(default=False, help_text="No longer defined in code; its runs are kept.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["operator", "slug"], name="one_workflow_per_id")]
        ordering = ["position", "slug"]

    def __str__(self) -> str:
        return f"{self.operator_id}/{self.slug}"

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of what a start may give."""
        schema: dict[str, Any] = self.spec["input_schema"]
        return schema

    @property
    def sample_input(self) -> dict[str, Any]:
        """An input that works."""
        sample: dict[str, Any] = self.spec["sample_input"]
        return sample

    @property
    def subscriptions(self) -> tuple[Listen, ...]:
        """Every event that starts it: its trigger's, if that is one, and those it listens to."""
        kind, _, source = self.trigger.partition(":")
        own = (Listen(source),) if kind == "event" else ()
        return own + tuple(Listen(**item) for item in self.spec.get("listens", ()))

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Every request that it answers."""
        kind, _, source = self.trigger.partition(":")
        return ((source,) if kind == "request" else ()) + tuple(filter(None, [self.spec.get("capability")]))

    @property
    def gates(self) -> list[str]:
        """The ids of the nodes that wait for a person."""
        return [node["id"] for node in self.spec["nodes"] if node["kind"] == "gate"]


class Node(models.Model):
    """One step's definition, and what an administrator changed about it."""

    workflow = models.ForeignKey(Workflow, on_delete=models.CASCADE, related_name="nodes")
    slug = models.SlugField("id", max_length=64)
    kind = models.CharField(max_length=20)
    position = models.PositiveSmallIntegerField(default=0)
    default_model = models.CharField(max_length=100, blank=True)
    model = models.CharField(
        max_length=100, blank=True, help_text="Alias or exact id to use instead of the definition's model."
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["workflow", "slug"], name="one_node_per_id")]
        ordering = ["position"]

    def __str__(self) -> str:
        return self.slug
