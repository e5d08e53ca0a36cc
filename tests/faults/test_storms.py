"""Nothing is lost and nothing happens twice, whatever dies: a few storms. `make faults` lets many blow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults import scenario

pytestmark = pytest.mark.timeout(240)

RUNS, SECONDS = 12, 8.0
SEEDS = (1, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_run_ends_as_defined_on_sqlite_and_the_embedded_broker(seed: int, tmp_path: Path) -> None:
    _weather("embedded", seed, tmp_path / "home")


@pytest.mark.postgres
@pytest.mark.redis
@pytest.mark.parametrize("seed", SEEDS)
def test_every_run_ends_as_defined_on_postgresql_and_redis(seed: int, tmp_path: Path) -> None:
    _weather("grown", seed, tmp_path / "home")


def _weather(kind: scenario.Kind, seed: int, home: Path) -> None:
    report = scenario.play(seed, kind, home, runs=RUNS, seconds=SECONDS)
    print(json.dumps(report.line()))
    assert not report.violations, "\n".join([*report.violations, *report.journal, f"All of it lies in {home}"])
