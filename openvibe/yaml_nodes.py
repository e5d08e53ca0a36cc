"""Makes the nodes of a YAML file: methods, each with the mark of the decorator that a Python author would use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openvibe import expressions, primitives, prompt_files, yaml_handlers, yaml_types
from openvibe.errors import RunError, SetupError
from openvibe.expressions import Expression
from openvibe.marks import MARK, NodeMark
from openvibe.specs import Retry
from openvibe.yaml_handlers import Handler
from openvibe.yaml_schema import (
    AgentNode,
    AskingPart,
    ConditionalNode,
    GateNode,
    LlmNode,
    LogicNode,
    NodePart,
    RemoteNode,
    RetryPart,
)

#: Where the prompt and the code of a file lie; None where a file may name neither, because a stranger wrote it.
Folder = Path | None


class Misplaced(Exception):
    """A mistake in a node; `path` leads to it from there."""

    def __init__(self, path: tuple[str | int, ...], problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem


@dataclass(frozen=True)
class Prompt:
    """What a node asks: a text and a template."""

    system: str
    user: str

    @classmethod
    def of(cls, node: AskingPart, folder: Folder) -> Prompt:
        """Return the prompt of a node, from wherever it stands."""
        found: dict[str, str] = {}
        for key, (system, user) in _sources(node, folder).items():
            for part, text in (("system", system), ("user", user)):
                if text and part in found:
                    raise Misplaced((key,), f"says the {part} part, which stands elsewhere in this node already")
                found |= {part: text} if text else {}
        return cls(found.get("system", ""), found.get("user", ""))


@dataclass(frozen=True)
class Surroundings:
    """What a node of a file may use. `told` are the fields that a prompt without a user part shows."""

    fields: Mapping[str, Any]
    folder: Folder
    functions: Mapping[str, Handler]
    handler: Handler | None
    told: tuple[str, ...] = ()
    complete: bool = True


def writes(node: NodePart, handler: Handler | None) -> dict[str, Any]:
    """Return the state fields that a node names as its own, with their types as far as they are known.

    Raises:
        Misplaced: a type is none.
    """
    match node:
        case LlmNode(output_keys=dict() as keys) if keys:
            return {name: _hint(name, kind) for name, kind in keys.items()}
        case LlmNode(output_keys=list() as keys) if keys:
            return dict.fromkeys(keys, Any)
        case AskingPart():
            return {node.output_key or node.id: str if getattr(node, "output_format", "") != "json" else Any}
        case LogicNode():
            own = [node.output_key] if node.output_key else list(node.output_keys)
            return dict.fromkeys([*own, *node.set, *(yaml_handlers.written(handler) if handler else [])], Any)
        case ConditionalNode():
            return dict.fromkeys([*node.set, *(yaml_handlers.written(handler) if handler else [])], Any)
        case RemoteNode():
            taken: dict[str, Any] = {node.error_key: str} if node.error_key else {}
            return dict.fromkeys(node.output_keys.values() or [node.output_key or node.id], Any) | taken
        case GateNode():
            return dict.fromkeys(node.edits, Any)
    return {}


def reads(node: NodePart, folder: Folder) -> list[str]:
    """Return the state fields that a node's templates and expressions look at."""
    match node:
        case AskingPart():
            return prompt_files.slots(Prompt.of(node, folder).user)
        case RemoteNode():
            return [name for text in prompt_files.texts(node.task) for name in prompt_files.slots(text)]
        case GateNode():
            return list(node.shows)
        case ConditionalNode():
            return sorted({name for text in [*node.routes.values(), *node.set.values()] for name in _names(text)})
        case LogicNode():
            return sorted({name for text in node.set.values() for name in _names(text)})
    return []


def method(node: NodePart, around: Surroundings) -> Handler:
    """Return a node's method, marked.

    Raises:
        Misplaced: something in the node is wrong.
        SetupError: the decorator refuses an option.
    """
    match node:
        case LlmNode():
            made, mark = _llm(node, around)
        case AgentNode():
            made, mark = _agent(node, around)
        case GateNode():
            made, mark = _gate(node, around)
        case ConditionalNode():
            made, mark = _conditional(node, around)
        case RemoteNode():
            made, mark = _remote(node, around)
        case LogicNode():
            made, mark = _logic(node, around)
        case _:
            raise SetupError(f"{node!r} is of no known type")
    made.__name__ = made.__qualname__ = node.id
    made.__doc__ = node.description or made.__doc__
    marked: Handler = mark(made)
    return marked


