"""What callers start during a storm, and what they do to it afterwards."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

#: How often each workflow is started.
SHARES = {"grind": 4, "age": 2, "haul": 3, "blend": 3}
#: How often somebody cancels what he has started, and forks what has completed.
CANCELLED, FORKED = 0.1, 0.2


@dataclass(frozen=True)
class Plan:
    """One run to start: when, with what, and when somebody cancels it, in seconds from the beginning, or forks it."""

    number: int
    workflow: str
    input: dict[str, Any]
    at: float
    cancel_at: float | None
    forked: bool


def plans(dice: random.Random, *, runs: int, seconds: float) -> list[Plan]:
    """Return what is started during these seconds, in the order of starting."""
    moments = sorted(dice.uniform(0, seconds * 0.7) for _ in range(runs))
    return [_plan(dice, number, at, seconds) for number, at in enumerate(moments)]


def _plan(dice: random.Random, number: int, at: float, seconds: float) -> Plan:
    rest = round(dice.uniform(0.2, 1.0), 2)
    workflow = dice.choices([*SHARES], [*SHARES.values()])[0]
    given: dict[str, dict[str, Any]] = {
        "grind": {"sort": dice.choice(["fine", "coarse"]), "seconds": rest},
        "age": {"seconds": rest},
        "haul": {"sacks": number},
        "blend": {"grains": number},
    }
    cancel_at = at + dice.uniform(0.1, seconds / 2) if dice.random() < CANCELLED else None
    # What played at the same time has no order in which to say where a fork of it begins.
    forked = workflow != "blend" and dice.random() < FORKED
    return Plan(number, workflow, given[workflow], at, cancel_at, forked)
