"""LangGraph graphs that were brought as they are."""

from __future__ import annotations

from typing import Any

from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel

from openvibe.errors import SetupError


def compiled(graph: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return a graph ready to be played; one that was compiled already is taken as it is.

    Raises:
        SetupError: it is no LangGraph graph, or LangGraph refuses to compile it.
    """
    if isinstance(graph, StateGraph):
        try:
            return graph.compile()
        except ValueError as error:
            raise SetupError(
                f"LangGraph cannot compile the graph that @workflow(graph=…) was given: {error}"
            ) from error
    if isinstance(graph, CompiledStateGraph):
        return graph
    raise SetupError(f"@workflow(graph=…) takes a LangGraph StateGraph, not {type(graph).__name__}")


def asynchronous(graph: Pregel[Any, Any, Any, Any]) -> bool:
    """Tell whether any node or any choice of way of a graph, or of the graphs within, can only be awaited."""
    builder = getattr(graph, "builder", None)
    choices = [branch.path for branches in builder.branches.values() for branch in branches.values()] if builder else []
    return any(map(_awaited, [*(node.bound for node in graph.nodes.values()), *choices]))


def _awaited(bound: Any) -> bool:
    if isinstance(bound, Pregel):
        return asynchronous(bound)
    return getattr(bound, "afunc", None) is not None and getattr(bound, "func", None) is None
