"""The trace in which a thread works just now, so that whoever it asks outside can go on in it (W3C Trace Context)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[str] = ContextVar("openvibe_traceparent", default="")


def current() -> str:
    """Return the `traceparent` of whoever calls, or an empty text outside of every run."""
    return _current.get()


@contextmanager
def within(traceparent: str) -> Iterator[None]:
    """Work inside the block in this trace."""
    before = _current.set(traceparent)
    try:
        yield
    finally:
        _current.reset(before)
