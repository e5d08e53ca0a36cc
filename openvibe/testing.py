"""For the tests of operators: play a workflow in one call, with a scripted model, a memory bus and a clock that is set.

Example:
    >>> run = play(Letters, "write", answers=["approve"], provider=ScriptedProvider(["Dear baker,"]))
    >>> run.status
    'completed'
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from openvibe import llm
from openvibe.bus.memory import MemoryBus
from openvibe.errors import RunError
from openvibe.host import MemoryHost
from openvibe.llm.scripted import ScriptedProvider
from openvibe.registry import OperatorDefinition
from openvibe.runs import Run, Wait
from openvibe.runtime import OperatorRuntime

__all__ = ["MemoryBus", "MemoryHost", "ScriptedProvider", "SettableClock", "forbid_real_models", "play"]

#: An answer to a wait: a decision, or the arguments of `OperatorRuntime.resume` or of `OperatorRuntime.answer`.
Answer = str | Mapping[str, Any]


class SettableClock:
    """A clock that stands still until somebody moves it. Give it to a host: `MemoryHost(clock=SettableClock())`.

    Example:
        >>> clock = SettableClock(datetime(2026, 2, 16, tzinfo=UTC))
        >>> clock.advance(timedelta(days=3))
        >>> clock().day
        19
    """

    def __init__(self, now: datetime = datetime(2026, 1, 1, 9, tzinfo=UTC)) -> None:
        self._now = now

    def __call__(self) -> datetime:
        """Return the time."""
        return self._now

    def set(self, now: datetime) -> None:
        """Make it this late. Raises `ValueError` for a time without a time zone."""
        if now.tzinfo is None:
            raise ValueError("A clock is set to an aware datetime, such as datetime(2026, 2, 16, tzinfo=UTC)")
        self._now = now.astimezone(UTC)

    def advance(self, delta: timedelta | float) -> None:
        """Let time pass; a number counts seconds."""
        self._now += delta if isinstance(delta, timedelta) else timedelta(seconds=delta)


def play(
    operator: type | OperatorDefinition,
    workflow: str,
    input: Mapping[str, Any] | None = None,
    *,
    answers: Iterable[Answer] = (),
    provider: Any = "simulated",
    host: MemoryHost | None = None,
) -> Run:
    """Play one run of a workflow, sleeping through its rests, and return it as it stands when nothing is left to say.

    `answers` are given in turn, one to each wait for a person, a tool, work or another operator: a decision such as
    `"approve"`, or `{"decision": …, "values": …}`, or `{"result": …}`, or `{"error": …}`; one to a watch of the shared
    context is what is put there, `{"value": …}`. A run that still waits after the last one is returned waiting.

    Raises:
        RunError: an answer was left over.
        InputError: the input, or an answer, does not fit.
    """
    with OperatorRuntime(llm=provider, bus="memory", scheduler="none", checkpointer="memory", host=host) as runtime:
        known = runtime.register(operator) if isinstance(operator, type) else runtime.add(operator)
        run = _rested(runtime, runtime.activate(known.spec.id, workflow, input))
        for answer in answers:
            wait = next(iter(run.open_waits), None)
            if wait is None:
                raise RunError(f"Nobody asks for {answer!r}: run {run.id} is {run.status} {run.error}".rstrip())
            run = _rested(runtime, _answered(runtime, run, wait, answer))
        return run


def forbid_real_models() -> AbstractContextManager[None]:
    """Refuse every provider but the simulated one and those of your own making, from now on in this process.

    As a context manager it ends with its block.

    Example:
        >>> forbid_real_models()  # in conftest.py
    """
    before = set(llm.forbidden)
    llm.forbidden |= set(llm.PROVIDERS) - {"simulated"}
    return _permitting_again(before)


@contextmanager
def _permitting_again(before: set[str]) -> Iterator[None]:
    try:
        yield
    finally:
        llm.forbidden.clear()
        llm.forbidden.update(before)


def _rested(runtime: OperatorRuntime, run: Run) -> Run:
    """Let time pass while the run waits for nothing but the clock."""
    while run.open_waits and all(wait.kind == "timer" for wait in run.open_waits):
        due = min(wait.deadline for wait in run.open_waits if wait.deadline)
        runtime.advance(due - runtime.now())
        run = runtime.run(run.id) or run
    return run


def _answered(runtime: OperatorRuntime, run: Run, wait: Wait, answer: Answer) -> Run:
    given = {"decision": answer} if isinstance(answer, str) else dict(answer)
    if wait.kind == "change":
        runtime.context.put(wait.payload["bucket"], wait.payload["key"], given["value"])
        return runtime.run(run.id) or run
    if wait.kind == "approval":
        return runtime.resume(run.id, wait_id=wait.id, **given)
    return runtime.answer(wait.id, **given)
