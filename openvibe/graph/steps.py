"""One execution of a node: its ctx, its tries, its time limit and its rest."""

from __future__ import annotations

import contextvars
import inspect
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from openvibe import loop
from openvibe.ctx import Ctx, watched
from openvibe.errors import Backoff, EffectUnknown, RunError, StepTimeout, WorkflowTimeout, WrongUpdate
from openvibe.fields import REST
from openvibe.session import Session, StepListener, StepNotes
from openvibe.specs import NodeSpec, Retry

T = TypeVar("T")

#: The longest rest: what a timer may be asked for.
LONGEST_REST = timedelta(days=366)
#: What a try may take, in seconds, that begins when the run's time is over already.
_LAST_TRY = 1.0
_ONE_TRY = Retry()


class Method:
    """A node's method: `(state)` or `(state, ctx)` once it is bound, plain or asynchronous."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._takes_ctx = len(inspect.signature(function).parameters) == 2

    def __call__(self, view: Mapping[str, Any], ctx: Ctx) -> Any:
        """Call it; a coroutine runs on the process's loop, and is cancelled there when its time is up."""
        result = self._function(view, ctx) if self._takes_ctx else self._function(view)
        if not inspect.iscoroutine(result):
            return result
        with ExitStack() as stack:
            try:
                # First, so that whoever ends the run once the method has begun finds somebody to hang up on.
                stack.enter_context(ctx.session.calling(ctx.notes))
            except BaseException:
                result.close()
                raise
            awaited = loop.submit(result)
            stack.callback(awaited.cancel)
            stack.enter_context(ctx.notes.line.held(awaited.cancel))
            return awaited.result()


@dataclass(frozen=True)
class Step:
    """A node's turn. It lends the node its ctx, and tries again where the node's policy says so.

    `answers` are those that came from elsewhere to what its node asked through ctx, in the order of asking.
    """

    node: NodeSpec
    session: Session
    id: str
    answers: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, node: NodeSpec, runtime: Runtime[Session]) -> Step:
        """Return the step that LangGraph is executing."""
        info = runtime.execution_info
        step_id = info.task_id if info else ""
        runtime.context.visits.begin(node.id, step_id)
        return cls(node, runtime.context, step_id)

    @property
    def attempt(self) -> Attempt:
        """A try of it."""
        return Attempt(self, self.notes)

    @property
    def listener(self) -> StepListener:
        """The ear of this step's model calls."""
        return self.attempt.listener

    @property
    def notes(self) -> StepNotes:
        """What this step emits and puts."""
        return self.session.notes(self.id)

    @property
    def model(self) -> str:
        """The model that this node asks: its own, or the one that an administrator chose."""
        assert self.node.model is not None
        return self.session.models.get(self.node.id) or self.node.model.model

    def call(self, method: Method, view: Mapping[str, Any]) -> Any:
        """Call the node's method."""
        return self.attempt.call(method, view)

    def tried(self, act: Callable[[Attempt], T]) -> T:
        """Do it, again after an error that the node's policy covers; every failed try is shown.

        Raises:
            Backoff: the pause before the next try is longer than the session's patience.
        """
        retry = self.node.retry or _ONE_TRY
        no_fault: tuple[type[Exception], ...] = (
            GraphBubbleUp,
            EffectUnknown,
            Backoff,
            WorkflowTimeout,
            *self.session.outside,
        )
        while True:
            try:
                return self._in_time(act)
            except no_fault:
                raise
            except Exception as error:
                if retry.attempts == 1 or not retry.covers(error):
                    raise
                attempt = self.session.tries(self.id).step + 1
                if attempt >= retry.attempts:
                    raise
                self._pause(retry, attempt, error)

    def _pause(self, retry: Retry, attempt: int, error: Exception) -> None:
        pause = retry.pause_after(attempt)
        told = f"{type(error).__name__}: {error}"
        self.listener.attempt_failed(of="step", attempt=attempt, attempts=retry.attempts, error=told, pause=pause)
        self.notes.forget()
        if pause > self.session.patience:
            raise Backoff(pause, told) from error
        time.sleep(pause)

    def rested(self, update: Any) -> Any:
        """Take `wait_duration` out of an update and note it."""
        if not isinstance(update, Mapping) or REST not in update:
            return update
        given = update[REST]
        seconds = given.total_seconds() if isinstance(given, timedelta) else given
        known = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        # Compared before it is converted: a timedelta cannot hold every number.
        if not known or not 0 <= seconds <= LONGEST_REST.total_seconds():
            raise WrongUpdate(
                f"Node {self.node.id!r} returned {REST}={given!r}; use a timedelta from 0 to {LONGEST_REST.days} days"
            )
        self.notes.sleep = timedelta(seconds=seconds)
        return {name: value for name, value in update.items() if name != REST}

    def _in_time(self, act: Callable[[Attempt], T]) -> T:
        attempt = self.attempt
        if self.node.timeout is None and self.session.left is None:
            return act(attempt)
        seconds, over = self._limit()
        told: list[T] = []
        faults: list[BaseException] = []

        def perform() -> None:
            try:
                told.append(act(attempt))
            except BaseException as error:
                faults.append(error)

        # The interrupt's scratchpad lives in context variables.
        thread = threading.Thread(
            target=contextvars.copy_context().run, args=(perform,), name=f"step {self.node.id}", daemon=True
        )
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            # Python cannot stop a thread; what it still says is not listened to.
            self.session.abandon(self.id, thread)
            raise over
        if faults:
            raise faults[0]
        return told[0]

    def _limit(self) -> tuple[float, RunError]:
        """Return how long a try may take, in seconds, and what is said of one that takes longer."""
        own = self.node.timeout.total_seconds() if self.node.timeout else math.inf
        left = self.session.left() if self.session.left else math.inf
        left = left if left > 0 else _LAST_TRY
        if own <= left:
            return own, StepTimeout(f"Node {self.node.id!r} took longer than {self.node.timeout}")
        told = f"Node {self.node.id!r} was being played when the time was over that its workflow allows"
        return left, WorkflowTimeout(told)


