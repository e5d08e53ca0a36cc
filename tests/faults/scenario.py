"""One storm over one site: set up, blow, wait for rest, judge."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from tests import servers
from tests.acceptance import site as sites
from tests.acceptance.site import Site
from tests.faults import mill, records, verdict
from tests.faults.callers import Callers
from tests.faults.plans import plans
from tests.faults.records import Records
from tests.faults.storm import Storm, Target

Kind = Literal["embedded", "grown"]

LEASE_SECONDS = 2
#: How long everything may take to come to rest after a storm, in seconds: for few runs, and for each more.
REST_SECONDS, REST_SECONDS_EACH = 60.0, 0.5
SHORT_REST_SECONDS = 30.0
#: How many pages are compared with the database.
PAGES = 5


@dataclass
class Report:
    """What happened, as one JSON line tells it."""

    seed: int
    kind: Kind
    runs: int
    home: str
    seconds: dict[str, float] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    blows: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)

    def line(self) -> dict[str, Any]:
        """Return what is worth a line; the journal only where something was broken."""
        told = asdict(self)
        return told if self.violations else {**told, "journal": f"{len(self.journal)} blows"}


def play(seed: int, kind: Kind, home: Path, *, runs: int, seconds: float) -> Report:
    """Play one seed in an empty folder and return what came of it."""
    report = Report(seed, kind, runs, str(home))
    dice = random.Random(f"{seed}/{kind}")
    began = time.monotonic()
    with _target(kind, home, seed) as target:
        report.seconds["start"] = _since(began)
        planned = plans(dice, runs=runs, seconds=seconds)
        storm = Storm(target, dice)
        target.callers.begin(planned)
        try:
            storm.rage(seconds)
            report.seconds["storm"] = _since(began)
            patience = REST_SECONDS + REST_SECONDS_EACH * runs
            _settled(target, patience)
        finally:
            target.callers.end()
            report.journal = [f"{at:7.2f} {what}" for at, what in storm.journal]
        # An answer that came too late has its place on the timeline, too.
        settled = _settled(target, SHORT_REST_SECONDS)
        report.seconds["rest"] = _since(began)
        report.violations += verdict.unrest(settled, target.callers.said)
        report.violations += verdict.broken(settled, target.callers.said, planned, mill.acts(home / "world"))
        report.violations += _absent(target)
        if not report.violations:
            report.violations += _shown(target.site, settled)
        _tell(report, settled, target.callers, storm)
        report.seconds["judged"] = _since(began)
        target.site.stop()
        report.seconds["stopped"] = _since(began)
        report.violations += _changed(settled, records.read(target.site))
    report.seconds["end"] = _since(began)
    return report


@contextlib.contextmanager
def _target(kind: Kind, home: Path, seed: int) -> Iterator[Target]:
    with contextlib.ExitStack() as stack:
        grown = kind == "grown"
        postgres = stack.enter_context(servers.postgres()) if grown else None
        broker = stack.enter_context(servers.redis()) if grown else None
        environment = {
            "OPENVIBE_OPERATORS": "tests.faults.mill",
            "OPENVIBE_LEASE_SECONDS": str(LEASE_SECONDS),
            # A storm may well kill each worker that plays one run; here that must not be what ends it.
            "OPENVIBE_MOST_LOSSES": "1000",
            "OPENVIBE_SIMULATED_PACE": "200",
            "OPENVIBE_WORKER_PROCESSES": "2" if grown else "1",
            mill.WORLD: str(home / "world"),
        }
        if postgres and broker:
            # What PostgreSQL calls committed must outlive its own death, too.
            url = f"{servers.new_database(postgres.url)}?options=-c%20synchronous_commit%3Don"
            environment |= {"DATABASE_URL": url, "CELERY_BROKER_URL": broker.url}
        stack.callback(_sweep, home)
        site = stack.enter_context(sites.running(home, **environment))
        callers = Callers(site, seed=seed, world=home / "world")
        yield Target(site, callers, 2 if grown else 1, postgres, broker)


def _sweep(home: Path) -> None:
    """End what is still there of the site when it could not be ended in order."""
    mark = os.fsencode(f"OPENVIBE_HOME={home}")
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)


def _settled(target: Target, patience: float) -> Records:
    """Wait until everything is at rest, and return what is there then; after `patience` seconds whatever there is."""
    deadline = time.monotonic() + patience
    while True:
        # Whoever has done his part first has left nothing that is not in what is read afterwards.
        done = target.callers.done
        found = records.read(target.site)
        if done and not verdict.unrest(found, target.callers.said):
            return found
        if time.monotonic() > deadline:
            return found
        time.sleep(0.3)


def _absent(target: Target) -> Iterator[str]:
    """Everybody is there again, beat too, without which no cron would fire."""
    deadline = time.monotonic() + SHORT_REST_SECONDS
    while missing := target.missing():
        if time.monotonic() > deadline:
            yield f"{' and '.join(missing)} did not come back"
            return
        time.sleep(0.2)


def _shown(site: Site, settled: Records) -> Iterator[str]:
    """Compare what REST and the pages tell with what the database holds."""
    threads = settled.threads()
    with httpx.Client(base_url=site.url, trust_env=False, timeout=15) as browser:
        for run in settled.runs:
            path = f"/v1/operators/mill/runs/{run['id']}/events?limit=1000"
            told = browser.get(path, headers={"Authorization": f"Bearer {site.token}"}).json()["events"]
            held = [(row["seq"], row["kind"], row["node"], row["step_id"], row["data"]) for row in threads[run["id"]]]
            if [(row["seq"], row["type"], row["node"], row["step_id"], row["data"]) for row in told] != held:
                yield f"REST tells another timeline of run {run['id']} than the database holds"
        browser.headers["Cookie"] = site.session()
        for run in settled.runs[:PAGES]:
            page = browser.get(f"/agents/{run['id']}/").text
            shown = {int(number) for number in re.findall(r'id="e(\d+)"', page)}
            if shown != set(range(max(1, run["last_seq"] - 199), run["last_seq"] + 1)):
                yield f"the page of run {run['id']} shows {sorted(shown)} of {run['last_seq']} events"


def _changed(before: Records, after: Records) -> Iterator[str]:
    """Runs that have ended stay as they are, whatever processes still had in hand."""
    for name in ("runs", "events", "waits", "effects", "emissions", "channels"):
        if sorted(map(repr, getattr(before, name))) != sorted(map(repr, getattr(after, name))):
            yield f"{name} have changed after everything was at rest"


def _tell(report: Report, settled: Records, callers: Callers, storm: Storm) -> None:
    kinds = Counter(event["kind"] for events in settled.threads().values() for event in events)
    told = ("run.lost", "run.handed_back", "run.cancelled", "run.failed", "effect.unknown", "gate.expired")
    asked = Counter(wait["kind"] for wait in settled.waits)
    report.found = {"rows": len(settled.runs), **{kind: kinds[kind] for kind in told}}
    report.found |= {"forks": len(callers.said.forks), "work": asked["work"], "posted": len(callers.said.posted)}
    report.found |= {f"refused {name}": count for name, count in callers.said.refused.items()}
    report.found |= {f"answered {n}": c for n, c in Counter(item.status for item in callers.said.answers).items()}
    report.blows = dict(Counter(what.partition(":")[0] for _, what in storm.journal))


def _since(began: float) -> float:
    return round(time.monotonic() - began, 1)
