"""Records plays, steps and calls, and hands each to a vendor's sink; whatever fails there is kept from the run."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from openvibe import trace
from openvibe.llm.protocol import ToolCall, Turn
from openvibe.tracing import spans
from openvibe.tracing.spans import Call, Play, Span

log = logging.getLogger(__name__)

#: How long a vendor's package may not repeat a complaint, in seconds.
QUIET_SECONDS = 300.0
#: How many characters of a complaint are kept; some name every span that was lost.
MOST_SAID = 300


class Sink(Protocol):
    """Takes spans to a vendor. It queues them and returns at once; what it raises is logged and forgotten."""

    #: Loggers of the vendor's packages, whose complaints about a dead receiver are let through only now and then.
    loggers: tuple[str, ...]

    def began(self, span: Span) -> None:
        """A span has begun."""

    def ended(self, span: Span) -> None:
        """A span is over."""

    def flush(self) -> None:
        """Send what is queued."""

    def close(self) -> None:
        """Send what is queued and let go."""


class Recorder:
    """A `Tracer` for any sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._told = False
        for name in sink.loggers:
            logger = logging.getLogger(name)
            if not any(isinstance(known, _Seldom) for known in logger.filters):
                logger.addFilter(_Seldom())

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
    ) -> RecordedRun:
        """Begin a play of a run."""
        play = Play(run_id, operator_id, workflow_id, input, spans.usable(traceparent), started, epoch)
        span = Span("play", workflow_id, play, spans.play_span_id(play))
        self.began(span)
        return RecordedRun(self, span)

    def began(self, span: Span) -> None:
        """Hand a span that has begun to the sink."""
        self._guarded(lambda: self._sink.began(span))

    def ended(self, span: Span) -> None:
        """Hand a span that is over to the sink."""
        span.ended = time.time_ns()
        self._guarded(lambda: self._sink.ended(span))

    def flush(self, timeout: float = 5.0) -> None:
        """Send what is still here, for at most `timeout` seconds."""
        self._awaited(self._sink.flush, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Send what is still here, for at most `timeout` seconds, and let go of connections and threads."""
        self._awaited(self._sink.close, timeout)

    def _awaited(self, act: Callable[[], None], timeout: float) -> None:
        # Not every vendor's package bounds the time that it takes, so it takes it on a thread that may be left behind.
        thread = threading.Thread(target=self._guarded, args=(act,), name="openvibe-tracing", daemon=True)
        thread.start()
        thread.join(timeout)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:
            if not self._told:
                self._told = True
                log.warning("Tracing fails; runs go on without it, and this is said once", exc_info=True)


@dataclass
class RecordedRun:
    """A `RunTrace` that a recorder keeps."""

    recorder: Recorder
    span: Span
    _visits: dict[str, Iterator[int]] = field(default_factory=lambda: defaultdict(itertools.count))

    @contextmanager
    def step(self, node: str, step_id: str, *, pauses: tuple[type[BaseException], ...] = ()) -> Iterator[RecordedStep]:
        """Record a step."""
        identity = spans.derived(self.span.id, "step", step_id, next(self._visits[step_id]))
        span = Span("step", node, self.span.play, identity, self.span, step_id=step_id)
        with _recorded(self.recorder, span, pauses):
            yield RecordedStep(self.recorder, span)

    def end(self, status: str, *, output: Any = None, error: str = "") -> None:
        """End this play, once."""
        if not self.span.ended:
            self.span.status, self.span.output, self.span.error = status, output, error
            self.recorder.ended(self.span)


@dataclass
class RecordedStep:
    """A `StepTrace` that a recorder keeps."""

    recorder: Recorder
    span: Span
    _calls: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def call(
        self, *, model: str, provider: str, system: str, user: str, history: Sequence[Turn] = ()
    ) -> Iterator[RecordedCall]:
        """Record a call to a model."""
        call = Call(model, provider, system, user, tuple(history))
        identity = spans.derived(self.span.id, "call", next(self._calls))
        span = Span("call", model, self.span.play, identity, self.span, step_id=self.span.step_id, call=call)
        with _recorded(self.recorder, span), trace.within(span.traceparent):
            yield RecordedCall(call)

    def finished(self, update: Mapping[str, Any] | None) -> None:
        """Note what the step changed."""
        self.span.output = update


@dataclass(frozen=True)
class RecordedCall:
    """A `CallTrace` that a recorder keeps."""

    record: Call

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
        """Note what came back."""
        record = self.record
        record.content, record.tokens_in, record.tokens_out = content, tokens_in, tokens_out
        record.cost_usd, record.answered_by, record.tool_calls = cost_usd, model, tuple(tool_calls)


@contextmanager
def _recorded(recorder: Recorder, span: Span, pauses: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    recorder.began(span)
    try:
        yield
        span.status = "completed"
    except pauses:
        span.status = "waiting"
        raise
    except BaseException as error:
        span.failed(error)
        raise
    finally:
        recorder.ended(span)


class _Seldom(logging.Filter):
    """Lets a line of code say something once in a while, and briefly, so that a dead receiver does not fill the log."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place, now = (record.pathname, record.lineno), time.monotonic()
        if now - self._last.get(place, -QUIET_SECONDS) < QUIET_SECONDS:
            return False
        self._last[place] = now
        record.msg, record.args = record.getMessage()[:MOST_SAID], ()
        return True
