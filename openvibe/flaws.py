"""Finds what is wrong with a workflow before it runs; every message names the place and the remedy."""

from __future__ import annotations

import dis
import inspect
import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from openvibe import paths
from openvibe.errors import SetupError
from openvibe.fields import Fields
from openvibe.specs import NodeSpec, WorkflowSpec

_MUST_RETURN = {
    "llm": "system, user and output_key",
    "agent": "system, user and output_key",
    "remote": "task and output_key",
}


def check(
    where: str, spec: WorkflowSpec, fields: Fields, methods: Mapping[str, Callable[..., Any]], *, waits: Collection[str]
) -> None:
    """Refuse a workflow that cannot work. `waits` are its agents that call tools elsewhere.

    Raises:
        SetupError: a name leads nowhere, a node can never run or never return, or nothing ends the run.
    """
    known = [node.id for node in spec.nodes]
    for position, node in enumerate(spec.nodes):
        at = f"{where}: node {node.id!r}"
        if node.next not in ("", paths.END, *known):
            raise SetupError(
                f"{at} has next={node.next!r}, which is no node of the workflow; use 'end' or one of {known}"
            )
        if node.gate:
            _check_gate(where, node, fields, known, later=known[position + 1 :])
        if node.kind in _MUST_RETURN and not _returns(methods[node.id]):
            raise SetupError(f"{at} returns nothing; it must return {_MUST_RETURN[node.kind]}")
    _check_ways(where, spec.nodes)
    _check_start(where, spec)
    _check_checkpointed(where, spec, waits)


def check_name(where: str, name: str, form: str) -> None:
    """Refuse a node's name that cannot stand in a subject or a link."""
    if not re.fullmatch(form, name) or name == paths.END:
        raise SetupError(f"{where}: node {name!r} has no usable name; use lower-case letters, digits and _, not 'end'")


def check_durable(where: str, durable: Sequence[Any], workflows: Sequence[Any]) -> None:
    """Refuse a class that is durable and no workflow."""
    if lonely := [item.__name__ for item in durable if item not in workflows]:
        raise SetupError(f"{where}.{lonely[0]} has @durable and is no workflow; decorate it with @workflow(id=…) too")


def check_doors(where: str, workflows: Sequence[WorkflowSpec]) -> None:
    """Refuse two workflows behind one trigger id or one capability of an operator."""
    for word, doors in (
        ("trigger id", [(spec.id, name) for spec in workflows for name in [spec.trigger.id]]),
        ("capability", [(spec.id, name) for spec in workflows for name in spec.capabilities]),
    ):
        taken: dict[str, str] = {}
        for workflow, name in doors:
            if name in taken:
                raise SetupError(
                    f"{where}: {word} {name!r} belongs to workflow {taken[name]!r} already; give {workflow!r} another"
                )
            taken[name] = workflow


def _check_gate(where: str, node: NodeSpec, fields: Fields, known: list[str], *, later: list[str]) -> None:
    gate = node.gate
    assert gate is not None
    unknown = [field for field in gate.edits if field not in fields.types]
    if unknown:
        raise SetupError(f"{where}: gate {node.id!r} lets people edit {unknown}, which are no state fields")
    if gate.on_reject not in (None, paths.END, *later):
        raise SetupError(
            f"{where}: gate {node.id!r} has on_reject={gate.on_reject!r}; use 'end' or a later node: {later}"
        )
    if strange := sorted(set(gate.goto.values()) - {paths.END, *known}):
        raise SetupError(f"{where}: gate {node.id!r} has goto= to {strange}; use 'end' or one of {known}")


def _returns(method: Callable[..., Any]) -> bool:
    """Tell whether a function returns anything but None anywhere. What cannot be looked into gets the benefit."""
    code = getattr(inspect.unwrap(method), "__code__", None)
    if code is None or code.co_flags & inspect.CO_GENERATOR:
        return True
    steps = [
        step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "NOP", "RESUME", "EXTENDED_ARG")
    ]
    for before, step in itertools.pairwise(steps):
        if step.opname == "RETURN_VALUE" and not (before.opname == "LOAD_CONST" and before.argval is None):
            return True
        if step.opname == "RETURN_CONST" and step.argval is not None:
            return True
    return False


def _check_ways(where: str, nodes: Sequence[NodeSpec]) -> None:
    after = paths.following(nodes)
    ways = {node.id: paths.ways(node, nodes, after[node.id]) for node in nodes}
    reached = _closure({nodes[0].id}, ways)
    if lost := [node.id for node in nodes if node.id not in reached]:
        raise SetupError(
            f"{where}: nothing leads to {', '.join(map(repr, lost))}; name it in a route or a next=, or remove it"
        )
    for node in nodes:
        # A gate whose rejection fails the run ends it too.
        if not any(None in ways[name] or _may_fail(nodes, name) for name in _closure({node.id}, ways)):
            raise SetupError(
                f"{where}: nothing leads from {node.id!r} to the end; it would loop for ever; "
                "let a conditional or next='end' lead out"
            )


def _may_fail(nodes: Sequence[NodeSpec], name: str) -> bool:
    gate = next(node.gate for node in nodes if node.id == name)
    return gate is not None and "reject" in gate.decisions and gate.on_reject is None


def _closure(start: set[str], ways: Mapping[str, set[str | None]]) -> set[str]:
    reached, frontier = set(start), list(start)
    while frontier:
        fresh = {name for name in ways[frontier.pop()] if name is not None} - reached
        reached |= fresh
        frontier += fresh
    return reached


def _check_checkpointed(where: str, spec: WorkflowSpec, waits: Collection[str]) -> None:
    waiting = [node.id for node in spec.nodes if node.kind in ("gate", "remote") or node.id in waits]
    if waiting and not spec.checkpointed:
        raise SetupError(f"{where}: checkpointed=False keeps nothing while {waiting[0]!r} waits; leave it out")


def _check_start(where: str, spec: WorkflowSpec) -> None:
    required = spec.input_schema.get("required")
    if spec.trigger.kind == "cron" and required:
        raise SetupError(
            f"{where}: a schedule gives no input, but {', '.join(map(repr, required))} is required; "
            "give it a default, or leave it out of inputs="
        )
