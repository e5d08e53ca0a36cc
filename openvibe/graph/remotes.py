"""The plays of a `@remote_node`: work that agents elsewhere do while the run waits and holds nothing.

One that has several roles asks several agents, and people, at the same time, and goes on after each answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import interrupt

from openvibe.errors import RunError, WrongUpdate
from openvibe.fields import Fields, kept
from openvibe.graph.nodes import Play, answer_schema
from openvibe.graph.steps import Method, Step
from openvibe.outcomes import EACH, SEATS
from openvibe.protocol import sessions
from openvibe.protocol.envelope import Malformed
from openvibe.session import Session
from openvibe.specs import GateSpec, NodeSpec, RemoteSpec

#: As wide as the column that keeps it.
LONGEST_NAME = 200
_WORK, _QUESTION = {"role", "task"}, {"prompt", "payload"}


def remote(node: NodeSpec, method: Method, fields: Fields) -> Play:
    """Return the play of a `@remote_node`."""
    spec = node.remote
    assert spec is not None
    if spec.roles:
        return _several(node, spec, method, fields)

    def play(state: dict[str, Any], runtime: Runtime[Session]) -> dict[str, Any]:
        told = Step.of(node, runtime).tried(lambda attempt: attempt.call(method, fields.view(state)))
        _check_task(node.id, told, fields)
        task = kept(f"The task of node {node.id!r}", told["task"])
        _check_fit(node.id, spec.role, task)
        answer = interrupt(
            {
                "kind": "work",
                "node": node.id,
                **_work(spec, spec.role, task),
            }
        )
        error, taken = answer.get("error") or "", told.get("error_key")
        if error and not taken:
            raise RunError(f"The {spec.role} agent of node {node.id!r} failed: {error}")
        update = {} if error else _results(node.id, told, answer.get("result"))
        return fields.check_update(node.id, {**update, taken: error} if taken else update)

    return play


def _several(node: NodeSpec, spec: RemoteSpec, method: Method, fields: Fields) -> Play:
    yes_or_no = GateSpec(prompt=node.id)
    gate = {"kind": "approval", "decisions": list(yes_or_no.decisions), "schema": answer_schema(yes_or_no, fields)}

    def play(state: dict[str, Any], runtime: Runtime[Session]) -> dict[str, Any]:
        told = Step.of(node, runtime).tried(lambda attempt: attempt.call(method, fields.view(state)))
        asks = _asks(node.id, told, fields)
        seats = []
        for name, ask in asks.items():
            named = {"name": name, "node": str(ask.get("node") or node.id)[:80]}
            if "role" not in ask:
                question = {
                    "prompt": str(ask["prompt"]),
                    "payload": kept(f"What node {node.id!r} shows", ask["payload"]),
                }
                seats.append({**named, **gate, **question})
                continue
            if ask["role"] not in spec.roles:
                raise WrongUpdate(f"Node {node.id!r} has no role {ask['role']!r}; it has: {', '.join(spec.roles)}")
            task = kept(f"The task of node {node.id!r}", ask["task"])
            _check_fit(node.id, ask["role"], task)
            seats.append({**named, **_work(spec, ask["role"], task)})
        answers = interrupt({"kind": "work", "node": node.id, "rule": EACH, "needed": 1, SEATS: seats})["answers"]
        return fields.check_update(node.id, {told["output_key"]: answers})

    return play


def _asks(node: str, told: Any, fields: Fields) -> Mapping[str, Mapping[str, Any]]:
    known = isinstance(told, Mapping) and {*told} == {"asks", "output_key"} and isinstance(told["asks"], Mapping)
    if not known or told["output_key"] not in fields.types or not told["asks"]:
        raise WrongUpdate(
            f"Node {node!r} must return `asks`, at least one, and an `output_key`, a field for the answers"
        )
    for name, ask in told["asks"].items():
        fits = isinstance(ask, Mapping) and {*ask} - {"node"} in (_WORK, _QUESTION)
        if not fits or not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
            raise WrongUpdate(f"Node {node!r} asks {name!r}: `role` and `task` are needed, or `prompt` and `payload`")
    asks: Mapping[str, Mapping[str, Any]] = told["asks"]
    return asks


def _work(spec: RemoteSpec, role: str, task: Any) -> dict[str, Any]:
    return {
        "prompt": f"Work for a {role} agent",
        "payload": {"role": role, "task": task},
        "timeout_seconds": spec.timeout.total_seconds() if spec.timeout else None,
    }


def _check_task(node: str, told: Any, fields: Fields) -> None:
    keys = {"task", "output_key", "output_keys", "error_key"}
    known = isinstance(told, Mapping) and "task" in told and not {*told} - keys
    wanted = told.get("output_keys") or {} if known else {}
    if not known or not isinstance(wanted, Mapping) or bool(told.get("output_key")) == bool(wanted):
        raise WrongUpdate(f"Node {node!r} must return `task` and one of `output_key` and `output_keys`")
    targets = [told["output_key"]] if told.get("output_key") else [*wanted.values()]
    targets += [told["error_key"]] if told.get("error_key") else []
    if unknown := [name for name in targets if name not in fields.types]:
        raise WrongUpdate(f"Node {node!r} wants its result in {unknown}, which are no state fields of its operator")


def _check_fit(node: str, role: str, task: Any) -> None:
    try:
        sessions.check(f"work.{role}", task if isinstance(task, dict) else {})
    except Malformed as error:
        raise WrongUpdate(f"The task of node {node!r} does not fit the schema of work.{role}: {error}") from error


def _results(node: str, told: Mapping[str, Any], result: Any) -> dict[str, Any]:
    if told.get("output_key"):
        return {told["output_key"]: result}
    if not isinstance(result, Mapping):
        raise WrongUpdate(f"Node {node!r} wants the fields {[*told['output_keys']]}; the agent's result is no object")
    return {field: result[name] for name, field in told["output_keys"].items() if name in result}
