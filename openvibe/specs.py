"""What an operator is, as frozen descriptions. They hold no behaviour and can be stored, hashed and shown."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from openvibe import canonical

ID = r"^[a-z][a-z0-9_]{0,63}$"


class Spec(BaseModel):
    """The root of all descriptions: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GateSpec(Spec):
    """A pause for a person's decision.

    `timeout` is how long the gate stays open before `on_timeout` decides in the person's place. `edits` names the
    state fields that the person may change. `on_reject` is None (the run fails with the reason), `end` or a node's id.
    """

    prompt: str
    timeout: timedelta | None = None
    decisions: tuple[str, ...] = ("approve", "reject")
    edits: tuple[str, ...] = ()
    on_reject: str | None = None
    on_timeout: str | None = None


class ModelSpec(Spec):
    """How a node asks a model. `model` is an alias or a provider's exact id; `attempts` counts tries of one call."""

    model: str
    max_tokens: int = Field(default=4096, gt=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    output_format: Literal["text", "json"] = "text"
    attempts: int = Field(default=3, ge=1, le=20)


class NodeSpec(Spec):
    """One step's definition. `routes` are a conditional's labels in the order in which they are tried; `next` names
    the node that follows instead of the one declared next, or `end`.
    """

    id: str = Field(pattern=ID)
    kind: Literal["logic", "llm", "gate", "conditional"]
    description: str = ""
    model: ModelSpec | None = None
    gate: GateSpec | None = None
    routes: tuple[str, ...] = ()
    next: str = ""


class TriggerSpec(Spec):
    """What starts a workflow: `on_demand`, or `cron:`, `webhook:`, `event:`, `request:` with a source."""

    id: str = Field(pattern=ID)
    kind: Literal["on_demand", "cron", "webhook", "event", "request"]
    source: str = ""

    @property
    def text(self) -> str:
        """The trigger as it is written in a definition."""
        return f"{self.kind}:{self.source}" if self.source else self.kind


class WorkflowSpec(Spec):
    """One graph of nodes with a trigger. `inputs` names the state fields that a start may fill."""

    id: str = Field(pattern=ID)
    name: str
    description: str = ""
    trigger: TriggerSpec
    nodes: tuple[NodeSpec, ...]
    inputs: tuple[str, ...]
    input_schema: dict[str, Any]
    sample_input: dict[str, Any] = Field(default_factory=dict)

    @property
    def version(self) -> str:
        """A short hash that changes when anything in the description changes."""
        return canonical.sha256(self.model_dump(mode="json"))[:12]

    @property
    def gates(self) -> tuple[NodeSpec, ...]:
        """The nodes that wait for a person."""
        return tuple(node for node in self.nodes if node.kind == "gate")


class OperatorSpec(Spec):
    """A named actor with workflows that share state fields."""

    id: str = Field(pattern=ID)
    name: str
    description: str = ""
    owner: str = ""
    workflows: tuple[WorkflowSpec, ...]

    def workflow(self, workflow_id: str) -> WorkflowSpec | None:
        """Return the workflow of that id, or None."""
        return next((workflow for workflow in self.workflows if workflow.id == workflow_id), None)
