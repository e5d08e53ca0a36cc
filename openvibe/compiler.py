"""Compiles a workflow's definition to a LangGraph graph. Order of declaration is order of execution."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt
from pydantic import BaseModel, Field, create_model

from openvibe import canonical, paths
from openvibe.errors import GateRejected, RunError
from openvibe.fields import Fields
from openvibe.llm import asking
from openvibe.primitives import Route
from openvibe.registry import WorkflowDefinition
from openvibe.session import Session
from openvibe.specs import GateSpec, NodeSpec

Play = Callable[..., Any]


@dataclass(frozen=True)
class CompiledWorkflow:
    """A workflow that the engine can play."""

    definition: WorkflowDefinition
    graph: CompiledStateGraph[Any, Session, Any, Any]


def compile_workflow(definition: WorkflowDefinition) -> CompiledWorkflow:
    """Build the graph of a workflow. It has no checkpointer of its own; the engine gives it one for each play."""
    fields = definition.fields
    state = TypedDict("State", dict.fromkeys(fields.types, Any), total=False)  # type: ignore[misc]  # the fields are known at run time only
    graph: Any = StateGraph(state, context_schema=Session)
    nodes = definition.spec.nodes
    following = paths.following(nodes)
    for node in nodes:
        method, after = definition.methods[node.id], following[node.id]
        if node.gate:
            ways = [after, _on_reject(node.gate)]
            graph.add_node(step_name(node.id), _gate(node, method, fields, after), destinations=_steps(ways))
        elif node.routes:
            targets = {
                label: paths.target(label) if label in (*following, paths.END) else after for label in node.routes
            }
            play = _conditional(node, method, fields, definition.routes[node.id], targets)
            graph.add_node(step_name(node.id), play, destinations=_steps(targets.values()))
        else:
            graph.add_node(step_name(node.id), (_llm if node.model else _logic)(node, method, fields))
            graph.add_edge(step_name(node.id), step_name(after) if after else END)
    graph.add_edge(START, step_name(nodes[0].id))
    return CompiledWorkflow(definition, graph.compile(name=f"{definition.operator_id}.{definition.spec.id}"))


def step_name(node_id: str) -> str:
    """Return a node's name inside LangGraph, which lets no node bear a state field's name."""
    return f"{node_id}()"


def _steps(nodes: Iterable[str | None]) -> tuple[str, ...]:
    return tuple({step_name(node) if node else END for node in nodes} | {END})


def node_id(step: str) -> str:
    """Return the node's id behind a name inside LangGraph."""
    return step.removesuffix("()")


def _logic(node: NodeSpec, method: Play, fields: Fields) -> Play:
    def play(state: dict[str, Any]) -> dict[str, Any]:
        return fields.check_update(node.id, method({**fields.defaults, **state}))

    return play


def _llm(node: NodeSpec, method: Play, fields: Fields) -> Play:
    spec = node.model
    assert spec is not None

    def play(state: dict[str, Any], runtime: Runtime[Session]) -> dict[str, Any]:
        session, step_id = runtime.context, _step_id(runtime)
        question = asking.Question.read(node.id, method({**fields.defaults, **state}))
        update = asking.ask(
            question,
            node=node.id,
            spec=spec,
            model=session.models.get(node.id) or spec.model,
            types=fields.types,
            provider=session.provider,
            listener=session.listen(node=node.id, step_id=step_id),
        )
        return fields.check_update(node.id, update)

    return play


class _Looked(dict[str, Any]):
    """A state that remembers which of its fields somebody looked at."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.at: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        self.at[name] = super().get(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.at[name] = super().get(name)
        return super().get(name, default)


def _conditional(
    node: NodeSpec, method: Play, fields: Fields, routes: Mapping[str, Route], targets: Mapping[str, str | None]
) -> Play:
    def play(state: dict[str, Any]) -> Command[Any]:
        view = {**fields.defaults, **state}
        update = fields.check_update(node.id, method(view))
        seen = _Looked({**view, **update})
        label = next((label for label, fits in routes.items() if fits(seen)), None)
        if label is None:
            looked = ", ".join(f"{name}={value!r:.80}" for name, value in seen.at.items()) or "nothing"
            raise RunError(f"No route of conditional {node.id!r} fits; tried {', '.join(routes)} and saw {looked}")
        if node.id in fields.types:
            update |= fields.check_update(node.id, {node.id: label})
        after = targets[label]
        return Command(update=update, goto=step_name(after) if after else END)

    return play


def _gate(node: NodeSpec, method: Play, fields: Fields, after: str | None) -> Play:
    gate = node.gate
    assert gate is not None
    schema = _answer_schema(gate, fields)

    def play(state: dict[str, Any]) -> Command[Any]:
        # The body runs again when the answer arrives; the answer decides, whatever the body returns then.
        view = {**fields.defaults, **state}
        shown = method(view)
        payload = shown if shown is not None else {name: view.get(name) for name in gate.edits}
        answer = interrupt(
            # A plain dict, because it is stored: checkpoints hold data, never types of ours.
            {
                "node": node.id,
                "prompt": gate.prompt,
                "payload": canonical.jsonable(payload),
                "decisions": list(gate.decisions),
                "schema": schema,
                "edits": list(gate.edits),
                "timeout_seconds": gate.timeout.total_seconds() if gate.timeout else None,
                "on_timeout": gate.on_timeout,
            }
        )
        return _decided(node, gate, fields, answer, after)

    return play


def _decided(
    node: NodeSpec, gate: GateSpec, fields: Fields, answer: Mapping[str, Any], after: str | None
) -> Command[Any]:
    decision, notes = answer["decision"], answer.get("notes") or ""
    update: dict[str, Any] = dict(answer.get("values") or {})
    if node.id in fields.types:
        update[node.id] = decision
    goto = after
    if decision == "reject":
        if gate.on_reject is None:
            raise GateRejected(f"Rejected at {node.id}" + (f": {notes}" if notes else ""))
        goto = _on_reject(gate)
    return Command(update=fields.check_update(node.id, update), goto=step_name(goto) if goto else END)


def _on_reject(gate: GateSpec) -> str | None:
    return paths.target(gate.on_reject) if gate.on_reject else None


def _answer_schema(gate: GateSpec, fields: Fields) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "decision": (Literal[gate.decisions], ...),
        "notes": (str, Field(default="", max_length=10_000)),
    }
    if gate.edits:
        edits: dict[str, Any] = {name: (fields.types[name], None) for name in gate.edits}
        values = create_model("Values", __config__={"extra": "forbid"}, **edits)
        parts["values"] = (values, None)
    model: type[BaseModel] = create_model("Answer", __config__={"extra": "forbid"}, **parts)
    return model.model_json_schema()


def _step_id(runtime: Runtime[Session]) -> str:
    info = runtime.execution_info
    return info.task_id if info else ""
