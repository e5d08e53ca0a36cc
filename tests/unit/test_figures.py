"""What `make bench` says of its figures: their goals, whether they are met, and at the end which are not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import figures, goals

SOURCES = Path(figures.__file__).parent.glob("*.py")


@pytest.fixture(autouse=True)
def _none_missed_yet() -> Iterator[None]:
    figures.missed.clear()
    yield
    figures.missed.clear()


def told(capsys: pytest.CaptureFixture[str], figure: str, value: float, **more: float) -> tuple[str, bool]:
    figures.tell(figure, value, "runs/s", **more)
    line = json.loads(capsys.readouterr().out)
    return line["goal"], line["met"]


@pytest.mark.parametrize(
    ("figure", "value", "ratio", "goal", "met"),
    [
        ("rest_linear4_runs", 100.0, 0.6, "ratio >= 0.6", True),
        ("rest_linear4_runs", 100.0, 0.59999, "ratio >= 0.6", False),
        ("approve_to_done_p50", 9.0, 5.1, "ratio <= 5", False),
        ("ingest_runs", 9000.0, 0.49, "ratio >= 0.5", False),
        ("fanout_daphne_500_words_rate", 9000.0, 1.0, "ratio >= 1", True),
        ("fanout_uvicorn_100_events_p50", 9.0, 1.51, "ratio <= 1.5", False),
        ("timer_late_p99", 1.0, 1.0, "value < 1", False),
        ("step_statements", 4.0, 1.0, "value <= 4", True),
    ],
)
def test_a_figure_with_a_goal_says_whether_it_is_met(
    capsys: pytest.CaptureFixture[str], figure: str, value: float, ratio: float, goal: str, met: bool
) -> None:
    assert told(capsys, figure, value, ratio=ratio) == (goal, met)


def test_a_figure_without_a_goal_says_nothing_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    figures.tell("fanout_daphne_100_words_p99", 3.0, "ms", ratio=9.0)
    assert "goal" not in json.loads(capsys.readouterr().out)


def test_at_the_end_those_are_named_that_were_not_met(capsys: pytest.CaptureFixture[str]) -> None:
    figures.tell("rest_linear4_runs", 100.0, "runs/s", ratio=0.7)
    assert figures.conclude(strict=True) == 0
    assert capsys.readouterr().err == "Every goal was met\n"
    figures.tell("flight_seconds", 12.0, "s", ratio=1.51234)
    figures.tell("step_transactions", 2.0, "transactions/step", ratio=2.0)
    assert figures.conclude(strict=False) == 0
    assert figures.conclude(strict=True) == 1
    *_, last = capsys.readouterr().err.splitlines()
    missed = "flight_seconds (ratio <= 1.3, but 1.512), step_transactions (value <= 1, but 2.0)"
    assert last == f"Goals not met: {missed}"


def test_every_goal_is_of_a_figure_that_is_measured() -> None:
    text = "".join(path.read_text("utf-8") for path in SOURCES if path.name != "goals.py")
    names = {re.sub(r"_(p50|p99|rate)$", "", re.split(r"_?\*", name)[0]) for name in goals.GOALS}
    assert [name for name in names if name not in text] == []
