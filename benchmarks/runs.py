"""Runs over REST and approvals at a site, against bare LangGraph with its own saver on the same kind of database."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from benchmarks import bounds, load
from benchmarks.figures import median, quantile, tell
from benchmarks.ground import Ground
from tests.acceptance import site as sites
from tests.acceptance.site import Site

Saver = BaseCheckpointSaver[Any]


def measure(ground: Ground) -> None:
    """Tell latency and rate of runs of four nodes, and how long an approval takes to the end of its run."""
    with (
        bounds.official_saver(ground.database, str(ground.home / "bare.db")) as saver,
        sites.running(
            ground.home / "runs",
            OPENVIBE_OPERATORS="benchmarks.operator",
            OPENVIBE_LEASE_SECONDS="30",
            OPENVIBE_LOG_LEVEL="WARNING",
            OPENVIBE_WORKER_THREADS=str(ground.options.threads),
            **ground.environment(),
        ) as site,
    ):
        with closing(load.Endings(site.nats_url, subject=load.EVERY)) as endings:
            load.latencies(site, endings, times=10)
            _latencies(ground, site, endings, saver)
            _approvals(ground, site, endings, saver)
        with closing(load.Endings(site.nats_url)) as endings:
            _rate(ground, site, endings, saver)


def _latencies(ground: Ground, site: Site, endings: load.Endings, saver: Saver) -> None:
    _, bare_seconds = bounds.runs_per_second(saver, seconds=1)
    taken = load.latencies(site, endings, times=100)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        seconds = quantile(taken, share)
        tell(f"rest_linear4_latency_{name}", seconds * 1e3, "ms", where=ground.where, bound="bare LangGraph run, p50",
             bound_value=bare_seconds * 1e3, ratio=seconds / bare_seconds)  # fmt: skip


def _approvals(ground: Ground, site: Site, endings: load.Endings, saver: Saver) -> None:
    bare_resume = bounds.resume_seconds(saver, times=50)
    seconds = median(load.approvals(site, endings, times=50))
    tell("approve_to_done_p50", seconds * 1e3, "ms", where=ground.where, bound="bare LangGraph resume, p50",
         bound_value=bare_resume * 1e3, ratio=seconds / bare_resume)  # fmt: skip


def _rate(ground: Ground, site: Site, endings: load.Endings, saver: Saver) -> None:
    """Both take turns: what else the machine does meanwhile, it does to both."""
    options = ground.options
    load.runs_per_second(site, endings, runs=50, callers=8)
    turns = [
        (
            load.runs_per_second(site, endings, runs=options.runs // options.rounds, callers=8),
            bounds.runs_per_second(saver, seconds=options.seconds / options.rounds)[0],
        )
        for _ in range(options.rounds)
    ]
    ours, bare = zip(*turns, strict=True)
    tell("rest_linear4_runs", median(ours), "runs/s", where=ground.where, rounds=len(turns),
         bound="bare LangGraph, official saver, one thread", bound_value=median(bare),
         ratio=median([one / other for one, other in turns]))  # fmt: skip
