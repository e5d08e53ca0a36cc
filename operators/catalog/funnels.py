"""Funnels: how many of one stage reach the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any


def counts(metrics: Mapping[str, Any], stages: Sequence[str]) -> dict[str, float]:
    """Return the count of each stage; what is missing or no number counts as 0."""
    given = {stage: metrics.get(stage) for stage in stages}
    return {stage: value if isinstance(value, (int, float)) else 0 for stage, value in given.items()}


def rates(counted: Mapping[str, float]) -> list[float | None]:
    """Return, in per cent, how much of each stage reaches the next; None after a stage in which nobody is."""
    return [round(100 * after / before, 1) if before else None for before, after in pairwise(counted.values())]
