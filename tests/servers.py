"""Real servers for tests: each on a free port of 127.0.0.1, with data of its own that goes when it ends.

    with servers.nats() as server:
        bus = NatsBus(server.url)
        server.stop()   # an outage …
        server.start()  # … and its end: same port, same data

What is not installed skips the test with a sentence; `available(…)` asks without skipping.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from openvibe.protocol.workflow import PREFIX
from openvibe_site import nats_server, ports
from openvibe_site.errors import CannotStart
from operators.management.commands import credentials

Name = Literal["nats", "postgres", "redis"]

START_SECONDS = 30.0
STOP_SECONDS = 15.0
REMEDIES: dict[Name, str] = {
    "nats": "nats-server is not installed: `make test` installs it, `make services` the other servers.",
    "postgres": "PostgreSQL is not installed: `make services` installs it.",
    "redis": "redis-server is not installed: `make services` installs it.",
}


@dataclass
class Server:
    """One server process. `stop()` and a later `start()` are an outage: port and data stay."""

    url: str
    command: list[str]
    folder: Path
    healthy: Callable[[], bool]
    ending: signal.Signals = signal.SIGTERM
    user: str | None = None
    process: subprocess.Popen[bytes] | None = None
    monitor: str = ""

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server is stopped"
        return self.process.pid

    def start(self) -> None:
        """Return as soon as it answers."""
        assert self.process is None, "the server runs already"
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is pytest's; the server ends when its test does.
                start_new_session=True,
                **_as(self.user),
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.command[0]} did not start:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it in order, and return when it has ended."""
        if self.process is None:
            return
        self.process.send_signal(self.ending)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self.process = None


def available(name: Name) -> bool:
    """Tell whether a server of this kind could be started here."""
    return _program(name) is not None


@contextlib.contextmanager
def nats() -> Iterator[Server]:
    """A nats-server with JetStream; `url` is what `NATS_URL` wants."""
    program = _needed("nats")
    port, monitor = ports.free(), ports.free()
    with _folder() as folder:
        command = [program, "-a", ports.LOOPBACK, "-p", str(port), "-m", str(monitor), "-js", "-sd", str(folder)]
        health = f"http://{ports.LOOPBACK}:{monitor}/healthz"
        yield from _running(Server(f"nats://{ports.LOOPBACK}:{port}", command, folder, lambda: _answers_200(health)))


@contextlib.contextmanager
def closed_nats(*projects: str, prefixes: Sequence[str] = (PREFIX,)) -> Iterator[Server]:
    """A nats-server with TLS and accounts, as `manage.py credentials` makes it; its folder has keys and CA."""
    program = _needed("nats")
    port, monitor = ports.free(), ports.free()
    with _folder() as folder:
        # Clients in JavaScript know servers by names.
        credentials.write(folder, hosts=[ports.LOOPBACK, "localhost"], projects=projects, prefixes=prefixes)
        command = [program, "-c", "server.conf", "-a", ports.LOOPBACK, "-p", str(port), "-m", str(monitor)]
        health = f"http://{ports.LOOPBACK}:{monitor}/healthz"
        yield from _running(Server(f"tls://{ports.LOOPBACK}:{port}", command, folder, lambda: _answers_200(health)))


@contextlib.contextmanager
def nats_cluster(nodes: int = 3) -> Iterator[list[Server]]:
    """A cluster of nats-servers with JetStream, each with a name (`n1` …) and data of its own; any may be killed."""
    program = _needed("nats")
    routes = [ports.free() for _ in range(nodes)]
    with contextlib.ExitStack() as stack:
        found = []
        for number, route in enumerate(routes, start=1):
            port, monitor, folder = ports.free(), ports.free(), stack.enter_context(_folder())
            command = [program, "-a", ports.LOOPBACK, "-p", str(port), "-m", str(monitor), "-js", "-sd", str(folder)]
            command += ["--server_name", f"n{number}", "--cluster_name", "tests"]
            command += ["--cluster", f"nats://{ports.LOOPBACK}:{route}"]
            command += ["--routes", ",".join(f"nats://{ports.LOOPBACK}:{other}" for other in routes if other != route)]
            # Alone it is nothing yet: it counts as started when it takes connections, and all of them when all agree.
            server = Server(f"nats://{ports.LOOPBACK}:{port}", command, folder, partial(ports.answers, port))
            server.monitor = f"http://{ports.LOOPBACK}:{monitor}"
            stack.callback(server.stop)
            server.start()
            found.append(server)
        agree(found)
        yield found


