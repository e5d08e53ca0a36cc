"""What surrounds whatever a step does: the run's trace is told of it, and the host that a node plays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime
from langgraph.types import Command

from openvibe.errors import Backoff, EffectUnknown
from openvibe.graph.nodes import Play
from openvibe.session import Session
from openvibe.tracing import NOT_TRACED

#: What leaves a step without its having failed: the run goes on later.
_PAUSES = (GraphBubbleUp, EffectUnknown, Backoff)


def traced(name: str, play: Play) -> Play:
    """Return a play that is told to the session's host, and to its trace if it has one."""

    def traced_play(state: dict[str, Any], runtime: Runtime[Session]) -> Any:
        with runtime.context.host.playing():
            return told_play(state, runtime)

    def told_play(state: dict[str, Any], runtime: Runtime[Session]) -> Any:
        session, info = runtime.context, runtime.execution_info
        if session.trace is NOT_TRACED or info is None:
            return play(state, runtime)
        with session.trace.step(name, info.task_id, pauses=_PAUSES) as span:
            session.spans[info.task_id] = span
            try:
                result = play(state, runtime)
            finally:
                del session.spans[info.task_id]
            span.finished(_update(result))
        return result

    return traced_play


def _update(result: Any) -> Mapping[str, Any] | None:
    update = result.update if isinstance(result, Command) else result
    return update if isinstance(update, Mapping) else None
