"""What must become of a run of the mill, told from its input and the answers that were given, without playing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tests.faults import mill
from tests.faults.records import Row

#: Nodes at which a run waits for an answer.
ASKING = frozenset({"review", "ripe", "agreed", "cart", "left", "right"})
#: Nodes that leave no trace in `passed`: a model's, and those.
SILENT = ASKING | {"tasting"}


class Answer(NamedTuple):
    """What one of these nodes was told: a decision, or a result."""

    node: str
    word: Any


@dataclass(frozen=True)
class Fate:
    """How a run ends, through which steps, and with which of its fields.

    So many of the first steps as are `abreast` are played at the same time, and come to their ends in any order.
    """

    status: str
    nodes: list[str]
    output: dict[str, Any]
    failed_at: str = ""
    abreast: int = 0

    def begins(self, nodes: list[str]) -> bool:
        """Tell whether a run that is to end so may have come through these steps."""
        first = self.abreast
        beside = not Counter(nodes[:first]) - Counter(self.nodes[:first])
        return beside and nodes[first:] == self.nodes[first : len(nodes)]

    def after(self, steps: int) -> Fate:
        """Return the fate of a run that begins so many steps later, with what they have left behind."""
        return replace(self, nodes=self.nodes[steps:])


def fate(workflow: str, given: dict[str, Any], answers: list[Answer]) -> Fate:
    """Return the fate of a run whose questions were answered so, in this order."""
    words = [answer.word for answer in answers]
    match workflow:
        case "grind":
            return _ground(given["sort"], words)
        case "age":
            return _aged(given["seconds"], words)
        case "haul":
            return _hauled(words)
        case "blend":
            return _blended(dict(answers))
        case "quote":
            return Fate("completed", ["quote"], {"price": f"{given['seconds']} coins"})
        case _:
            return Fate("completed", ["shelve"], {"passed": ["shelve"]})


def answered(waits: list[Row]) -> list[Answer]:
    """Return how the questions of one run that are the definition's own were answered, in the order of asking."""
    asked: dict[str, list[Row]] = {}
    for wait in sorted(waits, key=lambda wait: wait["opened_at"]):
        if wait["kind"] in ("approval", "work") and wait["form"] != "effect":
            asked.setdefault(wait["interrupt_id"], []).append(wait)
    found = [Answer(seats[0]["node"], _word(seats)) for seats in asked.values()]
    return [answer for answer in found if answer.word]


def agreed(votes: Sequence[str]) -> str:
    """Return the decision that enough of the elders took, or nothing."""
    return next((word for word, times in Counter(votes).items() if times >= mill.QUORUM), "")


def _word(seats: list[Row]) -> Any:
    if seats[0]["kind"] == "work":
        return seats[0]["result"]
    return (
        agreed([seat["decision"] for seat in seats if seat["decision"]]) if seats[0]["rule"] else seats[0]["decision"]
    )


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


def _hauled(words: list[Any]) -> Fate:
    match words:
        case []:
            return Fate("waiting", [], {})
        case ["reject", *_]:
            return Fate("failed", [], {}, failed_at="agreed")
        case [_]:
            return Fate("waiting", ["agreed"], {})
    output = {"passed": ["unload"], "agreed": words[0], "carried": words[1]}
    return Fate("completed", ["agreed", "cart", "unload"], output)


def _blended(decisions: dict[str, str]) -> Fate:
    beside = [*decisions, "wheel"]
    if len(decisions) < 2:
        return Fate("waiting", beside, {}, abreast=3)
    return Fate("completed", [*beside, "mix"], decisions, abreast=3)


def _passed(nodes: list[str]) -> list[str]:
    return [node for node in nodes if node not in SILENT]
