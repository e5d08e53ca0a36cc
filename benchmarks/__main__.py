"""`make bench`: prints one JSON line per figure. On PostgreSQL and Redis where they are installed, else embedded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping

from benchmarks import fanout, figures, flight, ground, ingest, requests, runs, shown, sleepers
from benchmarks.ground import Ground

#: What is measured, in this order.
SECTIONS: Mapping[str, Callable[[Ground], None]] = {
    "runs": runs.measure,
    "shown": shown.measure,
    "ingest": ingest.measure,
    "flight": flight.measure,
    "sleepers": sleepers.measure,
    "fanout": fanout.measure,
    "requests": requests.measure,
}


def main() -> int:
    options = _options()
    with ground.prepared(options) as stand:
        for name in options.only or SECTIONS:
            SECTIONS[name](stand)
    return figures.conclude(strict=options.strict)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=[*SECTIONS], help="one section; may be given several times")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if a goal is not met")
    parser.add_argument("--embedded", action="store_true", help="SQLite and the embedded broker in any case")
    parser.add_argument("--runs", type=int, default=900, help="runs for the throughput figure")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long the bare bound is measured")
    parser.add_argument("--threads", type=int, default=16, help="threads of the worker")
    parser.add_argument("--messages", type=int, default=10_000, help="messages of a round of ingest")
    parser.add_argument("--rounds", type=int, default=3, help="how often ours and bare take turns")
    parser.add_argument("--flight", type=int, default=1_000, help="runs in flight at once")
    parser.add_argument("--sleepers", type=int, default=10_000, help="runs that sleep")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
