"""One JSON line per figure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any


def tell(figure: str, value: float, unit: str, **more: Any) -> None:
    """Print a figure; numbers are rounded to what the measurement carries."""
    line = {"figure": figure, "value": _round(value), "unit": unit}
    line |= {key: _round(item) if isinstance(item, float) else item for key, item in more.items()}
    print(json.dumps(line), flush=True)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of all values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """Return the middle value."""
    return statistics.median(values)


def _round(value: float) -> float:
    return float(f"{value:.4g}")
