"""Assembles decorated classes into definitions that can be compiled. Registration is all or nothing."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError

from openvibe import flaws, tools, triggers
from openvibe.errors import InputError, SetupError
from openvibe.fields import Fields, check_input, open_model
from openvibe.marks import DURABLE, MARK, NodeMark, OperatorMark, Route, WorkflowMark, spec_of
from openvibe.specs import ID, AgentSpec, NodeSpec, OperatorSpec, WorkflowSpec
from openvibe.tools import ToolDefinition


@dataclass(frozen=True)
class WorkflowDefinition:
    """A workflow's description together with the code behind it: node id → bound method.

    `graph` is a LangGraph graph that was brought as it is; there are no methods then.
    """

    operator_id: str
    spec: WorkflowSpec
    fields: Fields
    input_model: type[BaseModel]
    methods: dict[str, Callable[..., Any]]
    routes: dict[str, Mapping[str, Route]]
    tools: dict[str, dict[str, ToolDefinition]] = field(default_factory=dict)
    graph: Any = None


@dataclass(frozen=True)
class OperatorDefinition:
    """An operator's description together with its workflows' definitions."""

    spec: OperatorSpec
    workflows: dict[str, WorkflowDefinition]


class Registry:
    """The operators that this process knows, by id."""

    def __init__(self) -> None:
        self._operators: dict[str, OperatorDefinition] = {}

    def register(self, cls: type) -> OperatorDefinition:
        """Add an operator class.

        Raises:
            SetupError: the definition has a mistake, or its id is taken; nothing is registered then.
        """
        return self.add(define(cls), where=cls.__name__)

    def add(self, definition: OperatorDefinition, *, where: str = "") -> OperatorDefinition:
        """Add an operator's definition. Raises `SetupError` if its id is taken."""
        if definition.spec.id in self._operators:
            prefix = f"{where}: " if where else ""
            raise SetupError(
                f"{prefix}an operator with id {definition.spec.id!r} is registered already; give this one another id"
            )
        self._operators[definition.spec.id] = definition
        return definition

    def add_all(self, definitions: Sequence[OperatorDefinition]) -> list[OperatorDefinition]:
        """Add several operators, all or none. Raises `SetupError` if an id is taken."""
        ids = [definition.spec.id for definition in definitions]
        for position, name in enumerate(ids):
            if name in self._operators or name in ids[:position]:
                raise SetupError(f"an operator with id {name!r} is registered already; give this one another id")
        return [self.add(definition) for definition in definitions]

    def remove(self, operator_id: str) -> None:
        """Forget an operator; its id is free again."""
        self._operators.pop(operator_id, None)

    def __iter__(self) -> Iterator[OperatorDefinition]:
        return iter(self._operators.values())

    def operator(self, operator_id: str) -> OperatorDefinition | None:
        """Return an operator's definition, or None if this process does not know it."""
        return self._operators.get(operator_id)

    def workflow(self, operator_id: str, workflow_id: str) -> WorkflowDefinition | None:
        """Return a workflow's definition, or None if this process does not know it."""
        definition = self._operators.get(operator_id)
        return definition.workflows.get(workflow_id) if definition else None

    def listeners(self, name: str, payload: Mapping[str, Any]) -> Iterator[tuple[WorkflowDefinition, dict[str, Any]]]:
        """Yield, once each, the workflows that an event starts, with the input that its payload gives them."""
        for operator in self:
            for workflow in operator.workflows.values():
                heard = (
                    item for item in workflow.spec.subscriptions if item.hears(name, payload, owner=operator.spec.id)
                )
                if (first := next(heard, None)) is not None:
                    yield workflow, first.input(payload, workflow.spec.inputs)

    def server(self, operator_id: str, capability: str) -> WorkflowDefinition | None:
        """Return the workflow that answers requests for an operator's capability, or None."""
        definition = self._operators.get(operator_id)
        workflows = definition.workflows.values() if definition else ()
        return next((workflow for workflow in workflows if capability in workflow.spec.capabilities), None)


