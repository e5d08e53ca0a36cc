"""What a claimed run's nodes may ask of this server while they play: facts, words, shared context and effects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from openvibe import canonical, host
from openvibe.calls import HangUp
from openvibe.events import Event as Fact
from openvibe.visits import Visits
from operators.models import Effect
from operators.services import attempts, calls, context, effects, lanes
from operators.services.leases import Claim
from operators.services.strays import strays
from operators.services.words import Words


def release() -> None:
    """Give the database connection back, because a node is about to play."""
    # SQLite has none to share, and reopening costs more. Inside a caller's transaction it is the caller's.
    if connection.vendor != "sqlite" and not connection.in_atomic_block:
        connection.close()


class ClaimHost:
    """The host of a run's nodes (see `openvibe.host.Host`). `change` writes facts under the run's claim.

    Effects are kept by the names of the `visits` that they belong to, and told with their steps.
    """

    def __init__(self, claim: Claim, change: Callable[[list[Fact]], None], words: Words, visits: Visits) -> None:
        self._claim, self._change, self._words, self._visits = claim, change, words, visits

    def record(self, event: Fact) -> None:
        """Commit a fact at once, in the middle of a step."""
        self._change([event])
        release()

    def tries(self, step_id: str) -> host.Tries:
        """Return how many tries of a step had failed before this claim."""
        if self._claim.fresh:
            return host.Tries()
        found = attempts.failed(self._claim.run.id, step_id)
        release()
        return found

    def words(self, *, node: str, step_id: str, text: str) -> None:
        """Pass on a model's words."""
        self._words.add(node=node, step_id=step_id, text=text)

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Let other runs compute meanwhile."""
        with lanes.left():
            try:
                yield
            finally:
                # Whoever waits for a lane keeps nothing that those in the lanes may need.
                release()

    def calling(self, hang_up: HangUp) -> AbstractContextManager[None]:
        """Let the process hang up when the run is not ours any more."""
        return calls.making(self._claim, hang_up)

    def abandoned(self, thread: threading.Thread) -> None:
        """Count a thread that nobody can stop."""
        strays.add(thread)

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return timezone.now()

    def value(self, bucket: str, key: str) -> Any:
        """Return a value of the shared context, or None."""
        found = context.value(self._claim.run.project_id, bucket, key)
        release()
        return found

    def entry(self, bucket: str, key: str) -> host.Change:
        """Return the latest revision of a value of the shared context."""
        found = context.entry(self._claim.run.project_id, bucket, key)
        release()
        return found

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Return a bucket's keys that begin with `prefix`, sorted."""
        found = context.keys(self._claim.run.project_id, bucket, prefix)
        release()
        return found

    def effect(self, *, node: str, step_id: str, key: str) -> host.Effect:
        """Look an effect up; a new one is committed as attempted before it is tried."""
        where = {"node": node, "step_id": step_id, "key": key}
        kept = self._kept(node, step_id, key)
        with transaction.atomic():
            row = effects.known(self._claim.run.id, **kept)
            if row and row.state == Effect.State.CONFIRMED:
                self._change([effects.fact("skipped", **where)])
                found = host.Effect("confirmed", row.result, row.attempts)
            elif row and row.state == Effect.State.ATTEMPTED:
                self._change([effects.fact("unknown", **where, attempt=row.attempts)])
                found = host.Effect("unknown", attempt=row.attempts)
            else:
                found = effects.attempt(self._claim.run.id, row, node=node, **kept, now=timezone.now())
                self._change([effects.fact("attempted", **where, attempt=found.attempt)])
        release()
        return found

    def settle(self, *, node: str, step_id: str, key: str, state: str, result: Any = None) -> None:
        """Commit how a try came out."""
        with transaction.atomic():
            fact = effects.fact(state, node=node, step_id=step_id, key=key, result=canonical.jsonable(result))
            self._change([fact])
            kept = self._kept(node, step_id, key)
            effects.settle(self._claim.run.id, **kept, state=state, result=result, now=timezone.now())
        release()

    def _kept(self, node: str, step_id: str, key: str) -> dict[str, str]:
        return {"step_id": self._visits.name(node, step_id), "key": key}
