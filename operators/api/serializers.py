"""What goes in and out over REST."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from operators.models import Event, Operator, Run, Wait, Workflow
from operators.models.lookup import listed


class ActivateBody(serializers.Serializer[Any]):
    """What starts a run: a trigger's id (or a workflow's), and the input."""

    trigger = serializers.CharField(max_length=200, help_text="A trigger's id or, failing that, a workflow's id")
    input = serializers.DictField(default=dict, help_text="Values of the workflow's input fields")
    priority = serializers.IntegerField(
        default=0, min_value=-1000, max_value=1000, help_text="Where a limit makes runs wait, the highest goes first"
    )


class ResumeBody(serializers.Serializer[Any]):
    """A decision at a gate, quoting what was seen."""

    decision = serializers.CharField(max_length=80)
    notes = serializers.CharField(default="", allow_blank=True, max_length=10_000)
    values = serializers.DictField(required=False, help_text="Edited fields, where the gate allows it")
    wait_id = serializers.CharField(required=False, help_text="May be left out where the run has asked only once")
    version = serializers.IntegerField(required=False)
    payload_sha256 = serializers.CharField(required=False)


class OverrideBody(serializers.Serializer[Any]):
    """How the state of a run that stands at an open gate is changed, quoting the gate as it was seen."""

    wait_id = serializers.CharField(max_length=64)
    version = serializers.IntegerField(help_text="The gate's, as you saw it; afterwards it has the next one")
    values = serializers.DictField(help_text="Fields of the state, with their new values", allow_empty=False)
    reason = serializers.CharField(max_length=2_000)


class CancelBody(serializers.Serializer[Any]):
    """Why a run is cancelled."""

    reason = serializers.CharField(default="", allow_blank=True, max_length=2_000)


class GroupView(serializers.Serializer[Any]):
    """The group in which a wait is answered: its rule, how many good answers it needs, and the wait's place in it."""

    id = serializers.CharField(source="interrupt_id")
    rule = serializers.ChoiceField(["all", "any", "quorum", "each"])
    needed = serializers.IntegerField()
    seat = serializers.IntegerField()


