"""The trace in which a thread works just now, so that whoever it asks outside can go on in it (W3C Trace Context)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[str] = ContextVar("openvibe_traceparent", default="")
_state: ContextVar[str] = ContextVar("openvibe_tracestate", default="")


def current() -> str:
    """Return the `traceparent` of whoever calls, or an empty text outside of every run."""
    return _current.get()


def state() -> str:
    """Return the `tracestate` that belongs to it, or an empty text."""
    return _state.get()


@contextmanager
def within(traceparent: str, state: str | None = None) -> Iterator[None]:
    """Work inside the block in this trace; without a `state` in that of the block around it."""
    before, before_state = _current.set(traceparent), _state.set(_state.get() if state is None else state)
    try:
        yield
    finally:
        _current.reset(before)
        _state.reset(before_state)
