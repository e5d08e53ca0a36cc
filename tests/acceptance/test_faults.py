"""What breaks, and what must hold all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from openvibe_site import ports
from tests.acceptance import site as sites
from tests.acceptance.site import ENDED, ROOT, Site, until

pytestmark = pytest.mark.timeout(240)


def test_a_killed_worker_in_the_middle_of_a_step_repeats_no_step(own_site: Site) -> None:
    run = own_site.start_run("company_intel", "query")
    until(lambda: _started(own_site, run) >= 2, "the second step has begun")
    own_site.kill("worker-1")
    ended = own_site.wait_for(run, *ENDED, seconds=90)
    assert ended["status"] == "completed", ended["error"]
    _assert_whole(own_site, run)
    assert "run.lost" in [event["type"] for event in own_site.events(run)]


def test_a_worker_told_to_end_hands_its_run_back_at_the_next_boundary(own_site: Site) -> None:
    run = own_site.start_run("company_intel", "query")
    until(lambda: _started(own_site, run) >= 1, "the first step has begun")
    own_site.kill("worker-1", signal.SIGTERM)
    ended = own_site.wait_for(run, *ENDED, seconds=90)
    assert ended["status"] == "completed", ended["error"]
    _assert_whole(own_site, run)
    assert "run.handed_back" in [event["type"] for event in own_site.events(run)]


def test_a_killed_bridge_and_a_killed_web_server_come_back(own_site: Site) -> None:
    before = {name: own_site.kill(name) for name in ("bridge", "web")}
    until(lambda: all(own_site.child(name) != pid for name, pid in before.items()), "both were started again")
    until(own_site.ready, "everything is ready again", seconds=60)
    run = own_site.start_run("company_intel", "query")
    assert own_site.wait_for(run, *ENDED)["status"] == "completed"


def test_malformed_messages_become_dead_letters_and_the_bridge_goes_on(own_site: Site) -> None:
    good = b'{"id": "good-1", "content": "I am well formed"}'
    own_site.post("cg.v1.default.public.evt.agent.tester.message", b"{not json", b'{"content": "no id"}', good)
    cookies = {"Cookie": own_site.session()}

    def shown() -> bool:
        page = httpx.get(f"{own_site.url}/agents/general/", headers=cookies, trust_env=False, timeout=10)
        return "I am well formed" in page.text

    until(shown, "the good message is on the general page")
    metrics = httpx.get(f"{own_site.url}/metrics", trust_env=False).text
    assert "openvibe_dead_letters 2.0" in metrics


def test_the_end_takes_every_child_along_and_a_second_start_keeps_the_runs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with sites.running(home, OPENVIBE_SIMULATED_PACE="0") as first:
        run = first.start_run("company_intel", "query")
        first.wait_for(run, "completed")
        pids = [first.child(name) for name in ("nats", "worker-1", "bridge", "web")]
        assert first.stop() == 0
    assert not [pid for pid in pids if _alive(pid)]
    with sites.running(home, OPENVIBE_SIMULATED_PACE="0") as second:
        assert second.read(run)["status"] == "completed"


def test_a_second_instance_in_the_same_home_is_refused_in_one_sentence(site: Site) -> None:
    environment = {**os.environ, "OPENVIBE_HOME": str(site.home), "OPENVIBE_PORT": str(ports.free())}
    second = subprocess.run(
        [sys.executable, "-m", "openvibe_site.supervisor"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert "already runs" in second.stderr + second.stdout


def _started(site: Site, run: str) -> int:
    return sum(event["type"] == "step.started" for event in site.events(run))


def _assert_whole(site: Site, run: str) -> None:
    events = site.events(run)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    finished = Counter(event["step_id"] for event in events if event["type"] == "step.finished")
    assert finished
    assert set(finished.values()) == {1}
    assert events[-1]["type"] == "run.completed"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie whose parent has not looked yet is no living process.
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True