class WaitView(serializers.ModelSerializer[Wait]):
    """A wait as programs see it."""

    values = serializers.DictField(allow_null=True)
    group = serializers.SerializerMethodField()

    class Meta:
        model = Wait
        fields: tuple[str, ...] = (
            "id", "kind", "status", "node", "version", "payload_sha256", "prompt", "payload", "schema", "decisions",
            "deadline", "on_timeout", "escalate_to", "approver", "assignee", "group", "opened_at", "closed_at",
            "decision", "notes", "values", "decider",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(GroupView(allow_null=True))
    def get_group(self, wait: Wait) -> dict[str, Any] | None:
        """Return the group; null for a wait that is answered alone."""
        return dict(GroupView(wait).data) if wait.rule else None


def represented(view: type[serializers.Serializer[Any]], instance: Any) -> dict[str, Any]:
    """Return what `view(instance).data` is; a view's fields are made once, which takes longer than their values."""
    told: dict[str, Any] = _made(view).to_representation(instance)
    return told


@cache
def _made(view: type[serializers.Serializer[Any]]) -> serializers.Serializer[Any]:
    return view()


class Metrics(serializers.Serializer[Any]):
    """What a run has used. `cost_usd` is null when the price of a call is not known."""

    duration_seconds = serializers.FloatField()
    running_seconds = serializers.FloatField()
    tokens_in = serializers.IntegerField()
    tokens_out = serializers.IntegerField()
    cost_usd = serializers.FloatField(allow_null=True)
    nodes_executed = serializers.IntegerField()
    nodes_failed = serializers.IntegerField()
    llm_calls = serializers.IntegerField()


class RunSummary(serializers.ModelSerializer[Run]):
    """A run in a list, and right after its start."""

    run_id = serializers.CharField(source="id")
    operator_id = serializers.CharField(source="operator.slug")
    workflow_id = serializers.CharField(source="workflow.slug")
    completed_at = serializers.DateTimeField(source="ended_at", allow_null=True)
    metrics = serializers.SerializerMethodField()

    class Meta:
        model = Run
        fields: tuple[str, ...] = ("run_id", "operator_id", "workflow_id", "status", "trigger", "created_at",
                                   "started_at", "completed_at", "metrics")  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(Metrics)
    def get_metrics(self, run: Run) -> dict[str, Any]:
        """Return the run's figures."""
        return {
            "duration_seconds": round(run.duration_seconds(timezone.now()), 3),
            "running_seconds": round(run.running_seconds, 3),
            "tokens_in": run.tokens_in,
            "tokens_out": run.tokens_out,
            "cost_usd": None if run.cost is None else float(run.cost),
            "nodes_executed": run.nodes_executed,
            "nodes_failed": run.nodes_failed,
            "llm_calls": run.llm_calls,
        }


class RunDetail(RunSummary):
    """A run, whole."""

    input = serializers.DictField()
    output = serializers.DictField(allow_null=True)
    error = serializers.DictField(allow_null=True)
    allowance_usd = serializers.FloatField(allow_null=True)
    waits = serializers.SerializerMethodField()

    class Meta(RunSummary.Meta):
        fields = (*RunSummary.Meta.fields, "workflow_version", "input", "output", "error", "allowance_usd", "waits")
        read_only_fields = fields

    @extend_schema_field(WaitView(many=True))
    def get_waits(self, run: Run) -> list[dict[str, Any]]:
        """Return the run's waits, oldest first."""
        waits = listed(Wait, order=["opened_at", "seat", "id"], run_id=run.id)
        return [represented(WaitView, wait) for wait in waits]


class NodeView(serializers.Serializer[Any]):
    """One node of a workflow."""

    id = serializers.CharField(source="slug")
    kind = serializers.CharField()
    model = serializers.SerializerMethodField()

    def get_model(self, node: Any) -> str:
        """Return the model that the node asks: the administrator's choice, else the definition's."""
        return str(node.model or node.default_model)


class WorkflowView(serializers.ModelSerializer[Workflow]):
    """A workflow, with what a start needs."""

    id = serializers.CharField(source="slug")
    nodes = NodeView(many=True)
    input_schema = serializers.DictField()
    sample_input = serializers.DictField()

    class Meta:
        model = Workflow
        fields = ("id", "name", "description", "trigger_id", "trigger", "version", "nodes", "input_schema",
                  "sample_input")  # fmt: skip
        read_only_fields = fields


class OperatorSummary(serializers.ModelSerializer[Operator]):
    """An operator in a list."""

    id = serializers.CharField(source="slug")
    workflows = serializers.SerializerMethodField()

    class Meta:
        model = Operator
        fields: tuple[str, ...] = ("id", "name", "description", "owner", "enabled", "workflows")
        read_only_fields = fields

    def get_workflows(self, operator: Operator) -> list[str]:
        """Return the ids of its workflows."""
        return [workflow.slug for workflow in operator.workflows.all() if not workflow.retired]


class OperatorList(serializers.Serializer[Any]):
    """The answer to a question for operators."""

    operators = OperatorSummary(many=True)


class BudgetView(serializers.Serializer[Any]):
    """What an operator's runs may cost, in US dollars; null for no limit."""

    run = serializers.FloatField(source="budget_run_usd", allow_null=True)
    day = serializers.FloatField(source="budget_day_usd", allow_null=True)
    month = serializers.FloatField(source="budget_month_usd", allow_null=True)


class OperatorDetail(OperatorSummary):
    """An operator with its budget and its workflows."""

    budget = serializers.SerializerMethodField()

    class Meta(OperatorSummary.Meta):
        fields: tuple[str, ...] = (*OperatorSummary.Meta.fields, "budget")
        read_only_fields = fields

    @extend_schema_field(BudgetView)
    def get_budget(self, operator: Operator) -> dict[str, Any]:
        """Return what its runs may cost."""
        return dict(BudgetView(operator).data)

    @extend_schema_field(WorkflowView(many=True))
    def get_workflows(self, operator: Operator) -> list[Any]:
        """Return its workflows, whole."""
        return list(WorkflowView([item for item in operator.workflows.all() if not item.retired], many=True).data)


class EventView(serializers.ModelSerializer[Event]):
    """An event of a run's timeline."""

    type = serializers.CharField(source="kind")
    timestamp = serializers.DateTimeField(source="created_at")

    class Meta:
        model = Event
        fields = ("seq", "type", "node", "step_id", "actor", "data", "timestamp")
        read_only_fields = fields


class EventList(serializers.Serializer[Any]):
    """Some of a run's events; `last_seq` is the number of its newest one."""

    events = EventView(many=True)
    last_seq = serializers.IntegerField()


class StartedRun(serializers.Serializer[Any]):
    """A run that an event of a webhook has started, now or when the event came first."""

    event_id = serializers.CharField()
    operator_id = serializers.CharField()
    workflow_id = serializers.CharField()
    run_id = serializers.CharField()
    new = serializers.BooleanField()


class StartedRuns(serializers.Serializer[Any]):
    """The answer to a webhook."""

    runs = StartedRun(many=True)