def define(cls: type) -> OperatorDefinition:
    """Read an `@operator` class into a definition.

    Raises:
        SetupError: the class, a workflow or a node is defined wrongly; the message names which and the fault.
    """
    mark = vars(cls).get(MARK)
    if not isinstance(mark, OperatorMark):
        raise SetupError(f"{cls.__name__} is no operator; decorate it with @operator(id=…)")
    fields = Fields(cls)
    nested = [item for item in vars(cls).values() if isinstance(vars_of(item).get(MARK), WorkflowMark)]
    flaws.check_durable(cls.__name__, [item for item in vars(cls).values() if DURABLE in vars_of(item)], nested)
    if not nested:
        raise SetupError(f"Operator {mark.id!r} ({cls.__name__}) has no workflow; nest a class with @workflow(id=…)")
    workflows: dict[str, WorkflowDefinition] = {}
    for item in nested:
        definition = _workflow(mark.id, fields, item)
        if definition.spec.id in workflows:
            raise SetupError(f"{cls.__name__}.{item.__name__}: workflow id {definition.spec.id!r} is used twice")
        workflows[definition.spec.id] = definition
    flaws.check_doors(cls.__name__, [item.spec for item in workflows.values()])
    spec = spec_of(
        cls.__name__,
        OperatorSpec,
        id=mark.id,
        name=mark.name,
        description=mark.description or (cls.__doc__ or "").strip(),
        owner=mark.owner,
        budget=mark.budget,
        workflows=tuple(item.spec for item in workflows.values()),
    )
    return OperatorDefinition(spec=spec, workflows=workflows)


def vars_of(item: Any) -> dict[str, Any]:
    """Return an object's own attributes; empty for what has none."""
    return getattr(item, "__dict__", {})


def _workflow(operator_id: str, fields: Fields, cls: type) -> WorkflowDefinition:
    mark: WorkflowMark = vars(cls)[MARK]
    where = f"{cls.__qualname__} (workflow {mark.id!r})"
    marked = {name: item for name, item in vars(cls).items() if isinstance(vars_of(item).get(MARK), NodeMark)}
    if mark.graph is not None:
        return _brought(where, operator_id, fields, mark, marked=marked, max_duration=vars(cls).get(DURABLE))
    instance = cls()
    return assemble(
        where,
        operator_id=operator_id,
        fields=fields,
        mark=mark,
        max_duration=vars(cls).get(DURABLE),
        nodes={name: vars(method)[MARK] for name, method in marked.items()},
        methods={name: getattr(instance, name) for name in marked},
    )


def assemble(
    where: str, *, operator_id: str, fields: Fields, mark: WorkflowMark, max_duration: timedelta | None,
    nodes: Mapping[str, NodeMark], methods: Mapping[str, Callable[..., Any]],
) -> WorkflowDefinition:  # fmt: skip
    """Put a workflow together from its marks and methods, wherever they were read from.

    Raises:
        SetupError: something does not fit; the message begins with `where`.
    """
    if not nodes:
        raise SetupError(f"{where} has no node; decorate at least one method with @node or @llm_node")
    inputs = mark.inputs if mark.inputs is not None else tuple(fields.types)
    unknown = [name for name in inputs if name not in fields.types]
    if unknown:
        raise SetupError(f"{where}: inputs= names {unknown}, which are no state fields of the operator")
    model = fields.model(f"{operator_id}.{mark.id} input", inputs)
    kits = {name: _kit(f"{where}: node {name!r}", node) for name, node in nodes.items() if node.tools}
    specs = tuple(_node(where, name, node, methods[name], kits.get(name, {})) for name, node in nodes.items())
    spec = _spec(where, operator_id, mark, nodes=specs, inputs=inputs, model=model, max_duration=max_duration)
    waits = {name for name, kit in kits.items() if any(tool.remote for tool in kit.values())}
    flaws.check(where, spec, fields, methods, waits=waits)
    routes = {name: node.routes for name, node in nodes.items() if node.routes}
    return WorkflowDefinition(operator_id, spec, fields, model, dict(methods), routes, kits)


def _brought(
    where: str, operator_id: str, fields: Fields, mark: WorkflowMark, *, marked: Mapping[str, Any],
    max_duration: timedelta | None,
) -> WorkflowDefinition:  # fmt: skip
    if marked:
        raise SetupError(f"{where} has graph= and nodes of its own ({', '.join(marked)}); use one or the other")
    graph = _compiled(where, mark.graph)
    schema = _input_schema(graph)
    if mark.inputs is not None:
        schema = _narrowed(where, schema, mark.inputs)
    model = open_model(f"{operator_id}.{mark.id} input", schema)
    names = [name for name in graph.nodes if not name.startswith("__")]
    specs = tuple(spec_of(where, NodeSpec, id=name, kind="graph") for name in names)
    inputs = mark.inputs if mark.inputs is not None else tuple(model.model_fields)
    spec = _spec(where, operator_id, mark, nodes=specs, inputs=inputs, model=model, max_duration=max_duration)
    return WorkflowDefinition(operator_id, spec, fields, model, {}, {}, graph=graph)


