"""One JSON line per figure, with its goal where it has one, and at the end what missed its goal."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import goals

#: What was told and missed its goal, each in a few words.
missed: list[str] = []


def tell(figure: str, value: float, unit: str, **more: Any) -> None:
    """Print a figure; numbers are rounded to what the measurement carries."""
    measured = {"value": value, **more}
    line = {"figure": figure, "value": value, "unit": unit, **more}
    if goal := goals.of(figure):
        line |= {"goal": str(goal), "met": goal.met(measured)}
        if not line["met"]:
            missed.append(f"{figure} ({goal}, but {_round(measured[goal.of])})")
    print(
        json.dumps({key: _round(item) if isinstance(item, float) else item for key, item in line.items()}), flush=True
    )


def conclude(*, strict: bool) -> int:
    """Say on stderr which goals were missed; return the exit status, which is 1 for that only if it is `strict`."""
    told = f"Goals not met: {', '.join(missed)}" if missed else "Every goal was met"
    print(told, file=sys.stderr, flush=True)
    return 1 if strict and missed else 0


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of all values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """Return the middle value."""
    return statistics.median(values)


def _round(value: float) -> float:
    return float(f"{value:.4g}")