@dataclass(frozen=True)
class Attempt:
    """One try of a step. It keeps to its own notes, so that one whose time is up disturbs no later one."""

    step: Step
    notes: StepNotes

    @property
    def listener(self) -> StepListener:
        """The ear of its model calls."""
        return StepListener(self.step.session, self.step.node.id, self.step.id, self.notes)

    @property
    def ctx(self) -> Ctx:
        """The third parameter of the node's method."""
        asking = _Asking(self.step.answers, self.notes)
        return Ctx(self.step.session, self.step.node.id, self.step.id, self.notes, asking)

    def call(self, method: Method, view: Mapping[str, Any]) -> Any:
        """Call the node's method."""
        return self.made(lambda: method(view, self.ctx))

    def made(self, act: Callable[[], T]) -> T:
        """Do what the author wrote; what has to be waited for ends the try, also where that is caught there."""
        try:
            result = act()
        except Exception as error:
            if self.notes.pause in (None, error):
                raise
            raise self.notes.pause from error
        if self.notes.pause is not None:
            raise self.notes.pause
        return result


class _Asking:
    """Asks through LangGraph, which counts what a step asks over all its tries: a further try gets the same answers.

    What a step watches may hang on a value that has changed by now: the answer to a watch that is not asked for any
    more is left out.
    """

    def __init__(self, answers: list[Any], notes: StepNotes) -> None:
        self._answers, self._notes = answers, notes
        self._asked = 0

    def __call__(self, request: dict[str, Any]) -> Any:
        while True:
            self._asked += 1
            if self._asked > len(self._answers):
                self._answers.append(self._interrupted(request))
            answer = self._answers[self._asked - 1]
            if "watched" not in answer or answer["watched"] == _watched(request):
                return answer

    def _interrupted(self, request: dict[str, Any]) -> Any:
        try:
            return interrupt(request)
        except GraphBubbleUp as pause:
            self._notes.pause = pause
            raise


def _watched(request: dict[str, Any]) -> str | None:
    payload = request["payload"]
    return watched(payload["bucket"], payload["key"]) if request["kind"] == "change" else None
