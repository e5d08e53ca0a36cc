"""What an operators file may say, as Pydantic models that check it and give editors their JSON Schema."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from openvibe.outcomes import Rule
from openvibe.specs import ID

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"^(\d+(\.\d+)?[smhd])+$"


def duration(value: Any) -> Any:
    """Read `90s`, `5m`, `24h`, `3d`, `1h30m`, or a number of seconds."""
    try:
        return timedelta(seconds=_seconds(value))
    except OverflowError:
        raise ValueError(f"{value!r:.40} is longer than any duration may be") from None


def _seconds(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and re.fullmatch(_DURATION, value):
        parts = re.findall(r"([\d.]+)([smhd])", value)
        return sum(float(amount) * _UNITS[unit] for amount, unit in parts)
    raise ValueError("is no duration; write 90s, 5m, 24h, 3d, 1h30m or a number of seconds")


Id = Annotated[str, StringConstraints(pattern=ID)]
Duration = Annotated[
    timedelta,
    BeforeValidator(duration),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": _DURATION}]}),
]
#: An expression over state fields; what is no text stands for itself.
Formula = Annotated[str, BeforeValidator(lambda value: value if isinstance(value, str) else repr(value)),
                    WithJsonSchema({"type": ["string", "number", "boolean", "array", "object", "null"]})]  # fmt: skip


class Part(BaseModel):
    """A part of the file: unknown keys are mistakes, and so is text where a number is needed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FieldPart(Part):
    """A state field, or a part of an answer, in JSON Schema's words.

    `type` is string, integer, number, boolean, array, object or any, or as Python spells it: `list[str]`,
    `dict[str, int]`, `str | None`. Without a default a field is required wherever it is an input. Of an object's
    `properties` all are required unless `required` names some.
    """

    type: str = "string"
    default: Any = None
    title: str | None = None
    description: str | None = None
    examples: list[Any] | None = None
    enum: list[str] = Field(default_factory=list)
    minLength: int | None = None
    maxLength: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    items: str | FieldPart | None = None
    properties: dict[str, str | FieldPart] = Field(default_factory=dict)
    required: list[str] | None = None


Kind = str | FieldPart


class RetryPart(Part):
    """How often a failing step is tried, with the pause before the second try; it doubles up to `longest`."""

    attempts: int = Field(default=1, ge=1, le=100)
    pause: Duration = timedelta(seconds=1)
    longest: Duration = timedelta(seconds=60)
    on: list[str] = Field(default_factory=lambda: ["Exception"])


class NodePart(Part):
    """What every node may say."""

    id: Id
    description: str = ""
    next: str = Field(default="", description="The node that follows, or `end`; else the one written next")