def mark_of(made: Handler) -> NodeMark:
    """Return the mark that `method` left."""
    mark: NodeMark = vars(made)[MARK]
    return mark


def _llm(node: LlmNode, around: Surroundings) -> tuple[Handler, Any]:
    asked = _asked(node, around)
    keys = node.output_keys
    types = (
        {name: _hint(name, kind) for name, kind in keys.items()}
        if isinstance(keys, dict)
        else {name: _field(name, around, ("output_keys", at)) for at, name in enumerate(keys)}
    )
    for name in types:
        _field(name, around, ("output_keys", name))
    if types and node.output_key:
        raise Misplaced(("output_key",), "stands beside output_keys; use one of them")
    if not types:
        _field(node.output_key or node.id, around, ("output_key",))
    where: dict[str, Any] = {"output_keys": types} if types else {"output_key": node.output_key or node.id}
    if fallback := _fallback(node, around):
        where["fallback"] = fallback
    mark = primitives.llm_node(
        model=node.model, max_tokens=node.max_tokens, temperature=node.temperature, attempts=node.attempts,
        output_format=node.output_format or ("json" if types else "text"), timeout=node.timeout, next=node.next,
    )  # fmt: skip
    return (lambda state: {**asked(state), **where}), mark


def _agent(node: AgentNode, around: Surroundings) -> tuple[Handler, Any]:
    asked, key = _asked(node, around), node.output_key or node.id
    _field(key, around, ("output_key",))
    tools = []
    for at, name in enumerate(node.tools):
        _refuse_strangers(around.folder, ("tools", at), "tools")
        try:
            tools.append(around.functions.get(name) or yaml_handlers.tool(name))
        except ValueError as error:
            raise Misplaced(("tools", at), str(error)) from error
    mark = primitives.agent_node(
        tools=tools, max_steps=node.max_steps, model=node.model, max_tokens=node.max_tokens,
        temperature=node.temperature, attempts=node.attempts, next=node.next,
    )  # fmt: skip
    return (lambda state: {**asked(state), "output_key": key}), mark


def _asked(node: AskingPart, around: Surroundings) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    prompt = Prompt.of(node, around.folder)
    where = ("user" if node.user else "prompt" if node.prompt else "prompt_file",)
    for name in prompt_files.slots(prompt.user):
        _field(name, around, where)
    if not (prompt.system or prompt.user):
        raise Misplaced((), "asks nothing; give it system and user, or a prompt_file")

    def asked(state: Mapping[str, Any]) -> dict[str, Any]:
        user = prompt_files.filled(prompt.user, state) if prompt.user else prompt_files.listing(around.told, state)
        return {"system": prompt.system, "user": user}

    return asked


def _fallback(node: LlmNode, around: Surroundings) -> Callable[[str], Mapping[str, Any]] | None:
    given = node.fallback
    if isinstance(given, str):
        if given not in around.functions:
            raise Misplaced(("fallback",), f"no handler is called {given!r}")
        return around.functions[given]
    if given is None:
        return None
    for name in given:
        _field(name, around, ("fallback", name))
    return lambda answer: dict(prompt_files.filled_all(given, {"answer": answer}))


def _logic(node: LogicNode, around: Surroundings) -> tuple[Handler, Any]:
    mark = primitives.node(next=node.next, retry=_retry(node.retry), timeout=node.timeout)
    return _code(node, around, node.set), mark


def _conditional(node: ConditionalNode, around: Surroundings) -> tuple[Handler, Any]:
    routes = {label: _expression(text, around, ("routes", label)) for label, text in node.routes.items()}
    return _code(node, around, node.set), primitives.conditional(routes=routes, next=node.next)


def _code(node: LogicNode | ConditionalNode, around: Surroundings, given: Mapping[str, str]) -> Handler:
    if around.handler and given:
        raise Misplaced(("set",), f"the node has a handler too ({around.handler.__name__}); use one of them")
    if around.handler:
        return yaml_handlers.as_method(around.handler)
    formulas = {}
    for name, text in given.items():
        _field(name, around, ("set", name))
        formulas[name] = _expression(text, around, ("set", name))
    if formulas or isinstance(node, ConditionalNode):
        return lambda state: {name: formula(state) for name, formula in formulas.items()}
    if around.complete:
        raise Misplaced((), f"has no code: write `def {node.id}(state)` in the handlers' file beside it, or `set:`")
    return _missing(node.id)


