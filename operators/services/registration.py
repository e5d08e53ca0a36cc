"""Writes the definitions that this process knows into the database, where people see and configure them."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from openvibe.budgets import SPANS
from openvibe.registry import OperatorDefinition
from openvibe.specs import NodeSpec, WorkflowSpec
from operators import definitions
from operators.models import Node, Operator, Project, Workflow

#: What follows the definition in a row that exists; all else of it is the administrator's.
_OF_A_WORKFLOW = ["name", "description", "trigger_id", "trigger", "version", "spec", "position", "retired"]
_OF_A_NODE = ["kind", "position", "default_model"]


def register_all(project: Project) -> list[Operator]:
    """Register every loaded operator in a project. What an administrator changed stays changed."""
    return [register(project, definition) for definition in definitions.from_code()]


@transaction.atomic
def register(project: Project, definition: OperatorDefinition, *, source: str = "") -> Operator:
    """Create or update one operator with its workflows and nodes; workflows that are gone are retired.

    `source` is the hash of the text behind it, if it comes from the database.
    """
    spec = definition.spec
    defaults: dict[str, Any] = {"name": spec.name, "owner": spec.owner, "source": source, "retired": False}
    known = Operator.objects.filter(project=project, slug=spec.id).first()
    declared = spec.budget.model_dump(mode="json") if spec.budget else None
    if known is None or known.declared_budget != declared:
        amounts = {f"budget_{span}_usd": getattr(spec.budget, span, None) for span in SPANS}
        defaults |= {"declared_budget": declared, **amounts}
    operator, _ = Operator.objects.update_or_create(
        project=project,
        slug=spec.id,
        defaults=defaults,
        create_defaults={**defaults, "description": spec.description},
    )
    workflows = Workflow.objects.bulk_create(
        [_workflow(operator, workflow, position) for position, workflow in enumerate(spec.workflows)],
        update_conflicts=True,
        unique_fields=["operator", "slug"],
        update_fields=_OF_A_WORKFLOW,
    )
    nodes = Node.objects.bulk_create(
        [
            _node(row, node, position)
            for row, workflow in zip(workflows, spec.workflows, strict=True)
            for position, node in enumerate(workflow.nodes)
        ],
        update_conflicts=True,
        unique_fields=["workflow", "slug"],
        update_fields=_OF_A_NODE,
    )
    operator.workflows.exclude(pk__in=[row.pk for row in workflows]).update(retired=True)
    Node.objects.filter(workflow__in=workflows).exclude(pk__in=[row.pk for row in nodes]).delete()
    return operator


def _workflow(operator: Operator, spec: WorkflowSpec, position: int) -> Workflow:
    return Workflow(
        operator=operator,
        slug=spec.id,
        name=spec.name,
        description=spec.description,
        trigger_id=spec.trigger.id,
        trigger=spec.trigger.text,
        version=spec.version,
        spec=spec.model_dump(mode="json"),
        position=position,
        retired=False,
    )


def _node(workflow: Workflow, spec: NodeSpec, position: int) -> Node:
    chosen = spec.model.model if spec.model else ""
    return Node(workflow=workflow, slug=spec.id, kind=spec.kind, position=position, default_model=chosen)
