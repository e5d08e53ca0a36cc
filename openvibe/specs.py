"""What an operator is, as frozen descriptions. They hold no behaviour and can be stored, hashed and shown."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from openvibe import canonical, misfits
from openvibe.outcomes import Rule
from openvibe.subscriptions import Listen

ID = r"^[a-z][a-z0-9_]{0,63}$"


#: A span of time that something may take.
Limit = Annotated[timedelta, Field(gt=timedelta())]

#: An amount of US dollars. A float is taken for what it shows: 0.1 is a tenth.
Dollars = Annotated[
    Decimal,
    BeforeValidator(lambda value: str(value) if isinstance(value, float) else value),
    Field(gt=0, max_digits=12, decimal_places=4),
]


class Spec(BaseModel):
    """The root of all descriptions: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GateSpec(Spec):
    """A pause for a person's decision.

    `timeout` is how long the gate stays open before `on_timeout` decides in the person's place. `edits` names the
    state fields that the person may change. `on_reject` is None (the run fails with the reason), `end` or a node's id;
    `goto` says where other decisions lead. `escalate_to` is who is asked next, once, when the time is up. With
    `approvers` each of these users, or groups of users, is asked; `needed` of them have to take the same decision.
    """

    prompt: str
    timeout: Limit | None = None
    decisions: tuple[str, ...] = ("approve", "reject")
    edits: tuple[str, ...] = ()
    on_reject: str | None = None
    on_timeout: str | None = None
    escalate_to: str = ""
    goto: dict[str, str] = Field(default_factory=dict)
    approvers: tuple[str, ...] = ()
    rule: Rule | Literal[""] = ""
    needed: int = 0


class Retry(Spec):
    """How often a step is tried. `pause` is the time before the second try; it doubles up to `longest`.

    `on` are the exceptions that are worth another try: classes, or their names.

    Example:
        >>> Retry(attempts=5, pause=timedelta(seconds=2), on=(ConnectionError,))

    Raises:
        SetupError: `attempts` is not from 1 to 100, or a pause is negative.
    """

    attempts: int = Field(default=1, ge=1, le=100)
    pause: timedelta = Field(default=timedelta(seconds=1), ge=timedelta())
    longest: timedelta = Field(default=timedelta(seconds=60), ge=timedelta())
    on: tuple[str, ...] = ("Exception",)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise misfits.explained("Retry", error) from error

    @field_validator("on", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        given = value if isinstance(value, (tuple, list)) else (value,)
        return tuple(item.__name__ if isinstance(item, type) else item for item in given)

    def covers(self, error: BaseException) -> bool:
        """Tell whether this error is worth another try."""
        return any(kind.__name__ in self.on for kind in type(error).__mro__)

    def pause_after(self, attempt: int) -> float:
        """Return the pause in seconds that follows the failed try of that number, counted from 1."""
        return min(self.pause.total_seconds() * (1 << (attempt - 1)), self.longest.total_seconds())


class Budget(Spec):
    """What an operator's runs may cost, in US dollars: each `run`, and all that begin in a `day` or a `month` (UTC).

    A run that finds a budget used up pauses between two steps, and a person is asked whether to raise it. A call whose
    price is not known counts nothing.

    Example:
        >>> Budget(run=0.50, day=20)

    Raises:
        SetupError: an amount is not above 0, or none is given.
    """

    run: Dollars | None = None
    day: Dollars | None = None
    month: Dollars | None = None

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise misfits.explained("Budget", error) from error

    @model_validator(mode="after")
    def _given(self) -> Budget:
        if self.run is None and self.day is None and self.month is None:
            raise ValueError("a budget says what a run, a day or a month may cost")
        return self


class AgentSpec(Spec):
    """A tool loop: the tools a model may call, and after how many calls it must answer."""

    tools: tuple[str, ...]
    max_steps: int = Field(default=8, ge=1, le=200)


class RemoteSpec(Spec):
    """Work that external agents do: one of a `role`, or several of these `roles` at the same time.

    `timeout` is how long the run waits for a result.
    """

    role: str = Field(default="", pattern=r"^([a-z][a-z0-9_]{0,63})?$")
    roles: tuple[Annotated[str, Field(pattern=ID)], ...] = ()
    timeout: Limit | None = None

    @model_validator(mode="after")
    def _roles_are_told(self) -> RemoteSpec:
        if bool(self.role) == bool(self.roles):
            raise ValueError("either `role` or `roles` is needed")
        return self


class ModelSpec(Spec):
    """How a node asks a model. `model` is an alias or a provider's exact id; `attempts` counts tries of one call."""

    model: str
    max_tokens: int = Field(default=4096, gt=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    output_format: Literal["text", "json"] = "text"
    attempts: int = Field(default=3, ge=1, le=20)


class NodeSpec(Spec):
    """One step's definition. `routes` are a conditional's labels in the order in which they are tried; `next` names
    the node that follows instead of the one declared next, or `end`. A node of kind `graph` belongs to a LangGraph
    graph that was brought as it is.
    """

    id: str = Field(min_length=1, max_length=80)
    kind: Literal["logic", "llm", "gate", "conditional", "agent", "remote", "graph"]
    description: str = ""
    model: ModelSpec | None = None
    gate: GateSpec | None = None
    agent: AgentSpec | None = None
    remote: RemoteSpec | None = None
    retry: Retry | None = None
    timeout: Limit | None = None
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
    """One graph of nodes with a trigger. `inputs` names the state fields that a start may fill.

    Beside its trigger a workflow may `listens` to events and serve a `capability`; it `emits` events when it completes.
    `timeout` bounds its running time, waiting not counted; `max_duration` the time from its start to its end, waiting
    included. A workflow that is not `checkpointed` starts over when its worker dies.
    """

    id: str = Field(pattern=ID)
    name: str
    description: str = ""
    trigger: TriggerSpec
    nodes: tuple[NodeSpec, ...]
    inputs: tuple[str, ...]
    input_schema: dict[str, Any]
    sample_input: dict[str, Any] = Field(default_factory=dict)
    listens: tuple[Listen, ...] = ()
    capability: str = Field(default="", pattern=r"^([a-z][a-z0-9_]{0,63})?$")
    emits: tuple[str, ...] = ()
    timeout: Limit | None = None
    max_duration: timedelta | None = None
    checkpointed: bool = True

    @property
    def subscriptions(self) -> tuple[Listen, ...]:
        """Every event that starts it: its trigger's, if that is one, and those it listens to."""
        own = (Listen(self.trigger.source),) if self.trigger.kind == "event" else ()
        return own + self.listens

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Every request that it answers."""
        own = (self.trigger.source,) if self.trigger.kind == "request" else ()
        return own + ((self.capability,) if self.capability else ())

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
    budget: Budget | None = None
    workflows: tuple[WorkflowSpec, ...]

    def workflow(self, workflow_id: str) -> WorkflowSpec | None:
        """Return the workflow of that id, or None."""
        return next((workflow for workflow in self.workflows if workflow.id == workflow_id), None)
