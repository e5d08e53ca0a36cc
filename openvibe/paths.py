"""Which node follows which. Declaration order is execution order; conditionals and `next` make the exceptions."""

from __future__ import annotations

from collections.abc import Sequence

from openvibe.specs import NodeSpec

#: The label, and the value of `next` and `on_reject`, that ends the run.
END = "end"


def branches(nodes: Sequence[NodeSpec]) -> frozenset[str]:
    """Return the nodes that run only when a conditional before them chooses them."""
    found: set[str] = set()
    for position, node in enumerate(nodes):
        found |= {later.id for later in nodes[position + 1 :]} & set(node.routes)
    return frozenset(found)


def following(nodes: Sequence[NodeSpec]) -> dict[str, str | None]:
    """Return the node that follows each one; None is the end. A branch rejoins at the next node that is no branch."""
    chosen_only = branches(nodes)
    after: dict[str, str | None] = {}
    for position, node in enumerate(nodes):
        later = (other.id for other in nodes[position + 1 :] if other.id not in chosen_only)
        after[node.id] = target(node.next) if node.next else next(later, None)
    return after


def leads(node: NodeSpec, after: str | None) -> dict[str, str | None]:
    """Return where each of a gate's decisions leads to; a rejection that fails the run is absent."""
    gate = node.gate
    assert gate is not None
    ways = {decision: after for decision in gate.decisions if decision != "reject"}
    if gate.on_reject:
        ways["reject"] = target(gate.on_reject)
    return ways | {decision: target(name) for decision, name in gate.goto.items()}


def ways(node: NodeSpec, nodes: Sequence[NodeSpec], after: str | None) -> set[str | None]:
    """Return every node that may follow one; None is the end."""
    if node.gate:
        return set(leads(node, after).values())
    known = {*(other.id for other in nodes), END}
    return {target(label) if label in known else after for label in node.routes} or {after}


def target(name: str) -> str | None:
    """Return the node that a label or `next` names; None is the end."""
    return None if name == END else name
