"""What somebody asks of an operator in his own words, as the input of a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operators.errors import Misfit
from operators.models import Workflow
from operators.services import intake

#: Inputs that take an instruction, in the order of preference.
NAMES = ("instruction", "question", "task", "user")


def read(workflow: Workflow, told: Any) -> dict[str, Any]:
    """Return the input that an object of inputs, or a text, gives a workflow; what it does not know is left out.

    Raises:
        Misfit: a text, and none of several inputs is the one that takes it.
    """
    inputs: list[str] = workflow.spec["inputs"]
    if isinstance(told, Mapping):
        text = told.get("instruction")
        known = {name: value for name, value in told.items() if name in inputs}
        if known or text is None:
            return known
        told = text
    return {_place(workflow, inputs): told}


def workflow(project_id: str, operator: str, name: str = "") -> Workflow:
    """Return an operator's workflow of that name, or its only one.

    Raises:
        Misfit: there is no such operator, or it has several workflows and none is named.
        Unknown: it has none of that name.
    """
    rows = Workflow.objects.select_related("operator")
    current = list(rows.filter(operator__project_id=project_id, operator__slug=operator, retired=False))
    if not current:
        raise Misfit(f"The project {project_id!r} has no agent {operator!r}")
    if name:
        return intake.workflow_of(current[0].operator, name)
    if len(current) > 1:
        known = ", ".join(sorted(workflow.slug for workflow in current))
        raise Misfit(f"{operator!r} has several workflows, name one: {known}")
    return current[0]


def _place(workflow: Workflow, inputs: list[str]) -> str:
    named = [name for name in NAMES if name in inputs]
    required = [name for name in workflow.spec["input_schema"].get("required", ()) if name in inputs]
    for choice in (named[:1], required, inputs):
        if len(choice) == 1:
            return choice[0]
    where = f"{workflow.operator.slug}.{workflow.slug}"
    raise Misfit(f"{where} takes no instruction; give an object of its inputs: {', '.join(inputs) or 'it has none'}")
