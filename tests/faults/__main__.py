"""`make faults`: storms of many seeds; prints one JSON line each and stops at the first broken promise."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from tests import servers
from tests.faults import scenario

#: How long a storm blows, in seconds: at least, and for each run.
SECONDS, SECONDS_EACH = 9.0, 0.15


def main() -> int:
    options = _options()
    # Callers meet a bus that is down all the time; the report counts how often.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    kinds = ("embedded", "grown") if options.kind == "both" else (options.kind,)
    if "grown" in kinds and not (servers.available("postgres") and servers.available("redis")):
        print("PostgreSQL and Redis are not installed: `make services` installs them, or say --kind embedded.")
        return 2
    for seed in range(options.first, options.first + options.seeds):
        for kind in kinds:
            home = Path(tempfile.mkdtemp(prefix=f"openvibe-faults-{kind}-{seed}-"))
            seconds = options.seconds or max(SECONDS, SECONDS_EACH * options.runs)
            print(f"seed {seed}, {kind}, in {home}", file=sys.stderr, flush=True)
            report = scenario.play(seed, kind, home, runs=options.runs, seconds=seconds)
            print(json.dumps(report.line()), flush=True)
            if report.violations:
                print(f"Seed {seed} ({kind}) broke {len(report.violations)} promises; all of it lies in {home}.")
                return 1
            shutil.rmtree(home, ignore_errors=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many storms on each kind of site")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--runs", type=int, default=100, help="runs in each storm")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long each storm blows")
    parser.add_argument("--kind", choices=["embedded", "grown", "both"], default="both", help="the kind of site")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
