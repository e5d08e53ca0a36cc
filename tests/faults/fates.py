"""What must become of a run of the mill, told from its input and the decisions that were taken, without playing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.faults import mill
from tests.faults.records import Row

#: Nodes that leave no trace in `passed`: a model's, and gates.
SILENT = frozenset({"tasting", "review", "ripe"})


@dataclass(frozen=True)
class Fate:
    """How a run ends, through which steps, and with which of its fields."""

    status: str
    nodes: list[str]
    output: dict[str, Any]
    failed_at: str = ""


def fate(workflow: str, given: dict[str, Any], decisions: list[str]) -> Fate:
    """Return the fate of a run whose gates were decided so, in this order."""
    match workflow:
        case "grind":
            return _ground(given["sort"], decisions)
        case "age":
            return _aged(given["seconds"], decisions)
        case "quote":
            return Fate("completed", ["quote"], {"price": f"{given['seconds']} coins"})
        case _:
            return Fate("completed", ["shelve"], {"passed": ["shelve"]})


def decided(waits: list[Row]) -> list[str]:
    """Return what was decided at the gates of one run that are the definition's own, in the order of opening."""
    gates = [wait for wait in waits if wait["kind"] == "approval" and wait["form"] != "effect" and wait["decision"]]
    return [wait["decision"] for wait in sorted(gates, key=lambda wait: wait["opened_at"])]


def _ground(sort: str, decisions: list[str]) -> Fate:
    nodes: list[str] = []
    for rounds in range(1, mill.MOST_ROUNDS + 1):
        nodes += ["weigh", "rest", "tasting", "sift", sort]
        if len(decisions) < rounds:
            return Fate("waiting", nodes, {})
        decision = decisions[rounds - 1]
        if decision == "reject":
            return Fate("failed", nodes, {}, failed_at="review")
        nodes += ["review", "verdict"]
        if decision == "again" and rounds < mill.MOST_ROUNDS:
            nodes += ["regrind"]
            continue
        nodes += ["pack"]
        return Fate("completed", nodes, {"passed": _passed(nodes), "rounds": rounds, "review": decision})
    raise AssertionError("the last round ends every run")


def _aged(seconds: float, decisions: list[str]) -> Fate:
    if not decisions:
        return Fate("waiting", ["ask"], {})
    nodes = ["ask", "ripe", "sell"]
    return Fate("completed", nodes, {"passed": _passed(nodes), "ripe": decisions[0], "price": f"{seconds} coins"})


def _passed(nodes: list[str]) -> list[str]:
    return [node for node in nodes if node not in SILENT]
