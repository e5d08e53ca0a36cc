"""Telling a tracing service what runs do: one trace a run, whichever service takes it, and never at a run's cost.

A run may be played several times, in other processes and days apart; each play is a segment of the run's one trace,
and holds the play's steps, which hold their calls to models.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from openvibe.errors import SetupError
from openvibe.llm.protocol import ToolCall, Turn

#: Tracers by name and the modules that implement them; a module is imported when its tracer is asked for.
TRACERS = {
    "otel": "openvibe.tracing.otel",
    "langfuse": "openvibe.tracing.langfuse",
    "langsmith": "openvibe.tracing.langsmith",
}


class CallTrace(Protocol):
    """One call to a model. An exception that leaves the `with` block marks it as failed."""

    def answered(
        self,
        content: str,
        *,
        tokens_in: int,
        tokens_out: int,
        cost_usd: Decimal | None,
        model: str = "",
        tool_calls: Sequence[ToolCall] = (),
    ) -> None:
        """Tell what came back; `model` is the one that answered, where it differs from the one that was asked."""


class StepTrace(Protocol):
    """One step, or one try of it. An exception that leaves the `with` block marks it as failed."""

    def call(
        self, *, model: str, provider: str, system: str, user: str, history: Sequence[Turn] = ()
    ) -> AbstractContextManager[CallTrace]:
        """Begin a call to a model; it ends with the `with` block."""
        ...

    def finished(self, update: Mapping[str, Any] | None) -> None:
        """Tell what the step changed."""


class RunTrace(Protocol):
    """One play of a run."""

    def step(
        self, node: str, step_id: str, *, pauses: tuple[type[BaseException], ...] = ()
    ) -> AbstractContextManager[StepTrace]:
        """Begin a step; it ends with the `with` block. Exceptions that are `pauses` mean waiting, not failure."""
        ...

    def end(self, status: str, *, output: Any = None, error: str = "") -> None:
        """End this play; `status` is `waiting` when the run goes on later, else how the run ended."""


class Tracer(Protocol):
    """What a tracing service must offer. All of it is thread-safe, returns at once and never raises.

    Faults are logged, once. What cannot be delivered is dropped.
    """

    def run(
        self,
        run_id: str,
        *,
        operator_id: str,
        workflow_id: str,
        input: Mapping[str, Any] | None,
        traceparent: str,
        started: datetime,
        epoch: int = 0,
    ) -> RunTrace:
        """Begin a play of a run.

        `input` is None when the run goes on from where it was. `traceparent` (W3C) names the trace. `started` is when
        the run's first play began, in UTC; it must be the same for all its plays, because some services find a trace
        by it. `epoch` numbers the plays from 1, so that the ids of a play are the same whoever makes them; with 0 they
        are chosen by chance.
        """
        ...

    def flush(self, timeout: float = 5.0) -> None:
        """Send what is still here, for at most `timeout` seconds."""

    def close(self, timeout: float = 5.0) -> None:
        """Send what is still here, for at most `timeout` seconds, and let go of connections and threads."""


class _Nothing(AbstractContextManager["_Nothing"]):
    """A run, a step and a call of which nothing is told."""

    __slots__ = ()

    def step(self, node: str, step_id: str, *, pauses: tuple[type[BaseException], ...] = ()) -> _Nothing:
        return self

    def call(self, **_: Any) -> _Nothing:
        return self

    def finished(self, update: Mapping[str, Any] | None) -> None:
        return None

    def answered(self, content: str, **_: Any) -> None:
        return None

    def end(self, status: str, *, output: Any = None, error: str = "") -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


#: The trace of a run of which nothing is told.
NOT_TRACED = _Nothing()


class NoTracer:
    """Tells nobody anything, and costs nothing."""

    __slots__ = ()

    def run(self, run_id: str, **_: Any) -> RunTrace:
        """Begin a play of which nothing is told."""
        return NOT_TRACED

    def flush(self, timeout: float = 5.0) -> None:
        """There is nothing to send."""

    def close(self, timeout: float = 5.0) -> None:
        """There is nothing to let go of."""


def tracer(name: str, project: str = "", **options: Any) -> Tracer:
    """Make the tracer of that name: `none`, `otel`, `langfuse` or `langsmith`.

    `project` is what the runs are filed under; `options` go to the tracer's own module.

    Raises:
        SetupError: no such tracer, its package is not installed, or it lacks its keys.
    """
    if name == "none":
        return NoTracer()
    module = TRACERS.get(name)
    if module is None:
        raise SetupError(f"No tracer is called {name!r}; use one of: none, {', '.join(TRACERS)}")
    try:
        made: Tracer = importlib.import_module(module).tracer(project, **options)
    except ImportError as error:
        raise SetupError(f"Tracing {name!r} needs a package: pip install openvibe[{name}] ({error})") from error
    return made
