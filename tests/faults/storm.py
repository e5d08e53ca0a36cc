"""What breaks: processes die or freeze, servers go and come back, bells ring too often, crowds answer at once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import celery
import redis
from kombu.exceptions import OperationalError

from openvibe_site import spool
from tests import servers
from tests.acceptance.site import Site
from tests.faults import mill, records
from tests.faults.callers import Callers

#: Longer than a lease, so that somebody else plays on meanwhile.
FROZEN = (2.2, 4.2)
#: The pause between two blows.
PAUSE = (0.2, 0.9)
#: How long a blow waits for the right moment, in seconds.
WATCHED = 4.0


@dataclass
class Target:
    """A site, the servers under it, and those who use it."""

    site: Site
    callers: Callers
    workers: int
    postgres: servers.Server | None = None
    redis: servers.Server | None = None

    @property
    def broker(self) -> celery.Celery:
        """A program that may ring for the site's workers."""
        app = celery.Celery("storm", set_as_current=False)
        url, queue = self.site.environment.get("CELERY_BROKER_URL"), str(self.site.home / "queue")
        folders = {"data_folder_in": queue, "data_folder_out": queue, "control_folder": f"{queue}/control"}
        app.conf.broker_url = url or f"{spool.SCHEME}://localhost"
        app.conf.broker_transport_options = {"max_retries": 1} if url else folders
        app.conf.task_default_queue = "runs"
        return app

    def child(self, name: str) -> int | None:
        """Return the process id of one of the site's children, if it lives."""
        with contextlib.suppress(OSError, ValueError):
            pid: int | None = json.loads((self.site.home / "children.json").read_text()).get(name)
            return pid if pid and self.owns(pid) else None
        return None

    def beat(self) -> list[int]:
        """Return the process id of beat, which rides in the first worker."""
        worker = self.child("worker-1")
        with contextlib.suppress(OSError):
            found = [int(text) for text in Path(f"/proc/{worker}/task/{worker}/children").read_text().split()]
            return [pid for pid in found if self.owns(pid)]
        return []

    def missing(self) -> list[str]:
        """Return the names of those that are not there."""
        workers = [f"worker-{number}" for number in range(1, self.workers + 1)]
        names = ["nats", "bridge", "web", *workers]
        return [name for name in names if not self.child(name)] + ([] if self.beat() else ["beat"])

    def owns(self, pid: int) -> bool:
        """Tell whether this number means a living process of the site, and not a stranger who got it afterwards."""
        mark = os.fsencode(f"OPENVIBE_HOME={self.site.home}")
        try:
            return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False


