"""The decorators that describe an operator.

A decorator attaches a frozen mark to what it decorates and returns the same object, so a node is tested by calling it.
`openvibe.registry` reads the marks and assembles them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, overload

from pydantic import ValidationError

from openvibe.errors import SetupError
from openvibe.specs import GateSpec, ModelSpec

MARK = "__openvibe__"

T = TypeVar("T", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
#: Whether a conditional's label fits the state.
Route = Callable[[Any], Any]


@dataclass(frozen=True)
class OperatorMark:
    """What `@operator` was told."""

    id: str
    name: str
    description: str
    owner: str


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


@dataclass(frozen=True)
class NodeMark:
    """What a node decorator was told; at most one of `model`, `gate` and `routes` is set."""

    model: ModelSpec | None = None
    gate: GateSpec | None = None
    routes: Mapping[str, Route] = field(default_factory=dict)
    next: str = ""

    @property
    def kind(self) -> str:
        """The node's kind in the words of `NodeSpec`."""
        return "llm" if self.model else "gate" if self.gate else "conditional" if self.routes else "logic"


def operator(*, id: str, name: str = "", description: str = "", owner: str = "") -> Callable[[T], T]:
    """Define an operator: a class whose annotated attributes are state fields and whose nested classes are workflows.

    Example:
        >>> @operator(id="hello", name="Hello World")
        ... class Hello:
        ...     greeting: str = ""

    Raises:
        SetupError: the decorated object is no class, or is decorated twice.
    """

    def mark(cls: T) -> T:
        _must_be_class(cls, "@operator")
        return _attach(cls, OperatorMark(id, name or id.replace("_", " ").title(), description, owner))

    return mark


def workflow(
    *,
    id: str,
    trigger: str = "on_demand",
    trigger_id: str = "",
    name: str = "",
    description: str = "",
    inputs: tuple[str, ...] | None = None,
    sample_input: Mapping[str, Any] | None = None,
) -> Callable[[T], T]:
    """Define a workflow: a class nested in an operator. The order of its node methods is the order of execution.

    `trigger` is `on_demand`, or `cron:<five fields>`, `webhook:<source>`, `event:<operator>.<type>`,
    `request:<capability>`; `trigger_id` names it (else the workflow's id does). `inputs` names the state fields that
    a start may fill (all of them unless told), and `sample_input` is an input that works.

    Example:
        >>> @workflow(id="greet", trigger="on_demand", inputs=("name",), sample_input={"name": "Ada"})
        ... class Greet: ...

    Raises:
        SetupError: the decorated object is no class, or is decorated twice.
    """

    def mark(cls: T) -> T:
        _must_be_class(cls, "@workflow")
        text = description or (cls.__doc__ or "").strip()
        title = name or id.replace("_", " ").capitalize()
        return _attach(cls, WorkflowMark(id, trigger, trigger_id or id, title, text, inputs, sample_input or {}))

    return mark


@overload
def node(method: F) -> F: ...


@overload
def node(*, next: str = "") -> Callable[[F], F]: ...


def node(method: F | None = None, *, next: str = "") -> F | Callable[[F], F]:
    """Define a logic node: a method `(self, state)` that returns an update of state fields (a dict) or None.

    `next` names the node that follows (or `end`), where that is not the one declared next: a branch may loop back.

    Example:
        >>> @node
        ... def double(self, state):
        ...     return {"amount": state["amount"] * 2}
    """

    def mark(function: F) -> F:
        return _attach(_must_be_method(function, "@node"), NodeMark(next=next))

    return mark(method) if method is not None else mark


def llm_node(  # long: half of it is the docstring that users read
    *,
    model: str = "sonnet",
    max_tokens: int = 4096,
    output_format: str = "text",
    temperature: float | None = None,
    attempts: int = 3,
    next: str = "",
) -> Callable[[F], F]:
    """Define a node that asks a model. Its method `(self, state)` returns what to ask and where the answer goes.

    The returned dict holds `system` and `user` (texts) and either `output_key` (a state field that takes the text) or
    `output_keys` (state field → type). With `output_format="json"` the provider is asked for JSON of exactly those
    types; an answer that does not fit is shown to the model again with the error, up to `attempts` tries in all.
    `fallback`, a function of the last answer's text, may give the update to use when no answer fitted.

    `model` is an alias (`haiku`, `sonnet`, `opus`, `fast`, `smart`) or an exact id. `max_tokens` bounds the answer.
    `temperature` is passed to the provider when given. `next` is as in `@node`.

    Example:
        >>> @llm_node(model="haiku")
        ... def greet(self, state):
        ...     return {"system": "You are friendly.", "user": "Say hello!", "output_key": "greeting"}

    Raises:
        SetupError: an option is out of its range.
    """

    def mark(function: F) -> F:
        _must_be_method(function, "@llm_node")
        try:
            spec = ModelSpec(
                model=model,
                max_tokens=max_tokens,
                output_format=output_format,
                temperature=temperature,
                attempts=attempts,
            )
        except ValidationError as error:
            raise SetupError(f"@llm_node on {function.__qualname__}: {_first(error)}") from error
        return _attach(function, NodeMark(model=spec, next=next))

    return mark


