"""What a node does when its turn comes: the functions that the compiler puts into a LangGraph graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt
from pydantic import BaseModel, Field, create_model

from openvibe.errors import GateRejected, RunError
from openvibe.fields import Fields, kept
from openvibe.graph.steps import Attempt, Method, Step
from openvibe.groups import REJECT
from openvibe.llm import asking
from openvibe.marks import Route
from openvibe.outcomes import SEATS
from openvibe.session import Session
from openvibe.specs import GateSpec, NodeSpec

#: A node's function inside LangGraph.
Play = Callable[..., Any]
#: Returns the `goto` of a LangGraph command for a node's id, or for None, which is the end.
Way = Callable[[str | None], str]


def logic(node: NodeSpec, method: Method, fields: Fields) -> Play:
    """Return the play of a `@node`."""

    def play(state: dict[str, Any], runtime: Runtime[Session]) -> dict[str, Any]:
        step = Step.of(node, runtime)
        update = step.tried(lambda attempt: attempt.call(method, fields.view(state)))
        return fields.check_update(node.id, step.rested(update))

    return play


def llm(node: NodeSpec, method: Method, fields: Fields) -> Play:
    """Return the play of an `@llm_node`."""
    spec = node.model
    assert spec is not None

    def play(state: dict[str, Any], runtime: Runtime[Session]) -> dict[str, Any]:
        step = Step.of(node, runtime)

        def ask(attempt: Attempt) -> dict[str, Any]:
            return asking.ask(
                asking.Question.read(node.id, attempt.call(method, fields.view(state))),
                node=node.id,
                spec=spec,
                model=step.model,
                types=fields.types,
                provider=step.session.provider_for(step.id),
                listener=attempt.listener,
                tried=step.session.tries(step.id).model,
                patience=step.session.patience,
            )

        return fields.check_update(node.id, step.tried(ask))

    return play


class _Looked(dict[str, Any]):
    """A state that remembers which of its fields somebody looked at."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.at: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        self.at[name] = super().get(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.at[name] = super().get(name)
        return super().get(name, default)


def conditional(
    node: NodeSpec, method: Method, fields: Fields, *, routes: Mapping[str, Route], targets: Mapping[str, str | None],
    way: Way,
) -> Play:  # fmt: skip
    """Return the play of a `@conditional`; `targets` says which node each label leads to."""

    def play(state: dict[str, Any], runtime: Runtime[Session]) -> Command[Any]:
        step, view = Step.of(node, runtime), fields.view(state)
        update = fields.check_update(node.id, step.rested(step.call(method, view)))
        seen = _Looked({**view, **update})
        label = next((label for label, fits in routes.items() if fits(seen)), None)
        if label is None:
            looked = ", ".join(f"{name}={value!r:.80}" for name, value in seen.at.items()) or "nothing"
            raise RunError(f"No route of conditional {node.id!r} fits; tried {', '.join(routes)} and saw {looked}")
        if node.id in fields.types:
            update |= fields.check_update(node.id, {node.id: label})
        return Command(update=update, goto=way(targets[label]))

    return play


def gate(node: NodeSpec, method: Method, fields: Fields, *, leads: Mapping[str, str | None], way: Way) -> Play:
    """Return the play of a `@human_in_the_loop`; `leads` says where each decision that may go on leads to."""
    spec = node.gate
    assert spec is not None
    schema = answer_schema(spec, fields)
    asked = [{"approver": name} for name in spec.approvers]
    seats = {"rule": spec.rule, "needed": spec.needed, SEATS: asked} if asked else {}

    def play(state: dict[str, Any], runtime: Runtime[Session]) -> Command[Any]:
        # The body runs again when the answer arrives; the answer decides, whatever the body returns then.
        view = fields.view(state)
        shown = Step.of(node, runtime).call(method, view)
        payload = shown if shown is not None else {name: view.get(name) for name in spec.edits}
        # A plain dict, because it is stored: checkpoints hold data, never types of ours.
        answer = interrupt(
            {
                "kind": "approval",
                "node": node.id,
                "prompt": spec.prompt,
                "payload": kept(f"What node {node.id!r} shows", payload),
                "decisions": list(spec.decisions),
                "schema": schema,
                "edits": list(spec.edits),
                "timeout_seconds": spec.timeout.total_seconds() if spec.timeout else None,
                "on_timeout": spec.on_timeout,
                "escalate_to": spec.escalate_to,
                **seats,
            }
        )
        return _decided(node, fields, answer, leads, way)

    return play


def _decided(
    node: NodeSpec, fields: Fields, answer: Mapping[str, Any], leads: Mapping[str, str | None], way: Way
) -> Command[Any]:
    decision, notes = answer["decision"], answer.get("notes") or ""
    known = node.gate.decisions if node.gate else ()
    if decision not in (*known, REJECT):
        # Its code has changed since it was asked; nobody has rejected anything.
        raise RunError(
            f"Gate {node.id!r} was decided by {decision!r}, and now takes {', '.join(map(repr, known))}; bring that "
            "decision back and let the run try again, or start a new one"
        )
    if decision not in leads:
        raise GateRejected(f"Rejected at {node.id}" + (f": {notes}" if notes else ""))
    update: dict[str, Any] = dict(answer.get("values") or {})
    told = {node.id: decision, f"{node.id}_notes": notes}
    update |= {name: value for name, value in told.items() if name in fields.types}
    return Command(update=fields.check_update(node.id, update), goto=way(leads[decision]))


def answer_schema(gate: GateSpec, fields: Fields) -> dict[str, Any]:
    """Return the JSON Schema of a gate's answer."""
    parts: dict[str, Any] = {
        "decision": (Literal[gate.decisions], ...),
        "notes": (str, Field(default="", max_length=10_000)),
    }
    if gate.edits:
        edits: dict[str, Any] = {name: (fields.types[name], None) for name in gate.edits}
        values = create_model("Values", __config__={"extra": "forbid"}, **edits)
        parts["values"] = (values, None)
    model: type[BaseModel] = create_model("Answer", __config__={"extra": "forbid"}, **parts)
    return model.model_json_schema()
