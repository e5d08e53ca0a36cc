"""A whole OpenVibe of real processes, as `make run` starts it, and a caller of its API."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import nats

from openvibe_site import ports

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")
ENDED = {"completed", "failed", "cancelled"}


def until(
    look: Callable[[], T | None], what: str | Callable[[], str], *, seconds: float = 30.0, pause: float = 0.05
) -> T:
    """Return the first true thing that `look` sees; fail with a sentence if it sees none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(pause)
    raise AssertionError(f"Not within {seconds:g} s: {what() if callable(what) else what}")


@dataclass
class Site:
    """A running OpenVibe."""

    home: Path
    port: int
    process: subprocess.Popen[bytes]
    output: Path
    environment: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    @property
    def nats_url(self) -> str:
        return (self.home / "nats.url").read_text().strip()

    def child(self, name: str) -> int:
        """Return the process id of a child, once it has one: between its death and its next start it has none."""

        def look() -> int | None:
            pids: dict[str, int] = json.loads((self.home / "children.json").read_text())
            return pids.get(name)

        return until(look, f"{name} lives")

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a child; returns its process id."""
        pid = self.child(name)
        os.kill(pid, number)
        return pid

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> httpx.Response:
        """Call the REST API."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx.request(method, f"{self.url}/v1{path}", json=body, headers=headers, timeout=15, trust_env=False)

    def start_run(self, operator: str, trigger: str, given: Mapping[str, Any] | None = None) -> str:
        """Start a workflow, with its sample input unless told otherwise; returns the path of the run."""
        if given is None:
            workflows = self.call("GET", f"/operators/{operator}").json()["workflows"]
            given = next(item["sample_input"] for item in workflows if trigger in (item["id"], item["trigger_id"]))
        answer = self.call("POST", f"/operators/{operator}/activate", {"trigger": trigger, "input": given})
        assert answer.status_code == 201, answer.text
        return f"/operators/{operator}/runs/{answer.json()['run_id']}"

    def read(self, run: str) -> dict[str, Any]:
        """Return a run."""
        found: dict[str, Any] = self.call("GET", run).json()
        return found

    def wait_for(self, run: str, *statuses: str, seconds: float = 60.0) -> dict[str, Any]:
        """Return a run once it has one of these statuses."""

        def look() -> dict[str, Any] | None:
            found = self.read(run)
            return found if found["status"] in statuses else None

        return until(look, f"{run} is {' or '.join(statuses)} (now {self.read(run)['status']})", seconds=seconds)

    def events(self, run: str) -> list[dict[str, Any]]:
        """Return a run's timeline."""
        found: list[dict[str, Any]] = self.call("GET", f"{run}/events?limit=1000").json()["events"]
        return found

    def post(self, subject: str, *bodies: bytes) -> None:
        """Publish messages as an agent does, each kept by its stream when this returns."""

        async def publish() -> None:
            client = await nats.connect(self.nats_url)
            for body in bodies:
                await client.jetstream().publish(subject, body)
            await client.close()

        # On a thread of its own, because a browser test runs inside an event loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, publish()).result(30)

    def ready(self) -> bool:
        """Tell whether every part is there."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def session(self) -> str:
        """Sign in by a one-click link and return the session's cookie header."""
        with httpx.Client(trust_env=False, timeout=15) as browser:
            link = self.manage("signin")
            page = browser.get(link)
            assert page.status_code == 200, page.text
            form = {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
            answer = browser.post(link, data=form, headers={"Referer": link})
            assert answer.status_code == 302, answer.text
            return f"sessionid={browser.cookies['sessionid']}"

    def manage(self, *command: str) -> str:
        """Run a command of `manage.py` in this site's environment and return what it printed."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def stop(self, *, seconds: float = 40.0) -> int:
        """End it as Ctrl-C does; returns the exit status. None of its processes may crash at that."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(seconds)
        assert not re.search(r"did not end in order: SIG(SEGV|ABRT|BUS)", self.output.read_text(errors="replace"))
        return status


@contextmanager
def running(home: Path, **environment: str) -> Iterator[Site]:
    """Run OpenVibe from `home` until the block ends."""
    with begun(home, **environment) as site:
        await_health(site)
        yield site


@contextmanager
def begun(home: Path, *command: str, **environment: str) -> Iterator[Site]:
    """The same, without waiting until it is there."""
    site = launch(home, *command, **environment)
    try:
        yield site
    finally:
        site.stop()


def await_health(site: Site) -> None:
    """Wait until every part of it is there."""
    until(lambda: _healthy(site), lambda: f"OpenVibe is healthy; it said:\n{_tail(site)}", seconds=90)


def launch(home: Path, *command: str, **environment: str) -> Site:
    """Start OpenVibe without waiting for it: by a command of `openvibe` if one is given, else as `make run` does."""
    home.mkdir(parents=True, exist_ok=True)
    port = ports.free()
    # Only what is said here counts: a developer's own settings must not decide a test.
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("OPENVIBE_")
        and name not in ("DATABASE_URL", "NATS_URL", "REDIS_URL", "CELERY_BROKER_URL")
    }
    environment = {
        "OPENVIBE_HOME": str(home),
        "OPENVIBE_PORT": str(port),
        "OPENVIBE_LEASE_SECONDS": "3",
        "OPENVIBE_WEB": os.environ.get("OPENVIBE_TEST_WEB", "daphne"),
        **environment,
    }
    output = home / "supervisor.out"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", *(("openvibe", *command) if command else ("openvibe_site.supervisor",))],
            cwd=ROOT,
            env={**ours, **environment},
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Site(home, port, process, output, environment)


def _healthy(site: Site) -> bool:
    assert site.process.poll() is None, f"OpenVibe ended:\n{_tail(site)}"
    return site.ready() and (site.home / "token").exists()


def _tail(site: Site) -> str:
    return site.output.read_text(errors="replace")[-3000:]
