"""What the decorators attach to classes and methods, for `openvibe.registry` to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import ValidationError

from openvibe import misfits
from openvibe.errors import SetupError
from openvibe.specs import Budget, GateSpec, ModelSpec, RemoteSpec, Retry, Spec
from openvibe.subscriptions import Listen

MARK = "__openvibe__"
#: Where `@durable` leaves its limit; it may stand above or below `@workflow`.
DURABLE = "__openvibe_durable__"

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=Spec)
#: Whether a conditional's label fits the state.
Route = Callable[[Any], Any]


@dataclass(frozen=True)
class OperatorMark:
    """What `@operator` was told."""

    id: str
    name: str
    description: str
    owner: str
    budget: Budget | None = None


@dataclass(frozen=True)
class WorkflowMark:
    """What `@workflow` was told."""

    id: str
    trigger: str
    trigger_id: str
    name: str
    description: str
    inputs: tuple[str, ...] | None
    sample_input: Mapping[str, Any] = field(default_factory=dict)
    listens: tuple[str | Listen, ...] = ()
    capability: str = ""
    emits: tuple[str, ...] = ()
    timeout: timedelta | None = None
    checkpointed: bool = True
    graph: Any = None


@dataclass(frozen=True)
class NodeMark:
    """What a node decorator was told. `model` and `tools` go together in an agent; else at most one thing is set."""

    model: ModelSpec | None = None
    gate: GateSpec | None = None
    routes: Mapping[str, Route] = field(default_factory=dict)
    tools: tuple[Any, ...] = ()
    max_steps: int = 0
    remote: RemoteSpec | None = None
    retry: Retry | None = None
    timeout: timedelta | None = None
    next: str = ""

    @property
    def kind(self) -> str:
        """The node's kind in the words of `NodeSpec`."""
        kinds = {"agent": self.max_steps, "llm": self.model, "gate": self.gate, "remote": self.remote}
        return next((kind for kind, given in kinds.items() if given), "conditional" if self.routes else "logic")


def attach(target: F, mark: OperatorMark | WorkflowMark | NodeMark) -> F:
    """Leave a mark, once."""
    if MARK in vars(target):
        raise SetupError(f"{target.__qualname__} is decorated twice; one OpenVibe decorator says what a thing is")
    setattr(target, MARK, mark)
    return target


def must_be_class(target: Any, decorator: str) -> None:
    """Refuse anything but a class."""
    if not isinstance(target, type):
        raise SetupError(f"{decorator} decorates a class, not {target!r}")


def must_be_method(target: F, decorator: str) -> F:
    """Refuse anything but a function."""
    if isinstance(target, type) or not callable(target):
        raise SetupError(f"{decorator} decorates a method, not {target!r}; options are keywords: {decorator}(…)")
    return target


def must_be_several(option: str, value: Any) -> None:
    """Refuse a single thing where several belong."""
    if value is not None and not isinstance(value, (tuple, list)):
        raise SetupError(f"{option}={value!r:.60} is no tuple; write ({value!r:.60},)")


def spec_of(where: str, kind: type[S], /, **values: Any) -> S:
    """Make a frozen spec; a wrong option is a `SetupError` that names the place and the option."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise misfits.explained(where, error) from error