@contextlib.contextmanager
def closed_nats_cluster(*projects: str, nodes: int = 3) -> Iterator[list[Server]]:
    """The same, closed: TLS to clients and between nodes, and accounts, as `manage.py credentials --route` makes it."""
    program = _needed("nats")
    routes = [f"{ports.LOOPBACK}:{ports.free()}" for _ in range(nodes)]
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(_folder())
        credentials.write(made, hosts=[ports.LOOPBACK, "localhost"], projects=projects, routes=routes)
        found = []
        for number, route in enumerate(routes, start=1):
            port, monitor, folder = ports.free(), ports.free(), stack.enter_context(_folder())
            shutil.copytree(made, folder, dirs_exist_ok=True)
            command = [program, "-c", "server.conf", "-n", f"n{number}", "-a", ports.LOOPBACK, "-p", str(port)]
            command += ["-m", str(monitor), "--cluster", f"nats://{route}"]
            server = Server(f"tls://{ports.LOOPBACK}:{port}", command, folder, partial(ports.answers, port))
            server.monitor = f"http://{ports.LOOPBACK}:{monitor}"
            stack.callback(server.stop)
            server.start()
            found.append(server)
        agree(found)
        yield found


def agree(nodes: list[Server]) -> None:
    """Wait until all nodes of a cluster are there and have what the others have."""
    deadline = time.monotonic() + START_SECONDS
    while not all(_answers_200(f"{server.monitor}/healthz") for server in nodes):
        assert time.monotonic() < deadline, "the cluster does not come to agree"
        time.sleep(0.05)


@contextlib.contextmanager
def postgres() -> Iterator[Server]:
    """A PostgreSQL that trusts everybody and forgets on a power cut; `url` is what `DATABASE_URL` wants."""
    program = _needed("postgres")
    port = ports.free()
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    with _folder(user) as folder:
        data = str(folder / "data")
        initdb = [str(Path(program).with_name("initdb")), "-D", data, "-U", "postgres", "-A", "trust", "-N"]
        initdb += ["-E", "UTF8", "--locale=C"]
        subprocess.run(initdb, cwd=folder, check=True, capture_output=True, **_as(user))
        command = [program, "-D", data, "-h", ports.LOOPBACK, "-p", str(port), "-k", str(folder)]
        # -F: nothing here must outlive the machine.
        command += ["-F", "-c", "full_page_writes=off", "-c", "synchronous_commit=off", "-c", "max_connections=200"]
        url = f"postgresql://postgres@{ports.LOOPBACK}:{port}/postgres"
        yield from _running(Server(url, command, folder, lambda: _lets_in(url), ending=signal.SIGINT, user=user))


def new_database(url: str) -> str:
    """Make an empty database on the server behind `url` and return its `DATABASE_URL`."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@contextlib.contextmanager
def redis(*, durable: bool = False) -> Iterator[Server]:
    """A redis-server that keeps nothing on disk unless `durable`; `url` is what `CELERY_BROKER_URL` wants."""
    program = _needed("redis")
    port = ports.free()
    with _folder() as folder:
        command = [program, "--bind", ports.LOOPBACK, "--port", str(port), "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "yes" if durable else "no", "--appendfsync", "always"]
        yield from _running(Server(f"redis://{ports.LOOPBACK}:{port}/0", command, folder, lambda: _pongs(port)))


def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _needed(name: Name) -> str:
    program = _program(name)
    if program is None:
        pytest.skip(REMEDIES[name])
    return program


def _program(name: Name) -> str | None:
    if name == "nats":
        with contextlib.suppress(CannotStart):
            return nats_server.find_binary()
        return None
    if name == "redis":
        return shutil.which("redis-server")
    # Debian keeps a server's programs off PATH, in a folder per version.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    found = [shutil.which("postgres", path=str(folder)) for folder in reversed(folders)]
    return next(filter(None, found), None) or shutil.which("postgres")


def _as(user: str | None) -> dict[str, object]:
    return {"user": user, "group": user, "extra_groups": []} if user else {}


@contextlib.contextmanager
def _folder(owner: str | None = None) -> Iterator[Path]:
    # Not pytest's tmp_path: it lies in folders that another user may not enter, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="openvibe-", ignore_cleanup_errors=True) as name:
        if owner:
            shutil.chown(name, owner, owner)
        yield Path(name)


def _answers_200(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _lets_in(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _pongs(port: int) -> bool:
    try:
        with socket.create_connection((ports.LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
