"""Assembles decorated classes into definitions that can be compiled. Registration is all or nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from openvibe import paths
from openvibe.errors import InputError, SetupError
from openvibe.fields import Fields, check_input
from openvibe.primitives import MARK, NodeMark, OperatorMark, Route, WorkflowMark
from openvibe.specs import NodeSpec, OperatorSpec, Spec, TriggerSpec, WorkflowSpec

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class WorkflowDefinition:
    """A workflow's description together with the code behind it: node id → bound method."""

    operator_id: str
    spec: WorkflowSpec
    fields: Fields
    input_model: type[BaseModel]
    methods: dict[str, Callable[..., Any]]
    routes: dict[str, Mapping[str, Route]]


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
        definition = define(cls)
        if definition.spec.id in self._operators:
            raise SetupError(f"{cls.__name__}: an operator with id {definition.spec.id!r} is registered already")
        self._operators[definition.spec.id] = definition
        return definition

    def remove(self, operator_id: str) -> None:
        """Forget an operator; its id is free again."""
        self._operators.pop(operator_id, None)

    def __iter__(self) -> Iterator[OperatorDefinition]:
        return iter(self._operators.values())

    def workflow(self, operator_id: str, workflow_id: str) -> WorkflowDefinition | None:
        """Return a workflow's definition, or None if this process does not know it."""
        definition = self._operators.get(operator_id)
        return definition.workflows.get(workflow_id) if definition else None


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
    if not nested:
        raise SetupError(f"Operator {mark.id!r} ({cls.__name__}) has no workflow; nest a class with @workflow(id=…)")
    workflows: dict[str, WorkflowDefinition] = {}
    for item in nested:
        definition = _workflow(mark.id, fields, item)
        if definition.spec.id in workflows:
            raise SetupError(f"{cls.__name__}.{item.__name__}: workflow id {definition.spec.id!r} is used twice")
        workflows[definition.spec.id] = definition
    spec = _build(
        cls.__name__,
        OperatorSpec,
        id=mark.id,
        name=mark.name,
        description=mark.description or (cls.__doc__ or "").strip(),
        owner=mark.owner,
        workflows=tuple(item.spec for item in workflows.values()),
    )
    return OperatorDefinition(spec=spec, workflows=workflows)


def vars_of(item: Any) -> dict[str, Any]:
    """Return an object's own attributes; empty for what has none."""
    return getattr(item, "__dict__", {})


def _workflow(operator_id: str, fields: Fields, cls: type) -> WorkflowDefinition:
    mark: WorkflowMark = vars(cls)[MARK]
    where = f"{cls.__qualname__} (workflow {mark.id!r})"
    inputs = mark.inputs if mark.inputs is not None else tuple(fields.types)
    unknown = [name for name in inputs if name not in fields.types]
    if unknown:
        raise SetupError(f"{where}: inputs= names {unknown}, which are no state fields of the operator")
    model = fields.model(f"{operator_id}.{mark.id} input", inputs)
    spec = _build(
        where,
        WorkflowSpec,
        id=mark.id,
        name=mark.name,
        description=mark.description,
        trigger=_trigger(where, mark),
        nodes=tuple(_nodes(where, fields, cls)),
        inputs=inputs,
        input_schema=model.model_json_schema(),
        sample_input=_sample(where, model, mark),
    )
    instance = cls()
    methods = {item.id: getattr(instance, item.id) for item in spec.nodes}
    routes = {item.id: vars(vars(cls)[item.id])[MARK].routes for item in spec.nodes if item.kind == "conditional"}
    return WorkflowDefinition(operator_id, spec, fields, model, methods, routes)


def _sample(where: str, model: type[BaseModel], mark: WorkflowMark) -> dict[str, Any]:
    if not mark.sample_input:
        return {}
    try:
        return check_input(model, mark.sample_input)
    except InputError as error:
        raise SetupError(f"{where}: sample_input does not fit: {error}") from error


def _trigger(where: str, mark: WorkflowMark) -> TriggerSpec:
    kind, _, source = mark.trigger.partition(":")
    if (kind == "on_demand") == bool(source):
        raise SetupError(
            f"{where}: trigger {mark.trigger!r} is none of on_demand, cron:<schedule>, webhook:<source>, "
            "event:<operator>.<type>, request:<capability>"
        )
    return _build(where, TriggerSpec, id=mark.trigger_id, kind=kind, source=source)


def _nodes(where: str, fields: Fields, cls: type) -> Iterator[NodeSpec]:
    marked = [(name, item) for name, item in vars(cls).items() if isinstance(vars_of(item).get(MARK), NodeMark)]
    if not marked:
        raise SetupError(f"{where} has no node; decorate at least one method with @node or @llm_node")
    for position, (name, method) in enumerate(marked):
        mark: NodeMark = vars(method)[MARK]
        if len(inspect.signature(method).parameters) != 2:
            raise SetupError(f"{where}: node {name!r} must take (self, state)")
        if mark.gate:
            _check_gate(where, name, mark, fields, later=[other for other, _ in marked[position + 1 :]])
        if mark.next not in ("", paths.END, *(other for other, _ in marked)):
            raise SetupError(f"{where}: node {name!r} has next={mark.next!r}, which is no node of the workflow")
        yield _build(
            where,
            NodeSpec,
            id=name,
            kind=mark.kind,
            description=inspect.getdoc(method) or "",
            model=mark.model,
            gate=mark.gate,
            routes=tuple(mark.routes),
            next=mark.next,
        )


def _check_gate(where: str, name: str, mark: NodeMark, fields: Fields, *, later: list[str]) -> None:
    gate = mark.gate
    assert gate is not None
    unknown = [field for field in gate.edits if field not in fields.types]
    if unknown:
        raise SetupError(f"{where}: gate {name!r} lets people edit {unknown}, which are no state fields")
    if gate.on_reject not in (None, "end", *later):
        raise SetupError(f"{where}: gate {name!r} has on_reject={gate.on_reject!r}; use 'end' or a later node: {later}")


def _build(where: str, kind: type[S], /, **values: Any) -> S:
    try:
        return kind(**values)
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        raise SetupError(f"{where}: {'.'.join(map(str, item['loc']))}={item['input']!r:.60}: {item['msg']}") from error
