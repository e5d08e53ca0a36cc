"""What surrounds a run while it is played. A server lends its database and bus; `MemoryHost` lends this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from openvibe import canonical
from openvibe.calls import HangUp
from openvibe.events import Event


@dataclass(frozen=True, slots=True)
class Effect:
    """What is known of an act on the outside world.

    `new`: it may be done now. `unknown`: an earlier try may or may not have done it. `confirmed`: it was done, with
    this `result`. `attempt` counts the tries.
    """

    state: Literal["new", "unknown", "confirmed"]
    result: Any = None
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Tries:
    """How many tries of a step have failed, and how many of its model call since the last of these."""

    step: int = 0
    model: int = 0

    def counted(self, told: Mapping[str, Any]) -> Tries:
        """Return the count with one more; `told` is the data of its event."""
        return Tries(self.step + 1) if told.get("of") == "step" else Tries(self.step, self.model + 1)

    @property
    def attempt(self) -> int:
        """The number of the try that follows."""
        return (self.step or self.model) + 1


@dataclass(frozen=True, slots=True)
class Change:
    """One revision of a value of the shared context. They count from 1; 0 is that of a value which never was."""

    revision: int
    value: Any = None
    deleted: bool = False


class Host(Protocol):
    """What a run asks of its surroundings, from any thread."""

    def record(self, event: Event) -> None:
        """Keep a fact that must not wait for the end of its step."""

    def tries(self, step_id: str) -> Tries:
        """Return how many tries of a step have failed in earlier plays of the run."""

    def words(self, *, node: str, step_id: str, text: str) -> None:
        """Pass on a model's words; they may get lost."""

    def playing(self) -> AbstractContextManager[None]:
        """A node plays inside this block, and may wait for anything; outside of it the engine works."""

    def calling(self, hang_up: HangUp) -> AbstractContextManager[None]:
        """A step waits for somebody outside inside this block; call `hang_up` when the run is no longer ours."""

    def abandoned(self, thread: threading.Thread) -> None:
        """A step's time is up, and its thread goes on unheard; nobody can stop it."""

    def now(self) -> datetime:
        """Return the time, in UTC."""

    def value(self, bucket: str, key: str) -> Any:
        """Return a value of the shared context, or None."""

    def entry(self, bucket: str, key: str) -> Change:
        """Return the latest revision of a value of the shared context."""

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Return the keys of a bucket of the shared context that begin with `prefix`, sorted."""

    def effect(self, *, node: str, step_id: str, key: str) -> Effect:
        """Look an effect up; a new one is noted as attempted before this returns."""

    def settle(self, *, node: str, step_id: str, key: str, state: str, result: Any = None) -> None:
        """Note how an attempt came out: `confirmed` with its result, or `failed`, which may be tried again.

        What was confirmed stays so: an earlier attempt whose time was up may fail late.
        """


@dataclass
class MemoryHost:
    """A host for scripts and tests: everything in this process, gone with it."""

    buckets: dict[str, dict[str, Any]] = field(default_factory=dict)
    effects: dict[tuple[str, str], Effect] = field(default_factory=dict)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _history: dict[tuple[str, str], list[Change]] = field(default_factory=dict)
    _lock: threading.Condition = field(default_factory=threading.Condition)

    def record(self, event: Event) -> None:
        """Forget it."""

    def tries(self, step_id: str) -> Tries:
        """There were no earlier plays."""
        return Tries()

    def words(self, *, node: str, step_id: str, text: str) -> None:
        """Forget them."""

    def playing(self) -> AbstractContextManager[None]:
        """Nobody waits for this process."""
        return nullcontext()

    def calling(self, hang_up: HangUp) -> AbstractContextManager[None]:
        """Nobody else plays the run."""
        return nullcontext()

    def abandoned(self, thread: threading.Thread) -> None:
        """Let it be."""

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return self.clock()

    def value(self, bucket: str, key: str) -> Any:
        """Return a value of the shared context, or None."""
        with self._lock:
            return canonical.jsonable(self.buckets.get(bucket, {}).get(key))

    def entry(self, bucket: str, key: str) -> Change:
        """Return the latest revision of a value of the shared context."""
        with self._lock:
            return (self._changes(bucket, key) or [Change(0)])[-1]

    def first_after(self, bucket: str, key: str, revision: int) -> Change | None:
        """Return the first change of a value after this revision, or None."""
        with self._lock:
            return next((item for item in self._changes(bucket, key) if item.revision > revision), None)

    def await_news(self, seconds: float) -> None:
        """Return when a value has been put, or after so many seconds."""
        with self._lock:
            self._lock.wait(seconds)

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Return a bucket's keys that begin with `prefix`, sorted."""
        with self._lock:
            return sorted(key for key in self.buckets.get(bucket, {}) if key.startswith(prefix))

    def put(self, values: Mapping[tuple[str, str], Any]) -> None:
        """Keep values of the shared context: (bucket, key) → value."""
        with self._lock:
            for (bucket, key), value in values.items():
                known, kept = self._changes(bucket, key), canonical.jsonable(value)
                known.append(Change(len(known) + 1, kept))
                self.buckets.setdefault(bucket, {})[key] = kept
            self._lock.notify_all()

    def _changes(self, bucket: str, key: str) -> list[Change]:
        known = self._history.setdefault((bucket, key), [])
        if not known and key in self.buckets.get(bucket, {}):
            known.append(Change(1, self.buckets[bucket][key]))
        return known

    def effect(self, *, node: str, step_id: str, key: str) -> Effect:
        """Look an effect up, and note a new one as attempted."""
        with self._lock:
            known = self.effects.get((step_id, key))
            if known is None:
                self.effects[step_id, key] = Effect("unknown")
            return known or Effect("new")

    def settle(self, *, node: str, step_id: str, key: str, state: str, result: Any = None) -> None:
        """Note how an attempt came out."""
        with self._lock:
            known = self.effects.get((step_id, key))
            if state == "confirmed":
                self.effects[step_id, key] = Effect("confirmed", result)
            elif known is not None and known.state != "confirmed":
                del self.effects[step_id, key]
