"""Several waits behind one interrupt: when they are over, and what their answers come to.

Who keeps the waits does not matter here. Each has a `kind`, a `status`, and the `rule` and the number `needed` that all
of its group share; gates have a `decision`, other kinds a `result` or an `error`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from openvibe.errors import SetupError
from openvibe.outcomes import EACH, TERMINATE, Rule

REJECT = "reject"
_ANSWERED = ("resolved", "expired")


class Seat(Protocol):
    """One wait of a group."""

    @property
    def kind(self) -> Any:
        """Whose answer it needs."""

    @property
    def status(self) -> Any:
        """Where it stands."""

    rule: Any
    needed: int
    approver: str
    name: str
    decision: str
    decisions: Any
    notes: str
    values: Any
    result: Any
    error: str


def needed(where: str, rule: Rule | None, quorum: int, among: int) -> tuple[Rule, int]:
    """Return the rule of a group of so many, and how many good answers it needs.

    Raises:
        SetupError: the rule and the quorum contradict each other, or more are needed than there are.
    """
    chosen: Rule = rule or ("quorum" if quorum else "all")
    if (chosen == "quorum") != bool(quorum):
        raise SetupError(f"{where}: rule={chosen!r} with quorum={quorum}; quorum= goes with the rule 'quorum' alone")
    if chosen not in ("all", "any", "quorum"):
        raise SetupError(f"{where}: rule={chosen!r} is none of 'all', 'any' and 'quorum'")
    if not 0 <= quorum <= among:
        raise SetupError(f"{where}: quorum={quorum} is not from 1 to {among}, which is how many are asked")
    return chosen, {"all": among, "any": 1, "quorum": quorum}[chosen]


def over(seats: Sequence[Seat]) -> bool:
    """Tell whether a group's rule is met, or cannot be met any more."""
    open_still = sum(seat.status == "pending" for seat in seats)
    if not open_still or (seats[0].rule == EACH and open_still < len(seats)):
        return True
    if seats[0].rule == EACH:
        return False
    if seats[0].kind == "approval":
        return verdict(seats) is not None
    good = _good(seats)
    # Whoever asks for all wants to hear the last one too, whatever the others said.
    return seats[0].rule != "all" and not good < seats[0].needed <= good + open_still


def failed(seats: Sequence[Seat]) -> bool:
    """Tell whether too few gave a good answer to what they were asked. People decide, and never fail."""
    if seats[0].kind in ("approval", "timer") or seats[0].rule == EACH:
        return False
    return _good(seats) < (seats[0].needed if seats[0].rule else 1)


def silent(seats: Sequence[Seat]) -> bool:
    """Tell whether a deadline has rejected what a gate, or a group of them, asked, and no person has."""
    said = [(seat.status, seat.decision) for seat in seats]
    return seats[0].kind == "approval" and ("expired", REJECT) in said and ("resolved", REJECT) not in said


def verdict(seats: Sequence[Seat]) -> str | None:
    """Return the decision that a group of gates has come to, or None while it may still come to one or another.

    A decision that enough people took is the group's. When none can get there any more, the group rejects.
    """
    votes = Counter(seat.decision for seat in seats if seat.status in _ANSWERED)
    votes.pop(REJECT, None)
    word, most = max(votes.items(), key=lambda item: item[1], default=("", 0))
    if most >= seats[0].needed:
        return word
    open_still = sum(seat.status == "pending" for seat in seats)
    return REJECT if most + open_still < seats[0].needed else None


def answer(seats: Sequence[Seat]) -> dict[str, Any]:
    """Return what goes into the graph for a group that is over."""
    if seats[0].rule == EACH:
        return {"answers": {seat.name: _single(seat) for seat in seats if seat.status in _ANSWERED}}
    if seats[0].kind != "approval":
        return {"answers": [_result(seat) for seat in seats]}
    decided = verdict(seats) or REJECT
    same = [seat for seat in seats if seat.status in _ANSWERED and seat.decision == decided]
    values: Mapping[str, Any] = next((seat.values for seat in same if seat.values), {})
    notes = "; ".join(f"{seat.approver}: {seat.notes}" for seat in same if seat.notes)
    return {"decision": decided, "notes": notes or ("" if same else _split(seats)), "values": dict(values)}


def standing(seats: Sequence[Seat]) -> dict[str, Any]:
    """Return how far a group of gates has come, for the timeline."""
    return {
        "rule": seats[0].rule,
        "needed": seats[0].needed,
        "decision": verdict(seats),
        "open": [seat.approver for seat in seats if seat.status == "pending"],
    }


def _good(seats: Sequence[Seat]) -> int:
    return sum(seat.status in _ANSWERED and not seat.error for seat in seats)


def _single(seat: Seat) -> dict[str, Any]:
    if seat.kind == "approval":
        return {"decision": seat.decision, "notes": seat.notes, "values": dict(seat.values or {})}
    return {"result": seat.result, "error": seat.error}


def _result(seat: Seat) -> dict[str, Any] | None:
    ends = {"ends": True} if seat.decision == TERMINATE else {}
    return {"result": seat.result, "error": seat.error, **ends} if seat.status in _ANSWERED else None


def _split(seats: Sequence[Seat]) -> str:
    votes = Counter(seat.decision for seat in seats if seat.status in _ANSWERED)
    told = ", ".join(f"{number} for {word!r}" for word, number in votes.items())
    return f"{told}; {seats[0].needed} had to agree"