class AskingPart(NodePart):
    """What every node that asks a model may say."""

    model: str = Field(default="sonnet", description="haiku, sonnet, opus, fast, smart, or an exact id")
    max_tokens: int = Field(default=4096, gt=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    attempts: int = Field(default=3, ge=1, le=20)
    system: str = Field(default="", description="What the model is; taken word by word")
    user: str = Field(default="", description="What it is asked; {field} stands for a state field's value")
    prompt: str = Field(default="", description="Both at once under `# System` and `# User`; else what it is asked")
    prompt_file: str = Field(default="", description="A file beside this one with `# System` and `# User` parts")
    output_key: str = Field(default="", description="The state field that takes the answer; else the node's own name")


class LlmNode(AskingPart):
    """A question to a model."""

    type: Literal["llm"]
    output_format: Literal["text", "json"] | None = None
    timeout: Duration | None = None
    output_keys: list[str] | dict[str, Kind] = Field(default_factory=list)
    fallback: str | dict[str, Any] | None = Field(
        default=None,
        description="When no answer fitted: a handler that takes its text, or an update where {answer} stands for it",
    )


class AgentNode(AskingPart):
    """A model that may call tools until it answers."""

    type: Literal["agent"]
    tools: list[str] = Field(min_length=1, description="Functions, by their dotted names")
    max_steps: int = Field(default=8, ge=1, le=200)


class LogicNode(NodePart):
    """Python code of logic_handlers.py or of runtime.handler, or expressions to set fields by."""

    type: Literal["logic"]
    set: dict[str, Formula] = Field(default_factory=dict)
    output_key: str = ""
    output_keys: list[str] = Field(default_factory=list)
    retry: RetryPart | None = None
    timeout: Duration | None = None


class GateNode(NodePart):
    """A pause for a person's decision."""

    type: Literal["gate"]
    prompt: str = Field(min_length=1)
    decisions: list[str] = Field(default_factory=lambda: ["approve", "reject"], min_length=1)
    shows: list[str] = Field(default_factory=list, description="State fields to show; else those that can be edited")
    edits: list[str] = Field(default_factory=list)
    timeout: Duration | None = None
    on_timeout: str | None = None
    on_reject: str | None = None
    goto: dict[str, str] = Field(default_factory=dict)
    escalate_to: str = ""
    approvers: list[str] = Field(default_factory=list, description="Users, or groups of users, that are asked together")
    rule: Rule | None = None
    quorum: int = 0


class ConditionalNode(NodePart):
    """A choice: the first route whose expression holds is taken."""

    type: Literal["conditional"]
    routes: dict[str, Formula] = Field(min_length=1)
    set: dict[str, Formula] = Field(default_factory=dict)


class RemoteNode(NodePart):
    """Work for an agent elsewhere."""

    type: Literal["remote"]
    role: Id
    task: Any = Field(description="What it is told, any shape; {field} in a text stands for a state field's value")
    timeout: Duration | None = None
    retry: RetryPart | None = None
    output_key: str = ""
    output_keys: dict[str, str] = Field(default_factory=dict, description="Result field → state field")
    error_key: str = Field(default="", description="State field that takes a failure, in place of the run's end")


AnyNode = Annotated[
    LlmNode | AgentNode | LogicNode | GateNode | ConditionalNode | RemoteNode, Field(discriminator="type")
]
NODES: dict[str, type[NodePart]] = {
    "llm": LlmNode, "agent": AgentNode, "logic": LogicNode, "gate": GateNode, "conditional": ConditionalNode,
    "remote": RemoteNode,
}  # fmt: skip


class ListenPart(Part):
    """A subscription to an event, with a filter on its payload and what it gives."""

    event: str
    where: dict[str, Any] = Field(default_factory=dict)
    takes: dict[str, str] = Field(default_factory=dict)


class WorkflowPart(Part):
    """One graph of nodes with a trigger; the order of the nodes is the order of execution."""

    id: Id
    name: str = ""
    description: str = ""
    trigger: str = "on_demand"
    trigger_id: str = ""
    inputs: list[str] | None = None
    sample_input: dict[str, Any] = Field(default_factory=dict)
    listens: list[str | ListenPart] = Field(default_factory=list)
    emits: list[str] = Field(default_factory=list)
    capability: str = ""
    timeout: Duration | None = None
    max_days: float | None = Field(default=None, gt=0, le=3650)
    checkpointed: bool = True
    nodes: list[AnyNode] = Field(min_length=1)


class BudgetPart(Part):
    """What the operator's runs may cost, in US dollars."""

    run: float | None = Field(default=None, gt=0)
    day: float | None = Field(default=None, gt=0)
    month: float | None = Field(default=None, gt=0)


class OperatorPart(Part):
    """An operator. Without `fields` they are told from what its nodes read and write."""

    id: Id
    name: str = ""
    description: str = ""
    owner: str = ""
    budget: BudgetPart | None = None
    fields: dict[Id, Kind] | None = None
    workflows: list[WorkflowPart] = Field(min_length=1)


class File(Part):
    """An OpenVibe operators file."""

    handlers: str = Field(default="logic_handlers.py", description="The file with the code of logic nodes")
    operators: list[OperatorPart] = Field(min_length=1)


#: The models by the part of a path that leads to them, for telling which keys a mapping may have.
PARTS: dict[str, type[Part]] = {
    "budget": BudgetPart,
    "operators": OperatorPart, "workflows": WorkflowPart, "listens": ListenPart, "retry": RetryPart,
    "fields": FieldPart, "output_keys": FieldPart, "properties": FieldPart, "items": FieldPart,
}  # fmt: skip
