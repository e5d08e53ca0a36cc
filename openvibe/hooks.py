"""What a script hears of its runs: functions called after the fact, whose faults are nobody's but their own."""

from __future__ import annotations

import inspect
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from openvibe import events, loop
from openvibe.errors import SetupError
from openvibe.runs import Run

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

#: The engine's words for steps, and the hooks' names for them; either may be listened to.
_NAMES = {
    events.STEP_STARTED: "node.started",
    events.STEP_FINISHED: "node.finished",
    events.STEP_FAILED: "node.error",
}
KINDS = (
    "run.started",
    "run.resumed",
    "run.waiting",
    "run.completed",
    "run.failed",
    "run.cancelled",
    "run.refused",
    *_NAMES.values(),
    "gate.opened",
    "gate.decided",
    "gate.expired",
    "gate.escalated",
    "wait.opened",
    "wait.answered",
    "wait.expired",
    "timer.fired",
    "event.emitted",
    events.ATTEMPT_FAILED,
    events.LOG,
    "words",
)


@dataclass(frozen=True)
class HookEvent:
    """One thing that happened. `duration` is in seconds: a step's, or a whole run's; `data` depends on the kind."""

    kind: str
    run_id: str
    operator_id: str
    workflow_id: str
    at: datetime
    node_id: str = ""
    duration: float = 0.0
    data: Mapping[str, Any] = field(default_factory=dict)


class Hooks:
    """The functions that listen, by kind of event."""

    def __init__(self) -> None:
        self._listening: dict[str, list[Callable[[HookEvent], Any]]] = defaultdict(list)

    def on(self, kind: str) -> Callable[[F], F]:
        """Return a decorator that lets a function, plain or async, hear of each event of a kind (`*`: of all).

        Raises:
            SetupError: there is no such kind.
        """
        name = _NAMES.get(kind, kind)
        if name not in (*KINDS, "*"):
            raise SetupError(f"Nothing is called {kind!r}; listen to one of: {', '.join(KINDS)}, or '*'")

        def listen(function: F) -> F:
            self._listening[name].append(function)
            return function

        return listen

    def tell(
        self, run: Run, kind: str, *, at: datetime, node: str = "", duration: float = 0.0,
        data: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Call whoever listens."""
        name = _NAMES.get(kind, kind)
        heard = [*self._listening.get(name, ()), *self._listening.get("*", ())]
        if not heard:
            return
        event = HookEvent(name, run.id, run.operator_id, run.workflow_id, at, node, duration, data or {})
        for function in heard:
            try:
                result = function(event)
                if inspect.iscoroutine(result):
                    loop.run(result)
            except Exception:
                logger.exception("The hook %r failed on %s of run %s", function, name, run.id)
