"""Writes the definitions that this process knows into the database, where people see and configure them."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from openvibe.budgets import SPANS
from openvibe.registry import OperatorDefinition
from openvibe.specs import WorkflowSpec
from operators import definitions
from operators.models import Node, Operator, Project, Workflow


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
    for position, workflow in enumerate(spec.workflows):
        _register_workflow(operator, workflow, position)
    operator.workflows.exclude(slug__in=[workflow.id for workflow in spec.workflows]).update(retired=True)
    return operator


def _register_workflow(operator: Operator, spec: WorkflowSpec, position: int) -> None:
    values = {
        "name": spec.name,
        "description": spec.description,
        "trigger_id": spec.trigger.id,
        "trigger": spec.trigger.text,
        "version": spec.version,
        "spec": spec.model_dump(mode="json"),
        "position": position,
        "retired": False,
    }
    workflow, _ = Workflow.objects.update_or_create(operator=operator, slug=spec.id, defaults=values)
    for place, node in enumerate(spec.nodes):
        chosen = node.model.model if node.model else ""
        Node.objects.update_or_create(
            workflow=workflow,
            slug=node.id,
            defaults={"kind": node.kind, "position": place, "default_model": chosen},
        )
    workflow.nodes.exclude(slug__in=[node.id for node in spec.nodes]).delete()
