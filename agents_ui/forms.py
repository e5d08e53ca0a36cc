"""The form that starts a workflow, made from the workflow's input fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents_ui import schemas
from operators.errors import Misfit
from operators.models import Workflow


class StartForm:
    """A workflow's inputs: filled with the sample at first, with what was sent after a refusal."""

    def __init__(self, workflow: Workflow, sent: Mapping[str, str] | None = None) -> None:
        schema = workflow.input_schema
        given = {} if sent is not None else workflow.sample_input
        self.inputs = schemas.inputs(schema, schema, given)
        self.errors: list[str] = []
        self._sent = sent

    @property
    def faults(self) -> int:
        """How many things are wrong."""
        return len(self.errors) + sum(len(item.errors) for item in self.inputs)

    def values(self) -> dict[str, Any]:
        """Return the input that was sent; raises `Misfit` if a part of it cannot be read."""
        values = schemas.read(self.inputs, self._sent or {})
        if self.faults:
            raise Misfit("Some fields cannot be read", errors=[])
        return values

    def refuse(self, error: Misfit) -> None:
        """Put each problem beside its field, those of no field above the form."""
        by_name = {item.name: item for item in self.inputs}
        for problem in error.detail.get("errors", []):
            name, _, below = problem["field"].partition(".")
            text = _sentence(problem)
            if name in by_name:
                by_name[name].errors.append(f"{below}: {text}" if below else text)
            else:
                self.errors.append(f"{problem['field']}: {text}" if problem["field"] else text)


def _sentence(problem: Mapping[str, str]) -> str:
    # Python's names for types help programs; whoever fills in a form has the control before them.
    kind = problem.get("type", "")
    text = problem["message"].removesuffix(f" (takes {kind})").removesuffix(f" ({kind})")
    return text[:1].upper() + text[1:]
