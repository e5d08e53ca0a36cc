"""Ten thousand runs sleep: how late they are woken, and what the clock and a step cost in queries and in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from benchmarks import load
from benchmarks.figures import quantile, tell
from benchmarks.ground import Ground
from tests.acceptance import site as sites
from tests.acceptance.site import ROOT, Site, until

#: How much of the rate at which the site plays runs is asked of it while it wakes sleepers.
SHARE = 0.5
#: Over how many seconds the due times are spread.
SPREAD = 30.0


def measure(ground: Ground) -> None:
    """Tell how late timers fire among many sleepers, and what looking costs while nothing is due."""
    with sites.running(
        ground.home / "sleepers",
        OPENVIBE_OPERATORS="benchmarks.operator",
        OPENVIBE_LEASE_SECONDS="30",
        OPENVIBE_LOG_LEVEL="WARNING",
        OPENVIBE_WORKER_THREADS=str(ground.options.threads),
        **ground.environment(),
    ) as site:
        endings = load.Endings(site.nats_url)
        load.latencies(site, endings, times=10)
        rate = load.runs_per_second(site, endings, runs=ground.options.runs, callers=8)
        run = f"/operators/bench/runs/{load.Caller(site).activate('nap')}"
        site.wait_for(run, "waiting")
        sleeping = ground.options.sleepers
        _bed(site, "fill", run.rpartition("/")[2], sleeping)
        _tell_cost(ground, _bed(site, "cost"), sleeping)
        due = int(min(sleeping, rate * SHARE * SPREAD))
        _bed(site, "wake", due, SPREAD)
        _tell_lateness(ground, _woken(site, due), sleeping, due)
        endings.close()


def _woken(site: Site, due: int) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = _bed(site, "look")
        return found if len(found["late"]) >= due and found["ended"] >= due else None

    time.sleep(SPREAD)
    return until(look, f"all of the {due} that were due have got up", seconds=300, pause=1.0)


def _tell_cost(ground: Ground, cost: dict[str, Any], sleeping: int) -> None:
    tell("clock_idle_cpu", cost["cpu"], "CPU s/min", where=ground.where, sleeping=sleeping,
         bound="a minute", bound_value=60.0, ratio=cost["cpu"] / 60)  # fmt: skip
    tell("clock_idle_queries", cost["queries"], "queries/look", where=ground.where, sleeping=sleeping,
         milliseconds=cost["wall"])  # fmt: skip
    tell("step_statements", cost["statements"], "statements/step", where=ground.where, bound="what a step may send",
         bound_value=4.0, ratio=cost["statements"] / 4)  # fmt: skip
    tell("step_transactions", cost["transactions"], "transactions/step", where=ground.where, bound="one",
         bound_value=1.0, ratio=cost["transactions"])  # fmt: skip


def _tell_lateness(ground: Ground, woken: dict[str, Any], sleeping: int, due: int) -> None:
    """Tell when timers fired, and when a worker had their runs in hand."""
    for figure, late in (("timer_late", woken["late"]), ("sleeper_plays_late", woken["on"])):
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            seconds = quantile(late, share)
            tell(f"{figure}_{name}", seconds, "s", where=ground.where, sleeping=sleeping, due=due,
                 over_seconds=SPREAD, bound="a second", bound_value=1.0, ratio=seconds)  # fmt: skip


def _bed(site: Site, *command: object) -> dict[str, Any]:
    """Call `benchmarks.bed` in the site's surroundings."""
    environment = {**os.environ, **site.environment, "NATS_URL": site.nats_url}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bed", *map(str, command)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
