"""`make bench`: prints one JSON line per figure. On PostgreSQL and Redis where they are installed, else embedded."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import bounds, load
from benchmarks.figures import median, quantile, tell
from tests import servers
from tests.acceptance import site as sites


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="openvibe-bench-")))
        database = broker = ""
        grown = not options.embedded and servers.available("postgres") and servers.available("redis")
        if grown:
            database = stack.enter_context(servers.postgres()).url
            broker = stack.enter_context(servers.redis()).url
        where = "PostgreSQL, Redis" if grown else "SQLite, filesystem broker"
        saver = stack.enter_context(bounds.official_saver(database, str(home / "bare.db")))
        bare_rate, bare_seconds = bounds.runs_per_second(saver, seconds=options.seconds)
        bare_resume = bounds.resume_seconds(saver, times=50)
        site = stack.enter_context(
            sites.running(
                home / "home",
                OPENVIBE_OPERATORS="benchmarks.operator",
                OPENVIBE_LEASE_SECONDS="30",
                OPENVIBE_LOG_LEVEL="WARNING",
                OPENVIBE_WORKER_THREADS=str(options.threads),
                **({"DATABASE_URL": servers.new_database(database), "CELERY_BROKER_URL": broker} if grown else {}),
            )
        )
        endings = load.Endings(site.nats_url)
        load.latencies(site, endings, times=10)
        _runs(site, endings, options, where, bare_rate, bare_seconds)
        _approvals(site, endings, where, bare_resume)
        asyncio.run(_sockets(site, where))
        endings.close()


def _runs(site, endings, options, where: str, bare_rate: float, bare_seconds: float) -> None:
    taken = load.latencies(site, endings, times=100)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        seconds = quantile(taken, share)
        tell(f"rest_linear4_latency_{name}", seconds * 1e3, "ms", where=where, bound="bare LangGraph run, p50",
             bound_value=bare_seconds * 1e3, ratio=seconds / bare_seconds)  # fmt: skip
    rate = load.runs_per_second(site, endings, runs=options.runs, callers=8)
    tell("rest_linear4_runs", rate, "runs/s", where=where, bound="bare LangGraph, official saver, one thread",
         bound_value=bare_rate, ratio=rate / bare_rate)  # fmt: skip


def _approvals(site, endings, where: str, bare_resume: float) -> None:
    seconds = median(load.approvals(site, endings, times=50))
    tell("approve_to_done_p50", seconds * 1e3, "ms", where=where, bound="bare LangGraph resume, p50",
         bound_value=bare_resume * 1e3, ratio=seconds / bare_resume)  # fmt: skip


async def _sockets(site, where: str) -> None:
    raw = await bounds.publish_to_subscribe(site.nats_url, subscribers=100, messages=100)
    for recorded in (False, True):
        shown = await load.to_websockets(site, sockets=100, messages=100, recorded=recorded)
        kind = "event" if recorded else "words"
        for name, seconds, bound in zip(("p50", "p99"), shown, raw, strict=True):
            tell(f"publish_to_100_websockets_{kind}_{name}", seconds * 1e3, "ms", where=where,
                 bound=f"raw nats-py to 100 subscriptions, {name}", bound_value=bound * 1e3,
                 ratio=seconds / bound)  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--embedded", action="store_true", help="SQLite and the embedded broker in any case")
    parser.add_argument("--runs", type=int, default=600, help="runs for the throughput figure")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the bare bound is measured")
    parser.add_argument("--threads", type=int, default=16, help="threads of the worker")
    return parser.parse_args()


if __name__ == "__main__":
    main()
