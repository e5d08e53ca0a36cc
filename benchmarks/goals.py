"""What a figure should come to. A machine that does other things beside may miss a goal, so nothing fails of itself."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

Sign = Literal[">=", "<=", "<"]
_COMPARED: Mapping[Sign, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


@dataclass(frozen=True)
class Goal:
    """A bound of a figure's value, or of its ratio to what is measured beside it."""

    of: Literal["ratio", "value"]
    sign: Sign
    bound: float

    def __str__(self) -> str:
        return f"{self.of} {self.sign} {self.bound:g}"

    def met(self, line: Mapping[str, Any]) -> bool:
        """Tell whether a figure's line keeps to it."""
        return _COMPARED[self.sign](line[self.of], self.bound)


#: Goals by the names of their figures.
GOALS: Mapping[str, Goal] = {
    "rest_linear4_runs": Goal("ratio", ">=", 0.6),
    "approve_to_done_p50": Goal("ratio", "<=", 5.0),
    "flight_seconds": Goal("ratio", "<=", 1.3),
    "ingest_*": Goal("ratio", ">=", 0.5),
    "request_reply_rate": Goal("ratio", ">=", 0.5),
    "fanout_*_rate": Goal("ratio", ">=", 1.0),
    "fanout_*_p50": Goal("ratio", "<=", 1.5),
    "timer_late_p99": Goal("value", "<", 1.0),
    "sleeper_plays_late_p99": Goal("value", "<", 1.0),
    "step_statements": Goal("value", "<=", 4.0),
    "step_transactions": Goal("value", "<=", 1.0),
}


def of(figure: str) -> Goal | None:
    """Return the goal of a figure, if it has one."""
    return next((goal for name, goal in GOALS.items() if fnmatchcase(figure, name)), None)
