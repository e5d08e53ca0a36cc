"""The decorators that describe an operator.

A decorator attaches a frozen mark to what it decorates and returns the same object, so a node is tested by calling it.
`openvibe.registry` reads the marks and assembles them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, overload

from openvibe import groups
from openvibe.errors import SetupError
from openvibe.marks import (
    DURABLE,
    NodeMark,
    OperatorMark,
    Route,
    WorkflowMark,
    attach,
    must_be_class,
    must_be_method,
    must_be_several,
    spec_of,
)
from openvibe.outcomes import Rule
from openvibe.specs import Budget, GateSpec, ModelSpec, RemoteSpec, Retry
from openvibe.subscriptions import Listen

T = TypeVar("T", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


def operator(
    *, id: str, name: str = "", description: str = "", owner: str = "", budget: Budget | None = None
) -> Callable[[T], T]:
    """Define an operator: a class whose annotated attributes are state fields and whose nested classes are workflows.

    `budget` bounds what its runs may cost; one that has used it up pauses until a person raises it.

    Example:
        >>> @operator(id="hello", name="Hello World")
        ... class Hello:
        ...     greeting: str = ""

    Raises:
        SetupError: the decorated object is no class, or is decorated twice.
    """

    def mark(cls: T) -> T:
        must_be_class(cls, "@operator")
        return attach(cls, OperatorMark(id, name or id.replace("_", " ").title(), description, owner, budget))

    return mark


def workflow(  # long: half of it is the docstring that users read
    *,
    id: str,
    trigger: str = "on_demand",
    trigger_id: str = "",
    name: str = "",
    description: str = "",
    inputs: tuple[str, ...] | None = None,
    sample_input: Mapping[str, Any] | None = None,
    listens: tuple[str | Listen, ...] = (),
    capability: str = "",
    emits: tuple[str, ...] = (),
    timeout: timedelta | None = None,
    checkpointed: bool = True,
    graph: Any = None,
) -> Callable[[T], T]:
    """Define a workflow: a class nested in an operator. The order of its node methods is the order of execution.

    `trigger` is `on_demand`, or `cron:<five fields>`, `webhook:<source>`, `event:<operator>.<type>`,
    `request:<capability>`; `trigger_id` names it (else the workflow's id does). `inputs` names the state fields that
    a start may fill (all of them unless told), and `sample_input` is an input that works. `listens` adds
    subscriptions to events (names, or `Listen(…)` with a filter), `capability` adds a request/reply door, and `emits`
    names the events that tell of its completion, with its output as their payload. `timeout` bounds its running time;
    waiting does not count. `checkpointed=False` keeps no state between steps: a run whose worker dies starts over.

    `graph` takes any LangGraph `StateGraph` (or compiled graph) as it is; the class has no nodes of its own then. Its
    `interrupt()` calls become gates.

    Example:
        >>> @workflow(id="greet", trigger="on_demand", inputs=("name",), sample_input={"name": "Ada"})
        ... class Greet: ...

    Raises:
        SetupError: the decorated object is no class, or is decorated twice.
    """

    def mark(cls: T) -> T:
        must_be_class(cls, "@workflow")
        for option, value in {"inputs": inputs, "listens": listens, "emits": emits}.items():
            must_be_several(f"@workflow on {cls.__qualname__}: {option}", value)
        text = description or (cls.__doc__ or "").strip()
        title = name or id.replace("_", " ").capitalize()
        given = WorkflowMark(
            id, trigger, trigger_id or id, title, text, inputs, sample_input or {}, tuple(listens), capability,
            tuple(emits), timeout, checkpointed, graph,
        )  # fmt: skip
        return attach(cls, given)

    return mark


def durable(*, max_days: float) -> Callable[[T], T]:
    """Let a workflow's runs live long, and end them after `max_days` days, waiting included.

    It stands with `@workflow`, above or below it.

    Example:
        >>> @workflow(id="nurture", trigger="event:lead.qualified")
        ... @durable(max_days=14)
        ... class Nurture: ...

    Raises:
        SetupError: the decorated object is no class, or `max_days` is not above 0.
    """

    def mark(cls: T) -> T:
        must_be_class(cls, "@durable")
        if not 0 < max_days <= 3650:
            raise SetupError(f"@durable on {cls.__qualname__}: max_days={max_days!r} is not between 0 and 3650 days")
        setattr(cls, DURABLE, timedelta(days=max_days))
        return cls

    return mark


@overload
def node(method: F) -> F: ...


@overload
def node(*, next: str = "", retry: Retry | None = None, timeout: timedelta | None = None) -> Callable[[F], F]: ...


def node(
    method: F | None = None, *, next: str = "", retry: Retry | None = None, timeout: timedelta | None = None
) -> F | Callable[[F], F]:
    """Define a logic node: a method `(self, state)` that returns an update of state fields (a dict) or None.

    It may be `async def`, and may take a third parameter, `ctx` (see `openvibe.Ctx`). `next` names the node that
    follows (or `end`), where that is not the one declared next: a branch may loop back. `retry` says how often a
    failing step is tried again, `timeout` how long one try may take. A `wait_duration` (a `timedelta`) in the update
    is no state field: the run sleeps that long after the step.

    Example:
        >>> @node
        ... def double(self, state):
        ...     return {"amount": state["amount"] * 2}
    """

    def mark(function: F) -> F:
        return attach(must_be_method(function, "@node"), NodeMark(next=next, retry=retry, timeout=timeout))

    return mark(method) if method is not None else mark


def llm_node(  # long: half of it is the docstring that users read
    *,
    model: str = "sonnet",
    max_tokens: int = 4096,
    output_format: str = "text",
    temperature: float | None = None,
    attempts: int = 3,
    timeout: timedelta | None = None,
    next: str = "",
) -> Callable[[F], F]:
    """Define a node that asks a model. Its method `(self, state)` returns what to ask and where the answer goes.

    The returned dict holds `system` and `user` (texts) and either `output_key` (a state field that takes the text) or
    `output_keys` (state field → type). With `output_format="json"` the provider is asked for JSON of exactly those
    types; an answer that does not fit is shown to the model again with the error, up to `attempts` tries in all.
    `fallback`, a function of the last answer's text, may give the update to use when no answer fitted. `update` may
    hold other state fields that the node writes itself.

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
        must_be_method(function, "@llm_node")
        spec = spec_of(
            f"@llm_node on {function.__qualname__}", ModelSpec, model=model, max_tokens=max_tokens,
            output_format=output_format, temperature=temperature, attempts=attempts,
        )  # fmt: skip
        return attach(function, NodeMark(model=spec, timeout=timeout, next=next))

    return mark


def agent_node(  # long: half of it is the docstring that users read
    *,
    tools: tuple[Any, ...] | list[Any],
    max_steps: int = 8,
    model: str = "sonnet",
    max_tokens: int = 4096,
    temperature: float | None = None,
    attempts: int = 3,
    next: str = "",
) -> Callable[[F], F]:
    """Define a node in which a model may call tools, again and again, until it answers.

    The method returns `system`, `user` and `output_key`, as in `@llm_node`. A tool is a Python function with typed
    parameters and a docstring, which the model reads (a last parameter `ctx` is filled by OpenVibe), or a
    `remote_tool(…)` that an agent elsewhere performs. Every model turn and every call is a step of its own, so that a
    crash repeats none that was finished. After `max_steps` calls the model is asked to answer without more tools. A
    tool that raises `ToolError` tells the model so; any other error fails the step.

    Example:
        >>> def price(product: str) -> float:
        ...     "Look up the price of a product."
        ...     return 9.99
        >>> @agent_node(tools=[price], model="sonnet")
        ... def advise(self, state):
        ...     return {"system": "You sell books.", "user": state["question"], "output_key": "answer"}

    Raises:
        SetupError: there is no tool, or an option is out of its range.
    """

    def mark(function: F) -> F:
        where = f"@agent_node on {must_be_method(function, '@agent_node').__qualname__}"
        must_be_several(f"{where}: tools", tools)
        if not tools:
            raise SetupError(f"{where}: tools= is empty; use @llm_node for a model without tools")
        if max_steps < 1:
            raise SetupError(f"{where}: max_steps={max_steps!r} is below 1")
        spec = spec_of(
            where, ModelSpec, model=model, max_tokens=max_tokens, temperature=temperature, attempts=attempts
        )  # fmt: skip
        return attach(function, NodeMark(model=spec, tools=tuple(tools), max_steps=max_steps, next=next))

    return mark


def remote_node(
    *,
    role: str = "",
    roles: tuple[str, ...] = (),
    timeout: timedelta | None = None,
    retry: Retry | None = None,
    next: str = "",
) -> Callable[[F], F]:
    """Define work that an external agent does: the run waits for its result and holds nothing meanwhile.

    The method returns `task` (what the agent is told: any JSON) and either `output_key` (a state field that takes the
    result) or `output_keys` (result field → state field). An agent of that `role` takes the task from the bus and
    answers there. An agent's failure, and its silence after `timeout`, fails the run, unless `error_key` names a state
    field that takes the reason; a success empties that field. The tasks of the roles `coding`, `testing` and `review`
    must fit the schemas of their messages.

    With `roles` in place of `role` several agents work at the same time, and people may be asked meanwhile: the method
    returns `asks`, by names of your own, each with `role` and `task` or with `prompt` and `payload`, and an
    `output_key`, a field that takes the answers by the same names. The run goes on after each answer; whoever is
    asked again by the same name is not disturbed, and who is left out hears that he is not needed any more.

    Example:
        >>> @remote_node(role="coding", timeout=timedelta(hours=2))
        ... def implement(self, state):
        ...     return {"task": {"issue": state["issue"]}, "output_key": "patch"}
    """

    def mark(function: F) -> F:
        where = f"@remote_node on {must_be_method(function, '@remote_node').__qualname__}"
        spec = spec_of(where, RemoteSpec, role=role, roles=tuple(roles), timeout=timeout)
        return attach(function, NodeMark(remote=spec, retry=retry, next=next))

    return mark


def human_in_the_loop(  # long: half of it is the docstring that users read
    *,
    prompt: str,
    timeout: timedelta | None = None,
    decisions: tuple[str, ...] = ("approve", "reject"),
    edits: tuple[str, ...] = (),
    on_reject: str | None = None,
    on_timeout: str | None = None,
    escalate_to: str = "",
    goto: Mapping[str, str] | None = None,
    approvers: tuple[str, ...] | list[str] = (),
    rule: Rule | None = None,
    quorum: int = 0,
    next: str = "",
) -> Callable[[F], F]:
    """Define a gate: the run pauses until a person decides, and holds nothing meanwhile.

    The method's body runs before the pause and returns what is shown (a dict); if it returns None, the fields named in
    `edits` are shown. The decision is written to the state field that bears the gate's name, when there is one, and
    edited values to the fields they name; a field `<gate>_notes`, when there is one, takes the notes. `reject` fails
    the run with the reason unless `on_reject` names a later node or `end`; `goto` says the same of other decisions
    (decision → node or `end`). After `timeout` the decision `on_timeout` (by default `reject`) is taken in the person's
    place; with `escalate_to` that one is asked first, for the same time again. `next` is as in `@node`.

    `approvers` are users, or groups of users, that are asked at the same time, each on their own; a name that stands
    there twice asks two people of that group. By `rule` the gate is decided when `all` of them have taken the same
    decision (the default), `any` one of them has, or so many as `quorum` says. Rejections count against it: when no
    decision can get there any more, the gate is rejected. Nobody counts twice.

    Example:
        >>> @human_in_the_loop(prompt="Send this letter?", timeout=timedelta(hours=24), edits=("letter",))
        ... def review(self, state):
        ...     return {"letter": state["letter"]}

    Raises:
        SetupError: there is no decision to take, `on_timeout` is none of them, or the approvers cannot come to one.
    """

    def mark(function: F) -> F:
        where = f"@human_in_the_loop on {must_be_method(function, '@human_in_the_loop').__qualname__}"
        if not decisions or not prompt:
            raise SetupError(f"{where}: a gate needs a prompt and at least one decision")
        expiry = on_timeout or ("reject" if "reject" in decisions else None)
        if expiry is not None and expiry not in decisions:
            raise SetupError(f"{where}: on_timeout={expiry!r} is none of its decisions {decisions}")
        if timeout is not None and expiry is None:
            raise SetupError(f"{where}: a timeout needs on_timeout=, one of {decisions}")
        if strange := sorted(set(goto or {}) - set(decisions)):
            raise SetupError(f"{where}: goto= names {strange}, which are none of its decisions {decisions}")
        if escalate_to and timeout is None:
            raise SetupError(f"{where}: escalate_to= needs a timeout= after which somebody else is asked")
        together = _together(where, approvers, rule, quorum, decisions=decisions, edits=edits)
        spec = spec_of(
            where, GateSpec, prompt=prompt, timeout=timeout, decisions=decisions, edits=edits, on_reject=on_reject,
            on_timeout=expiry, escalate_to=escalate_to, goto=dict(goto or {}), **together,
        )  # fmt: skip
        return attach(function, NodeMark(gate=spec, next=next))

    return mark


def _together(
    where: str, approvers: tuple[str, ...] | list[str], rule: Rule | None, quorum: int, *, decisions: tuple[str, ...],
    edits: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    """Return what a gate's spec says of its approvers."""
    must_be_several(f"{where}: approvers", approvers)
    if not approvers:
        if rule or quorum:
            raise SetupError(f"{where}: rule= and quorum= need approvers=, the people that are asked")
        return {}
    if not all(isinstance(name, str) and name for name in approvers):
        raise SetupError(f"{where}: approvers={approvers!r} are no names of users or groups")
    chosen, needed = groups.needed(where, rule, quorum, len(approvers))
    if groups.REJECT not in decisions:
        raise SetupError(f"{where}: approvers= needs 'reject' among its decisions {decisions}: they may not agree")
    if edits and needed > 1:
        raise SetupError(f"{where}: edits= with {needed} people: what one changes, the others have not seen")
    return {"approvers": tuple(approvers), "rule": chosen, "needed": needed}


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
        must_be_method(function, "@conditional")
        wrong = [label for label, route in routes.items() if not callable(route)]
        if wrong or not routes:
            raise SetupError(
                f"@conditional on {function.__qualname__}: routes= maps each label to a function of the state"
                + (f"; {wrong} do not" if wrong else "; it is empty")
            )
        return attach(function, NodeMark(routes=dict(routes), next=next))

    return mark