def _gate(node: GateNode, around: Surroundings) -> tuple[Handler, Any]:
    for key, names in (("shows", node.shows), ("edits", node.edits)):
        for at, name in enumerate(names):
            _field(name, around, (key, at))
    mark = primitives.human_in_the_loop(
        prompt=node.prompt, timeout=node.timeout, decisions=tuple(node.decisions), edits=tuple(node.edits),
        on_reject=node.on_reject, on_timeout=node.on_timeout, escalate_to=node.escalate_to, goto=node.goto,
        approvers=node.approvers, rule=node.rule, quorum=node.quorum, next=node.next,
    )  # fmt: skip
    if around.handler:
        return yaml_handlers.as_method(around.handler), mark
    shows = list(dict.fromkeys([*node.shows, *(node.edits if node.shows else ())]))
    return (lambda state: {name: state.get(name) for name in shows} if shows else None), mark


def _remote(node: RemoteNode, around: Surroundings) -> tuple[Handler, Any]:
    for text in prompt_files.texts(node.task):
        for name in prompt_files.slots(text):
            _field(name, around, ("task",))
    for name in node.output_keys.values() or [node.output_key or node.id]:
        _field(name, around, ("output_keys",) if node.output_keys else ("output_key",))
    where: dict[str, Any] = (
        {"output_keys": dict(node.output_keys)} if node.output_keys else {"output_key": node.output_key or node.id}
    )
    if node.error_key:
        _field(node.error_key, around, ("error_key",))
        where["error_key"] = node.error_key
    mark = primitives.remote_node(role=node.role, timeout=node.timeout, retry=_retry(node.retry), next=node.next)
    return (lambda state: {"task": prompt_files.filled_all(node.task, state), **where}), mark


def _missing(node: str) -> Handler:
    def missing(state: Mapping[str, Any]) -> dict[str, Any]:
        raise RunError(f"Node {node!r} has no code: write `def {node}(state)` beside its file, or use runtime.handler")
        return {}

    return missing


def _sources(node: AskingPart, folder: Folder) -> dict[str, tuple[str, str]]:
    found = {"system": (node.system, ""), "user": ("", node.user)}
    if node.prompt:
        system, user = prompt_files.split(node.prompt)
        # A prompt of one part is a question; a file of one part says what the model is.
        found["prompt"] = (system, user) if user else ("", system)
    if node.prompt_file:
        _refuse_strangers(folder, ("prompt_file",), "prompt_file")
        assert folder is not None
        try:
            found["prompt_file"] = prompt_files.parts(folder / node.prompt_file)
        except ValueError as error:
            raise Misplaced(("prompt_file",), str(error)) from error
    return found


def _expression(text: str, around: Surroundings, path: tuple[str | int, ...]) -> Expression:
    try:
        found = expressions.read(text)
    except ValueError as error:
        raise Misplaced(path, str(error)) from error
    for name in sorted(found.names):
        _field(name, around, path)
    return found


def _field(name: str, around: Surroundings, path: tuple[str | int, ...]) -> Any:
    if name not in around.fields:
        raise Misplaced(path, f"{name!r} is no state field; declare it under fields: {_list(around.fields)}")
    return around.fields[name]


def _hint(name: str, kind: Any) -> Any:
    try:
        return yaml_types.hint(name, kind)
    except ValueError as error:
        raise Misplaced(("output_keys", name), str(error)) from error


def _names(text: str) -> Iterable[str]:
    try:
        return expressions.read(text).names
    except ValueError:
        # Told with its place when the node is made.
        return ()


def _refuse_strangers(folder: Folder, path: tuple[str | int, ...], what: str) -> None:
    if folder is None:
        raise Misplaced(path, f"{what} cannot be used here, because this text lies beside no files")


def _retry(part: RetryPart | None) -> Retry | None:
    if part is None:
        return None
    return Retry(attempts=part.attempts, pause=part.pause, longest=part.longest, on=tuple(part.on))


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "there are none"
