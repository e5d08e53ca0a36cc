"""The supervisor and its parts, with real processes and tiny commands; no Django."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import pytest
from nats.js.api import StreamConfig

from openvibe_site import env, nats_server, ports
from openvibe_site.children import Child
from openvibe_site.errors import CannotStart
from openvibe_site.home import Home, kept_secret, secret_key
from tests.unit.processes import alive, eventually, needs_proc

STAND_INS = {
    "openvibe_site/__main__.py": """
import os, pathlib, sys, time
home = pathlib.Path(os.environ["OPENVIBE_HOME"])
if sys.argv[1] == "prepare":
    if (home / "broken").exists():
        sys.exit("no such table: runs")
    print("migrating the database …")
    (home / "signin").write_text("http://127.0.0.1/stand-in-link")
else:
    time.sleep(1000)
""",
    "celery.py": "import time; time.sleep(1000)",
    "daphne.py": """
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("-p") + 1])), Ready).serve_forever()
""",
}


def test_the_home_and_its_secrets_are_for_its_owner_alone(home: Home) -> None:
    assert home.root.stat().st_mode & 0o777 == 0o700
    assert home.secret_key.stat().st_mode & 0o777 == 0o600
    assert len(kept_secret(home.secret_key)) >= 50


def test_a_secret_stays_what_it_was(home: Home) -> None:
    before = kept_secret(home.secret_key)
    home.make()
    assert kept_secret(home.secret_key) == before
    assert secret_key(env.read({"OPENVIBE_HOME": str(home.root)})) == before
    assert secret_key(env.read({"OPENVIBE_SECRET_KEY": "mine"})) == "mine"


def test_a_home_in_use_is_refused_with_the_pid_of_its_user(home: Home) -> None:
    with home.claimed(), pytest.raises(CannotStart) as caught, home.claimed():
        pass
    assert str(caught.value) == (
        f"OpenVibe already runs from {home.root} (pid {os.getpid()}). "
        "Stop it, or choose another OPENVIBE_HOME and OPENVIBE_PORT."
    )
    with home.claimed():
        assert home.lock.read_text().strip() == str(os.getpid())


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match="set OPENVIBE_HOME to a folder that you may write to"):
        Home(tmp_path / "file" / "home").make()


def test_a_free_port_is_handed_out_once() -> None:
    picked = [ports.free() for _ in range(200)]
    assert len(set(picked)) == 200
    assert set(picked) <= set(ports.CHOICE)


def test_a_busy_port_is_refused_and_not_picked() -> None:
    with socket.socket() as other:
        other.bind((ports.LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CannotStart) as caught:
            ports.require_free(port)
        assert ports.free(preferred=port) != port
    assert str(caught.value) == f"Port {port} is used by another program. Stop it, or set OPENVIBE_PORT to a free one."
    ports.require_free(port)


@pytest.fixture
def server(home: Home, child: Callable[..., Child]) -> nats_server.NatsServer:
    server = nats_server.configure(home)
    child(*server.command, name="nats").start()
    eventually(lambda: ports.answers(server.port))
    return server


def test_nats_server_accepts_its_configuration(tmp_path: Path) -> None:
    home = Home(tmp_path / 'a "quoted" höme')
    home.make()
    server = nats_server.configure(home)
    checked = subprocess.run([*server.command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert (home.nats / "server.conf").stat().st_mode & 0o777 == 0o600


def test_port_and_password_stay_over_a_restart(home: Home) -> None:
    assert nats_server.configure(home) == nats_server.configure(home)


def test_only_openvibe_may_say_what_was_recorded_or_take_a_stream_or_its_reader_away(
    server: nats_server.NatsServer,
) -> None:
    denied = [
        "cg.v1.default.public.evt.sys.timeline.recorded",
        *(f"$JS.API.STREAM.{act}.kept" for act in ("DELETE", "PURGE", "UPDATE", "MSG.DELETE")),
        *(f"$JS.API.CONSUMER.{act}.kept.openvibe-bridge" for act in ("MSG.NEXT", "DELETE", "CREATE")),
        "$JS.ACK.kept.openvibe-bridge.1.1.1.1.0",
    ]
    allowed = "cg.v1.default.public.evt.agent.scout.step"

    async def scenario() -> tuple[list[str], list[str], int]:
        complaints: list[str] = []

        async def complain(error: Exception) -> None:
            complaints.append(str(error))

        own = await nats.connect(server.private_url)
        agent = await nats.connect(server.public_url, error_cb=complain)
        listener = await own.subscribe("cg.v1.>")
        await own.flush()
        await agent.jetstream().add_stream(StreamConfig(name="kept", subjects=["kept.>"]))
        await agent.jetstream().publish("kept.one", b"1")
        for subject in (*denied, allowed):
            await agent.publish(subject, b"{}")
        await agent.flush()
        first = (await listener.next_msg(timeout=5)).subject
        await own.publish(denied[0], b"{}")
        second = (await listener.next_msg(timeout=5)).subject
        kept = (await own.jetstream().stream_info("kept")).state.messages
        await agent.close()
        await own.close()
        return complaints, [first, second], kept

    complaints, heard, kept = asyncio.run(scenario())
    assert heard == [allowed, denied[0]]
    assert [subject for subject in denied if not any(subject.lower() in each.lower() for each in complaints)] == []
    assert kept == 1


# The whole, with stand-ins for Django, Celery and daphne


class Started:
    """A supervisor of a project folder whose programs are stand-ins."""

    def __init__(self, root: Path, **settings: str) -> None:
        self.home = Home(root / "home")
        self.port = ports.free()
        self.output = root / "output.txt"
        environ = {name: value for name, value in os.environ.items() if name not in ("NATS_URL", "OPENVIBE_LLM")}
        environ |= {"OPENVIBE_HOME": str(self.home.root), "OPENVIBE_PORT": str(self.port), **settings}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "openvibe_site.supervisor"],
                cwd=root / "project",
                env=environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        return self.output.read_text("utf-8")

    def await_ready(self) -> Started:
        eventually(lambda: self.process.poll() is not None or "  stop " in self.text(), within=30)
        assert self.process.poll() is None, self.text()
        return self

    def pids(self) -> dict[str, int]:
        return dict(json.loads(self.home.children.read_text()))


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    project = tmp_path / "project"
    sources = shutil.ignore_patterns("__pycache__", "settings.py")
    shutil.copytree(Path(env.__file__).parent, project / "openvibe_site", ignore=sources)
    for package in ("openvibe", "operators", "agents_ui"):
        (project / package).symlink_to(env.CODE_ROOT / package)
    for name, source in STAND_INS.items():
        (project / name).write_text(source)
    started: list[Started] = []

    def start(**settings: str) -> Started:
        started.append(Started(tmp_path, **settings))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
            each.process.wait(timeout=30)


@needs_proc
def test_the_supervisor_starts_all_revives_the_dead_and_takes_all_along(supervisor: Callable[..., Started]) -> None:
    started = supervisor(OPENVIBE_WORKER_PROCESSES="2").await_ready()
    assert "migrating the database …" in started.text()
    assert "http://127.0.0.1/stand-in-link" in started.text()
    assert started.home.nats_url.read_text().startswith("nats://127.0.0.1:")
    before = started.pids()
    assert sorted(before) == ["bridge", "nats", "web", "worker-1", "worker-2"]
    os.kill(before["worker-2"], signal.SIGKILL)
    eventually(lambda: started.pids().get("worker-2", before["worker-2"]) != before["worker-2"])
    after = started.pids()
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(timeout=20) == 0
    assert not any(alive(pid) for pid in {*before.values(), *after.values()})
    assert not started.home.children.exists()


@needs_proc
def test_a_second_supervisor_of_the_same_home_is_refused(supervisor: Callable[..., Started]) -> None:
    first = supervisor().await_ready()
    pid = first.process.pid
    second = supervisor()
    assert second.process.wait(timeout=20) == 1
    assert f"already runs from {first.home.root} (pid {pid})" in second.text()


@needs_proc
def test_kill_9_of_the_supervisor_takes_the_children_along(supervisor: Callable[..., Started]) -> None:
    started = supervisor().await_ready()
    pids = started.pids()
    started.process.kill()
    started.process.wait()
    eventually(lambda: not any(alive(pid) for pid in pids.values()))
    supervisor().await_ready()


def test_a_wrong_setting_ends_with_2_and_its_sentence(supervisor: Callable[..., Started]) -> None:
    started = supervisor(OPENVIBE_LLM="anthropic", ANTHROPIC_API_KEY="")
    assert started.process.wait(timeout=20) == 2
    assert started.text().startswith("OPENVIBE_LLM is 'anthropic' but ANTHROPIC_API_KEY is not set")
    assert started.text().count("\n") == 1


def test_a_failed_preparation_ends_with_1_and_shows_why(supervisor: Callable[..., Started], home: Home) -> None:
    (home.root / "broken").write_text("")
    started = supervisor()
    assert started.process.wait(timeout=20) == 1
    assert "no such table: runs" in started.text()
    assert str(started.home.logs / "setup.log") in started.text()
