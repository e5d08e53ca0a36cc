"""What all runs of a runtime share, and what each of them may ask of it while it is played."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from openvibe import engine
from openvibe.calls import Calls, HangUp
from openvibe.compiler import CompiledWorkflow, compile_workflow
from openvibe.errors import RunError, SetupError
from openvibe.events import Event
from openvibe.fields import check_input
from openvibe.hooks import Hooks
from openvibe.host import Change, Effect, Host, Tries
from openvibe.ids import run_id
from openvibe.ledger import Ledger
from openvibe.llm import LLMProvider
from openvibe.outcomes import Emission
from openvibe.protocol import headers
from openvibe.registry import Registry, WorkflowDefinition
from openvibe.runs import ENTRY, Origin, Run, Wait
from openvibe.tracing import NoTracer, Tracer
from openvibe.visits import Visits


class RecursionTooDeep(RunError):
    """Runs that start runs have come too far."""


@dataclass(frozen=True)
class Scene:
    """What all runs of a runtime share. `host` is the author's own, if there is one; `told` hears of emissions."""

    registry: Registry
    ledger: Ledger
    provider: LLMProvider
    models: Mapping[str, str]
    hooks: Hooks
    host: Host | None
    now: Callable[[], datetime]
    emitted: Callable[[Run, Emission], None]
    ask: Callable[[Run, Wait], None]
    changed: Callable[[], list[str]]
    tracer: Tracer = field(default_factory=NoTracer)
    calls: Calls[str] = field(default_factory=Calls)

    def compiled(self, run: Run) -> CompiledWorkflow:
        """Return a run's workflow; raises `SetupError` if it is not known here."""
        definition = self.registry.workflow(run.operator_id, run.workflow_id)
        if definition is None:
            raise SetupError(f"This runtime does not know {run.operator_id}.{run.workflow_id}; register it first")
        return _compiled(_ById(definition))

    def visits(self, run: Run) -> Visits:
        """Return the names of a run's visits: by number, where it keeps nothing between its steps."""
        definition = self.registry.workflow(run.operator_id, run.workflow_id)
        return Visits(starts_over=definition is not None and not definition.spec.checkpointed, steps=run.visits)

    def new(
        self, definition: WorkflowDefinition, input: Mapping[str, Any], *, trigger: str, parent: Run | None = None,
        origin: Origin = ENTRY, asked_by: str = "",
    ) -> Run:  # fmt: skip
        """Return a run that is about to be kept.

        Raises:
            InputError: the input does not fit.
            RecursionTooDeep: it would be one too many of a chain.
        """
        origin = Origin.child_of(parent) if parent else origin
        if origin.depth >= headers.MOST_DEPTH:
            raise RecursionTooDeep(
                f"recursion_depth_exceeded: {definition.operator_id}.{definition.spec.id} would be run number "
                f"{origin.depth + 1} of a chain in which each run starts the next; {headers.MOST_DEPTH} is the most"
            )
        now = self.now()
        limit = definition.spec.max_duration
        return Run(
            id=run_id(now),
            operator_id=definition.operator_id,
            workflow_id=definition.spec.id,
            trigger=trigger,
            input=check_input(definition.input_model, input),
            created_at=now,
            ends_by=now + limit if limit else None,
            parent=parent.id if parent else "",
            asked_by=asked_by,
            depth=origin.depth,
            traceparent=origin.traceparent,
            passed_on=dict(origin.passed_on),
        )


@dataclass(frozen=True)
class RunHost:
    """What surrounds one run: the author's host where there is one, else the ledger.

    Effects are kept by the names of the `visits` that they belong to.
    """

    scene: Scene
    run: Run
    visits: Visits

    def record(self, event: Event) -> None:
        """Tell a fact at once."""
        if self.scene.host is not None:
            self.scene.host.record(event)
        self.scene.hooks.tell(self.run, event.kind, at=self.now(), node=event.node, data=event.data)

    def tries(self, step_id: str) -> Tries:
        """Return how many tries of a step had failed when the run paused before the next one."""
        pauses = [wait for wait in self.run.waits if wait.interrupt_id.startswith(f"{engine.BACKOFF}{step_id}/")]
        return Tries(**pauses[-1].payload["tries"]) if pauses else Tries()

    def words(self, *, node: str, step_id: str, text: str) -> None:
        """Pass on a model's words."""
        if self.scene.host is not None:
            self.scene.host.words(node=node, step_id=step_id, text=text)
        self.scene.hooks.tell(self.run, "words", at=self.now(), node=node, data={"text": text})

    def playing(self) -> AbstractContextManager[None]:
        """Tell the author's host."""
        return self.scene.host.playing() if self.scene.host is not None else nullcontext()

    @contextmanager
    def calling(self, hang_up: HangUp) -> Iterator[None]:
        """Let somebody hang up who knows that the run is not ours any more."""
        theirs = self.scene.host.calling(hang_up) if self.scene.host is not None else nullcontext()
        with theirs, self.scene.calls.making(self.run.id, hang_up):
            yield

    def abandoned(self, thread: threading.Thread) -> None:
        """Tell the author's host."""
        if self.scene.host is not None:
            self.scene.host.abandoned(thread)

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return self.scene.now()

    def value(self, bucket: str, key: str) -> Any:
        """Return a value of the shared context, or None."""
        return (self.scene.host or self.scene.ledger).value(bucket, key)

    def entry(self, bucket: str, key: str) -> Change:
        """Return the latest revision of a value of the shared context."""
        return (self.scene.host or self.scene.ledger).entry(bucket, key)

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Return a bucket's keys that begin with `prefix`, sorted."""
        return (self.scene.host or self.scene.ledger).keys(bucket, prefix)

    def effect(self, *, node: str, step_id: str, key: str) -> Effect:
        """Look an effect up."""
        if self.scene.host is not None:
            return self.scene.host.effect(node=node, step_id=step_id, key=key)
        return self.scene.ledger.effect(self.run.id, self.visits.name(node, step_id), key)

    def settle(self, *, node: str, step_id: str, key: str, state: str, result: Any = None) -> None:
        """Note how an attempt came out."""
        if self.scene.host is not None:
            self.scene.host.settle(node=node, step_id=step_id, key=key, state=state, result=result)
        else:
            place = self.visits.name(node, step_id)
            self.scene.ledger.settle(self.run.id, place, key, state=state, result=result)

    @property
    def keeps(self) -> Callable[[Mapping[tuple[str, str], Any]], None] | None:
        """How the author's host keeps values of the shared context; None where the ledger does."""
        return getattr(self.scene.host, "put", None)


class _ById:
    """A definition as a key; equal only to itself."""

    def __init__(self, definition: WorkflowDefinition) -> None:
        self.definition = definition

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.definition is self.definition

    def __hash__(self) -> int:
        return id(self.definition)


@functools.lru_cache(maxsize=512)
def _compiled(key: _ById) -> CompiledWorkflow:
    return compile_workflow(key.definition)