@dataclass
class Storm:
    """Blows at a target for a while; the seed decides when and where."""

    target: Target
    dice: random.Random
    journal: list[tuple[float, str]] = field(default_factory=list)
    _frozen: list[tuple[float, int]] = field(default_factory=list)
    _began: float = 0.0

    def rage(self, seconds: float) -> None:
        """Return when it is over; everything that was held down is free again then."""
        self._began = time.monotonic()
        # A short storm strikes in the middle of an act before its workers are down for some other reason.
        bag = [self.dice.choice(["kill workers in an act", "freeze worker in an act"])]
        kinds = [*self._blows, *self._noises]
        with ThreadPoolExecutor(4) as aside:
            try:
                while time.monotonic() - self._began < seconds:
                    # Each kind comes before any comes again, so that a short storm has most of them.
                    bag = bag or self.dice.sample(kinds, len(kinds))
                    self._strike(bag.pop(), aside)
                    time.sleep(self.dice.uniform(*PAUSE))
                    self._thaw(time.monotonic())
            finally:
                self._thaw(float("inf"))

    @property
    def _blows(self) -> dict[str, Callable[[], str | None]]:
        workers = [f"worker-{number}" for number in range(1, self.target.workers + 1)]
        blows: dict[str, Callable[[], str | None]] = {
            "kill worker": lambda: self._kill(self.dice.choice(workers)),
            "kill workers in an act": lambda: self._in_an_act(self._kill, workers),
            "end worker": lambda: self._kill(self.dice.choice(workers), signal.SIGTERM),
            "kill bridge": lambda: self._kill("bridge"),
            "kill beat": self._kill_beat,
            "kill web": lambda: self._kill("web"),
            "kill nats": lambda: self._kill("nats"),
            "freeze worker": lambda: self._freeze(self.dice.choice(workers)),
            # The clock rides in it, and may hold the rows of many runs whose timers it fires.
            "freeze bridge": lambda: self._freeze("bridge"),
            # One of them, so that another may play on what it has in hand.
            "freeze worker in an act": lambda: self._in_an_act(self._freeze, [self.dice.choice(workers)]),
        }
        if self.target.redis is not None:
            blows |= {"kill redis": self._kill_redis, "flush redis": self._flush_redis}
        if self.target.postgres is not None:
            blows |= {"restart postgres": self._restart_postgres}
        return blows

    @property
    def _noises(self) -> dict[str, Callable[[random.Random], None]]:
        return {"ring": self._ring, "crowd": self.target.callers.crowd}

    def _strike(self, name: str, aside: ThreadPoolExecutor) -> None:
        if name in self._noises:
            self._note(name)
            aside.submit(self._noises[name], random.Random(self.dice.random()))
            return
        self._note(f"{name}: {self._blows[name]() or 'nobody there'}")

    def _note(self, what: str) -> None:
        self.journal.append((round(time.monotonic() - self._began, 2), what))

    def _kill(self, name: str, number: int = signal.SIGKILL) -> str | None:
        pid = self.target.child(name)
        return f"{name} {pid}" if pid and _signalled(pid, number) else None

    def _in_an_act(self, blow: Callable[[str], str | None], workers: list[str]) -> str | None:
        """Strike these workers while somebody does something to the world."""
        deadline = time.monotonic() + WATCHED
        while not records.acting(self.target.site):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)
        time.sleep(self.dice.uniform(0.0, mill.BEFORE + mill.AFTER))
        return " and ".join(filter(None, map(blow, workers))) or None

    def _kill_beat(self) -> str | None:
        for pid in self.target.beat():
            if _signalled(pid, signal.SIGKILL):
                return f"beat {pid}"
        return None

    def _freeze(self, name: str) -> str | None:
        pid = self.target.child(name)
        if not pid or not _signalled(pid, signal.SIGSTOP):
            return None
        self._frozen.append((time.monotonic() + self.dice.uniform(*FROZEN), pid))
        return f"{name} {pid}"

    def _thaw(self, now: float) -> None:
        for due, pid in list(self._frozen):
            if due <= now:
                self._frozen.remove((due, pid))
                if self.target.owns(pid) and _signalled(pid, signal.SIGCONT):
                    self._note(f"thaw: {pid}")

    def _ring(self, dice: random.Random) -> None:
        with contextlib.suppress(OperationalError, OSError, redis.RedisError), self.target.broker as app:
            for run in self.target.callers.runs(dice, 5):
                for _ in range(6):
                    app.send_task("operators.perform", args=[run], retry=False)

    def _kill_redis(self) -> str:
        assert self.target.redis is not None
        self.target.redis.kill()
        time.sleep(self.dice.uniform(0.1, 1.0))
        self.target.redis.start()
        return "and started again"

    def _flush_redis(self) -> str:
        assert self.target.redis is not None
        with redis.Redis.from_url(self.target.redis.url) as client:
            client.flushall()
        return "flushed"

    def _restart_postgres(self) -> str:
        assert self.target.postgres is not None
        # SIGQUIT is its immediate shutdown: it comes back by reading its log, as after a crash.
        self.target.postgres.ending = signal.SIGQUIT
        self.target.postgres.stop()
        time.sleep(self.dice.uniform(0.0, 0.5))
        self.target.postgres.start()
        return "and started again"


def _signalled(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
