"""Compiles a workflow's definition to a LangGraph graph. Order of declaration is order of execution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from openvibe import paths
from openvibe.graph import agents, foreign, nodes, remotes
from openvibe.graph.nodes import Play
from openvibe.graph.steps import Method
from openvibe.graph.traced import traced
from openvibe.registry import WorkflowDefinition
from openvibe.specs import NodeSpec


@dataclass(frozen=True)
class CompiledWorkflow:
    """A workflow that the engine can play. A graph that was brought as it is may be `foreign`, and asynchronous."""

    definition: WorkflowDefinition
    graph: CompiledStateGraph[Any, Any, Any, Any]
    foreign: bool = False
    asynchronous: bool = False


def compile_workflow(definition: WorkflowDefinition) -> CompiledWorkflow:
    """Build the graph of a workflow. It has no checkpointer of its own; the engine gives it one for each play."""
    if definition.graph is not None:
        graph = foreign.compiled(definition.graph)
        return CompiledWorkflow(definition, graph, foreign=True, asynchronous=foreign.asynchronous(graph))
    specs = definition.spec.nodes
    channels = [*definition.fields.types, *(agents.talk(node.id) for node in specs if node.kind == "agent")]
    state = TypedDict("State", dict.fromkeys(channels, Any), total=False)  # type: ignore[misc]  # the fields are known at run time only
    assembly = _Assembly(definition, StateGraph(state))
    for node in specs:
        assembly.add(node)
    assembly.graph.add_edge(START, step_name(specs[0].id))
    return CompiledWorkflow(definition, assembly.graph.compile(name=f"{definition.operator_id}.{definition.spec.id}"))


def step_name(node_id: str) -> str:
    """Return a node's name inside LangGraph, which lets no node bear a state field's name."""
    return f"{node_id}()"


def node_id(step: str) -> str:
    """Return the node's id behind a name inside LangGraph."""
    return step.removesuffix("()")


def _way(node: str | None) -> str:
    return step_name(node) if node else END


class _Assembly:
    """A graph in the making."""

    def __init__(self, definition: WorkflowDefinition, graph: Any) -> None:
        self.graph = graph
        self._definition = definition
        self._after = paths.following(definition.spec.nodes)

    def add(self, node: NodeSpec) -> None:
        method, fields, after = Method(self._definition.methods[node.id]), self._definition.fields, self._after[node.id]
        match node.kind:
            case "gate":
                leads = paths.leads(node, after)
                self._choice(node.id, nodes.gate(node, method, fields, leads=leads, way=_way), leads.values())
            case "conditional":
                targets = self._targets(node, after)
                routes = self._definition.routes[node.id]
                play = nodes.conditional(node, method, fields, routes=routes, targets=targets, way=_way)
                self._choice(node.id, play, targets.values())
            case "agent":
                tools = self._definition.tools[node.id]
                play = agents.model(node, method, fields, tools=tools, after=after, way=_way)
                self._choice(node.id, play, [after, agents.calls(node.id)])
                own = [node.id, agents.calls(node.id)]
                self._choice(agents.calls(node.id), agents.tool(node, fields, tools=tools, way=_way), own)
            case "llm":
                self._straight(node.id, nodes.llm(node, method, fields), after)
            case "remote":
                self._straight(node.id, remotes.remote(node, method, fields), after)
            case _:
                self._straight(node.id, nodes.logic(node, method, fields), after)

    def _straight(self, name: str, play: Play, after: str | None) -> None:
        self.graph.add_node(step_name(name), traced(name, play))
        self.graph.add_edge(step_name(name), _way(after))

    def _choice(self, name: str, play: Play, ways: Iterable[str | None]) -> None:
        self.graph.add_node(
            step_name(name), traced(name, play), destinations=tuple({_way(node) for node in ways} | {END})
        )

    def _targets(self, node: NodeSpec, after: str | None) -> Mapping[str, str | None]:
        known = (*self._after, paths.END)
        return {label: paths.target(label) if label in known else after for label in node.routes}