def human_in_the_loop(  # long: half of it is the docstring that users read
    *,
    prompt: str,
    timeout: timedelta | None = None,
    decisions: tuple[str, ...] = ("approve", "reject"),
    edits: tuple[str, ...] = (),
    on_reject: str | None = None,
    on_timeout: str | None = None,
    next: str = "",
) -> Callable[[F], F]:
    """Define a gate: the run pauses until a person decides, and holds nothing meanwhile.

    The method's body runs before the pause and returns what is shown (a dict); if it returns None, the fields named in
    `edits` are shown. The decision is written to the state field that bears the gate's name, when there is one, and
    edited values to the fields they name. `reject` fails the run with the reason unless `on_reject` names a later
    node or `end`. After `timeout` the decision `on_timeout` (by default `reject`) is taken in the person's place.
    `next` is as in `@node`.

    Example:
        >>> @human_in_the_loop(prompt="Send this letter?", timeout=timedelta(hours=24), edits=("letter",))
        ... def review(self, state):
        ...     return {"letter": state["letter"]}

    Raises:
        SetupError: there is no decision to take, or `on_timeout` is none of them.
    """

    def mark(function: F) -> F:
        _must_be_method(function, "@human_in_the_loop")
        where = f"@human_in_the_loop on {function.__qualname__}"
        if not decisions or not prompt:
            raise SetupError(f"{where}: a gate needs a prompt and at least one decision")
        expiry = on_timeout or ("reject" if "reject" in decisions else None)
        if expiry is not None and expiry not in decisions:
            raise SetupError(f"{where}: on_timeout={expiry!r} is none of its decisions {decisions}")
        if timeout is not None and expiry is None:
            raise SetupError(f"{where}: a timeout needs on_timeout=, one of {decisions}")
        try:
            spec = GateSpec(
                prompt=prompt,
                timeout=timeout,
                decisions=decisions,
                edits=edits,
                on_reject=on_reject,
                on_timeout=expiry,
            )
        except ValidationError as error:
            raise SetupError(f"{where}: {_first(error)}") from error
        return _attach(function, NodeMark(gate=spec, next=next))

    return mark


def conditional(*, routes: Mapping[str, Route], next: str = "") -> Callable[[F], F]:
    """Define a choice. The method's update is applied, then the routes are tried in order on the updated state.

    The first label whose function says yes is chosen, and written to the state field that bears the conditional's
    name, when there is one. A label that names a node goes there; nodes that are declared later and named by a label
    run only when chosen, and rejoin at the next node that is no such branch. The label `end` ends the run; any other
    label just continues. `next` is as in `@node`, for the labels that continue.

    Example:
        >>> @conditional(routes={"sales": lambda s: s["score"] >= 80, "nurture": lambda s: True})
        ... def route(self, state):
        ...     return {"score": state["fit"] + state["intent"]}

    Raises:
        SetupError: there is no route, or one cannot be called. A run that no route fits fails with a `RunError`.
    """

    def mark(function: F) -> F:
        _must_be_method(function, "@conditional")
        wrong = [label for label, route in routes.items() if not callable(route)]
        if wrong or not routes:
            raise SetupError(
                f"@conditional on {function.__qualname__}: routes= maps each label to a function of the state"
                + (f"; {wrong} do not" if wrong else "; it is empty")
            )
        return _attach(function, NodeMark(routes=dict(routes), next=next))

    return mark


def _attach(target: F, mark: OperatorMark | WorkflowMark | NodeMark) -> F:
    if MARK in vars(target):
        raise SetupError(f"{target.__qualname__} is decorated twice; one OpenVibe decorator says what a thing is")
    setattr(target, MARK, mark)
    return target


def _must_be_class(target: Any, decorator: str) -> None:
    if not isinstance(target, type):
        raise SetupError(f"{decorator} decorates a class, not {target!r}")


def _must_be_method(target: F, decorator: str) -> F:
    if isinstance(target, type) or not callable(target):
        raise SetupError(f"{decorator} decorates a method, not {target!r}; options are keywords: {decorator}(…)")
    return target


def _first(error: ValidationError) -> str:
    item = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
