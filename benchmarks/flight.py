"""Many runs in flight at once, each of which waits for a model most of the time, in two worker processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import load, model
from benchmarks.figures import tell
from benchmarks.ground import Ground
from tests.acceptance import site as sites
from tests.acceptance.site import Site

PROCESSES = 2
#: How many models' answers a run of the workflow `talk` waits for, one after the other.
CALLS = 4


def measure(ground: Ground) -> None:
    """Tell how long many runs take whose model calls take two seconds each, and the memory of their workers.

    All of them lie in the queue before the workers are let go, so that all are in flight at once: taken in while others
    are being played, the first ones end before the last ones begin. How long that takes is told, too.
    """
    runs = ground.options.flight
    with (
        model.serving() as address,
        sites.running(
            ground.home / "flight",
            OPENVIBE_OPERATORS="benchmarks.operator",
            OPENVIBE_LEASE_SECONDS="30",
            OPENVIBE_LOG_LEVEL="WARNING",
            OPENVIBE_LLM="openai",
            OPENAI_API_KEY="sk-bench",
            OPENAI_BASE_URL=address,
            OPENVIBE_WORKER_PROCESSES=str(PROCESSES),
            OPENVIBE_WORKER_THREADS=str(-(-runs // PROCESSES)),
            **ground.environment(),
        ) as site,
    ):
        endings = load.Endings(site.nats_url)
        load.latencies(site, endings, times=10)
        rate = load.runs_per_second(site, endings, runs=ground.options.runs, callers=8)
        before = _memory(site)
        with _held(site):
            started = load.start(site, runs=runs, callers=8, workflow="talk")
        begin = time.perf_counter()
        seconds = load.last_end(endings, started) - begin
        after = _memory(site)
        taken_in = runs / load.runs_per_second(site, endings, runs=runs, callers=8, workflow="talk")
        endings.close()
    bound = max(CALLS * model.THOUGHT, runs / rate)
    told = f"the larger of {CALLS * model.THOUGHT:g} s and the time of so many runs that wait for nothing"
    for figure, value in (("flight_seconds", seconds), ("flight_seconds_from_the_first_request", taken_in)):
        tell(figure, value, "s", where=ground.where, runs=runs, processes=PROCESSES, bound=told, bound_value=bound,
             ratio=value / bound)  # fmt: skip
    tell("flight_memory_of_a_worker", after / 2**20, "MiB", where=ground.where, runs=runs,
         bound="the same worker before", bound_value=before / 2**20, ratio=after / before)  # fmt: skip


@contextmanager
def _held(site: Site) -> Iterator[None]:
    """Hold the workers inside the block: what is started there waits in the queue."""
    names = [f"worker-{number}" for number in range(1, PROCESSES + 1)]
    for name in names:
        site.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        for name in names:
            site.kill(name, signal.SIGCONT)


def _memory(site: Site) -> float:
    """Return the most memory that a worker has held, in bytes, on average."""
    peaks = [_peak(site.child(f"worker-{number}")) for number in range(1, PROCESSES + 1)]
    return sum(peaks) / len(peaks)


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