def _compiled(where: str, graph: Any) -> Any:
    if not hasattr(graph, "nodes") or not (hasattr(graph, "compile") or hasattr(graph, "get_input_jsonschema")):
        raise SetupError(f"{where}: graph={graph!r:.60} is no LangGraph StateGraph")
    try:
        compiled = graph.compile() if hasattr(graph, "compile") else graph
    except ValueError as error:
        raise SetupError(f"{where}: LangGraph cannot compile its graph=: {error}") from error
    for option in ("interrupt_before", "interrupt_after"):
        # Such a stop asks nothing, so nobody could answer it.
        if stops := getattr(compiled, f"{option}_nodes", ()):
            raise SetupError(f"{where}: its graph= has {option}={stops}; call interrupt() in the node instead")
    return compiled


def _input_schema(graph: Any) -> dict[str, Any]:
    state = graph.builder.input_schema
    try:
        schema: dict[str, Any] = graph.get_input_jsonschema()
    except PydanticUserError:
        # Pydantic reads `typing.TypedDict` from Python 3.12 on only.
        hints = typing.get_type_hints(state, include_extras=True)
        schema = {"type": "object", "properties": {name: _json_schema(hint) for name, hint in hints.items()}}
    if isinstance(state, type) and issubclass(state, dict):
        # LangGraph demands no key of a TypedDict.
        schema.pop("required", None)
    return schema


def _narrowed(where: str, schema: dict[str, Any], inputs: Sequence[str]) -> dict[str, Any]:
    known = schema.get("properties", {})
    if unknown := [name for name in inputs if name not in known]:
        raise SetupError(f"{where}: inputs= names {unknown}, which are no inputs of its graph; they are {[*known]}")
    required = [name for name in schema.get("required", ()) if name in inputs]
    return {**schema, "properties": {name: known[name] for name in inputs}, "required": required}


def _json_schema(hint: Any) -> dict[str, Any]:
    try:
        return TypeAdapter(hint).json_schema()
    except PydanticUserError:
        return {}


def _spec(
    where: str, operator_id: str, mark: WorkflowMark, *, nodes: tuple[NodeSpec, ...], inputs: tuple[str, ...],
    model: type[BaseModel], max_duration: timedelta | None,
) -> WorkflowSpec:  # fmt: skip
    return spec_of(
        where,
        WorkflowSpec,
        id=mark.id,
        name=mark.name,
        description=mark.description,
        trigger=triggers.trigger(where, mark, owner=operator_id),
        nodes=nodes,
        inputs=inputs,
        input_schema=model.model_json_schema(),
        sample_input=_sample(where, model, mark),
        listens=triggers.listens(where, mark, owner=operator_id, inputs=inputs),
        capability=mark.capability,
        emits=triggers.emits(where, mark, owner=operator_id),
        timeout=mark.timeout,
        max_duration=max_duration,
        checkpointed=mark.checkpointed,
    )


def _sample(where: str, model: type[BaseModel], mark: WorkflowMark) -> dict[str, Any]:
    if not mark.sample_input:
        return {}
    try:
        return check_input(model, mark.sample_input)
    except InputError as error:
        raise SetupError(f"{where}: sample_input does not fit: {error}") from error


def _kit(where: str, node: NodeMark) -> dict[str, ToolDefinition]:
    found = [tools.definition(where, item) for item in node.tools]
    kit = {tool.spec.name: tool for tool in found}
    if len(kit) < len(found):
        raise SetupError(f"{where}: two of its tools bear one name: {[tool.spec.name for tool in found]}")
    return kit


def _node(
    where: str, name: str, mark: NodeMark, method: Callable[..., Any], kit: Mapping[str, ToolDefinition]
) -> NodeSpec:
    if len(inspect.signature(method).parameters) not in (1, 2):
        raise SetupError(f"{where}: node {name!r} must take (self, state) or (self, state, ctx)")
    flaws.check_name(where, name, ID)
    return spec_of(
        where,
        NodeSpec,
        id=name,
        kind=mark.kind,
        description=inspect.getdoc(method) or "",
        model=mark.model,
        gate=mark.gate,
        agent=_agent(f"{where}: node {name!r}", mark, kit),
        remote=mark.remote,
        retry=mark.retry,
        timeout=mark.timeout,
        routes=tuple(mark.routes),
        next=mark.next,
    )


def _agent(where: str, mark: NodeMark, kit: Mapping[str, ToolDefinition]) -> AgentSpec | None:
    return spec_of(where, AgentSpec, tools=tuple(kit), max_steps=mark.max_steps) if kit else None
