"""A script or a command that serves, run as a user runs it: in a folder of its own, by a Python of choice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from openvibe_site import ports
from tests.acceptance import site as sites
from tests.acceptance.site import ROOT, Site

HELLO = Path(__file__).with_name("hello.py")
#: What a test's own environment must not decide.
FOREIGN = ("DATABASE_URL", "NATS_URL", "CELERY_BROKER_URL", "PYTHONPATH", "DJANGO_SETTINGS_MODULE", "VIRTUAL_ENV")


def environment(**own: str) -> dict[str, str]:
    """Return an environment in which only `own` says anything about OpenVibe."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    kept = {name: value for name, value in kept.items() if not name.startswith("OPENVIBE_")}
    return {**kept, "OPENVIBE_SIMULATED_PACE": "0", "OPENVIBE_LEASE_SECONDS": "3", **own}


def checkout(**own: str) -> dict[str, str]:
    """Return an environment in which the checkout's packages are found."""
    return environment(PYTHONPATH=str(ROOT), **own)


def hello(folder: Path) -> int:
    """Save the ten-line script into a folder, with a free port, and return the port."""
    port = ports.free()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hello.py").write_text(HELLO.read_text("utf-8").replace("port=8000", f"port={port}"), "utf-8")
    return port


@contextmanager
def serving(
    *command: str, folder: Path, port: int, environ: dict[str, str], python: str = sys.executable
) -> Iterator[Site]:
    """Run a command that serves until the block ends; its home is the folder's own."""
    output = folder / "said.txt"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [python, *command],
            cwd=folder,
            env=environ,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    site = Site(folder / ".openvibe", port, process, output, environ)
    try:
        sites.until(lambda: _welcomes(site), "it is ready", seconds=90)
        yield site
    finally:
        site.stop()


def said(site: Site) -> str:
    """Return what stands in the terminal."""
    return site.output.read_text(errors="replace")


def curl(site: Site, path: str, body: str) -> httpx.Response:
    """Send what the example's curl sends, with token and content type."""
    headers = {"Authorization": f"Bearer {site.token}", "Content-Type": "application/json"}
    return httpx.post(f"{site.url}{path}", content=body, headers=headers, timeout=15, trust_env=False)


def session(site: Site) -> str:
    """Sign in by the link that the start has left, and return the session's cookie header."""
    with httpx.Client(trust_env=False, timeout=15) as browser:
        link = (site.home / "signin").read_text().strip()
        assert browser.get(link).status_code == 200
        form = {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert browser.post(link, data=form, headers={"Referer": link}).status_code == 302
        return f"sessionid={browser.cookies['sessionid']}"


def living(site: Site) -> list[int]:
    """Return the processes that were started for this home and still live."""
    mark = os.fsencode(f"OPENVIBE_HOME={site.home}")
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _bears(entry, mark)]


def run(command: Sequence[str], *, environ: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=100, check=False)


def _welcomes(site: Site) -> bool:
    assert site.process.poll() is None, f"It ended:\n{said(site)}"
    return "  stop " in said(site)


def _bears(entry: Path, mark: bytes) -> bool:
    try:
        return mark in (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
