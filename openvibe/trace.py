"""The trace in which a thread works just now, so that whoever it asks outside can go on in it (W3C Trace Context)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

_current: ContextVar[str] = ContextVar("openvibe_traceparent", default="")
_state: ContextVar[str] = ContextVar("openvibe_tracestate", default="")


def current() -> str:
    """Return the `traceparent` of whoever calls, or an empty text outside of every run."""
    return _current.get()


def state() -> str:
    """Return the `tracestate` that belongs to it, or an empty text."""
    return _state.get()


def headers() -> dict[str, str]:
    """Return what a request to somebody outside tells of it: nothing outside of every run."""
    found = {"traceparent": current(), "tracestate": state() if current() else ""}
    return {name: text for name, text in found.items() if text}


@contextmanager
def within(traceparent: str, state: str | None = None) -> Iterator[None]:
    """Work inside the block in this trace; without a `state` in that of the block around it."""
    before, before_state = _current.set(traceparent), _state.set(_state.get() if state is None else state)
    try:
        yield
    finally:
        _current.reset(before)
        _state.reset(before_state)


def through(parts: Generator[T], traceparent: str, state: str) -> Iterator[T]:
    """Yield what a generator yields. It works in this trace, and whoever reads it stays in his own."""
    with closing(parts):
        while True:
            with within(traceparent, state):
                try:
                    part = next(parts)
                except StopIteration:
                    return
            yield part
