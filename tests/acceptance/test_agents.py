"""Agents that know nothing of OpenVibe but its documents: they take work, answer it, and stand on the timeline."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest

from tests.acceptance import site as sites
from tests.acceptance.site import ENDED, ROOT, Site, until

AGENTS = ROOT / "docs" / "agents"


@pytest.fixture(scope="module")
def errands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose operators need somebody else to do their work."""
    sources = f"{Path(__file__).with_name('errands.py')},operators.coders"
    with sites.running(tmp_path_factory.mktemp("errands"), OPENVIBE_OPERATORS=sources) as running:
        until(lambda: keeps(running), "the streams are there")
        yield running


def keeps(site: Site) -> bool:
    """Tell whether the last of the streams is there, by a message that nobody reads."""
    try:
        site.post("sessions.nobody.ignored", b"{}")
    except nats.errors.Error:
        return False
    return True


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the agent in JavaScript, and what it needs."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        absent = "node and npm are not installed: the agent in JavaScript cannot be tried."
        if os.environ.get("CI"):
            pytest.fail(absent)
        pytest.skip(absent)
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("sample_agent.mjs", "package.json", "package-lock.json"):
        shutil.copy(AGENTS / name, folder)
    run([npm, "ci", "--no-audit", "--no-fund"], folder)
    return folder


@contextmanager
def agent(site: Site, *command: str, folder: Path, name: str, roles: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run an agent's program, with nothing but NATS's address, until the block ends."""
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
    kept |= {"AGENT_ROLES": roles} if roles else {}
    process = subprocess.Popen(
        command, cwd=folder, env={**kept, "NATS_URL": site.nats_url, "AGENT_ID": name},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    said: list[str] = []
    assert process.stdout is not None
    listening = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
    listening.start()
    try:
        until(lambda: f"{name} is ready\n" in said or process.poll() is not None, f"{name} is ready")
        assert process.poll() is None, "".join(said)
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        status = process.wait(20)
        listening.join(5)
        process.stdout.close()
    assert status == 0, "".join(said)


def does_the_work(site: Site, name: str) -> None:
    """Start two runs and see the agent do one and fail the other."""
    good, bad = (site.start_run("errands", "run_errand", {"wish": wish}) for wish in ("paint the door", ""))
    ended = site.wait_for(good, *ENDED)
    assert (ended["status"], ended["output"]["report"]) == ("completed", "Done: paint the door")
    assert ended["output"]["result"]["context"] == {"agent_id": name}
    failed = site.wait_for(bad, *ENDED)
    assert failed["status"] == "failed"
    assert "The task has no description" in failed["error"]["message"]
    until(lambda: len(told(site, good)) == 2, f"{name} has said goodbye on the timeline")
    assert told(site, good) == [
        ("agent.agent_started", name, "I take c1"),
        ("agent.agent_stopped", name, "event.agent.stopped"),
    ]
    kinds = [event["type"] for event in site.events(good)]
    assert kinds.index("agent.agent_started") < kinds.index("work.answered") < kinds.index("run.completed")


def told(site: Site, run: str) -> list[tuple[str, str, str]]:
    """Return what agents said on a run's timeline."""
    said = [event for event in site.events(run) if event["type"].startswith("agent.")]
    return [(event["type"], event["actor"], event["data"]["content"]) for event in said]


@pytest.mark.timeout(240)
def test_the_python_agent_of_the_documents_does_a_runs_work(errands: Site) -> None:
    program = AGENTS / "sample_agent.py"
    with agent(errands, sys.executable, str(program), folder=AGENTS, name="ada"):
        does_the_work(errands, "ada")


@pytest.mark.timeout(240)
def test_work_that_was_asked_for_before_an_agent_came_is_done_when_one_does(errands: Site) -> None:
    run = errands.start_run("errands", "run_errand", {"wish": "wait for me"})
    errands.wait_for(run, "waiting")
    with agent(errands, sys.executable, str(AGENTS / "sample_agent.py"), folder=AGENTS, name="ben"):
        assert errands.wait_for(run, *ENDED)["output"]["report"] == "Done: wait for me"


@pytest.mark.timeout(300)
def test_the_javascript_agent_of_the_documents_does_a_runs_work(errands: Site, javascript: Path) -> None:
    with agent(errands, "node", "sample_agent.mjs", folder=javascript, name="joan"):
        does_the_work(errands, "joan")


CHUNKS = [
    {"id": "page", "description": "Build the sign-in page", "depends_on": ["auth"]},
    {"id": "auth", "description": "Check passwords", "requirements": ["Use bcrypt"]},
]


@pytest.mark.timeout(300)
def test_a_code_session_runs_to_its_end_with_agents_in_two_languages(errands: Site, javascript: Path) -> None:
    session = created(errands)
    program = [sys.executable, str(AGENTS / "sample_agent.py")]
    with agent(errands, *program, folder=AGENTS, name="pia", roles="coding,review"):
        decide(errands, session, "post_coding")
        # Nobody tests yet but this test, which is not content: the chunk goes back to coding.
        work = until(lambda: asked(errands, session, "check"), "the tests are asked for")
        answer(errands, session, work, "result.failure", {"error": "1 of 3 failed"})
        with agent(errands, "node", "sample_agent.mjs", folder=javascript, name="jan", roles="testing"):
            for _ in CHUNKS:
                for gate in ("post_coding", "post_testing", "post_review"):
                    decide(errands, session, gate)
            ended = errands.wait_for(session, *ENDED)
    assert ended["status"] == "completed", ended["error"]
    results = ended["output"]["results"]
    assert [(name, item["rounds"]) for name, item in results.items()] == [("auth", 2), ("page", 1)]
    assert {item[phase]["context"]["agent_id"] for item in results.values() for phase in ("coding", "review")} == {
        "pia"
    }
    assert {item["testing"]["context"]["agent_id"] for item in results.values()} == {"jan"}
    is_told_as_it_was(errands, session.rsplit("/", 1)[1])


@pytest.mark.timeout(240)
def test_two_agents_work_at_two_chunks_of_a_session_at_the_same_time(errands: Site) -> None:
    chunks = [
        {"id": "manual", "description": "Write the manual", "phases": ["coding"]},
        {"id": "auth", "description": "Check passwords", "phases": ["coding"]},
        {"id": "page", "description": "Build the sign-in page", "phases": ["coding"], "depends_on": ["auth"]},
    ]
    session = created(errands, chunks)
    both_hold_work = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        pair = [pool.submit(asyncio.run, does_one(errands, session, name, both_hold_work)) for name in ("ann", "bea")]
        assert {agent.result(90) for agent in pair} == {"manual", "auth"}
    gates = until(lambda: found if len(found := at_gates(errands, session)) == 2 else None, "both have answered")
    found = errands.call("GET", f"/sessions/{session.rsplit('/', 1)[1]}").json()
    assert (sorted(found["current_chunks"]), found["chunks_completed"]) == (["auth", "manual"], 0)
    assert errands.call("POST", f"{session}/resume", {"decision": "approve"}).status_code == 409
    yes(errands, session, gates["auth"])
    # The page is begun, though nobody has said a word about the manual.
    with agent(errands, sys.executable, str(AGENTS / "sample_agent.py"), folder=AGENTS, name="cora", roles="coding"):
        gates = until(lambda: found if "page" in (found := at_gates(errands, session)) else None, "the page is built")
    assert set(gates) == {"manual", "page"}
    for gate in gates.values():
        yes(errands, session, gate)
    ended = errands.wait_for(session, *ENDED)
    assert ended["status"] == "completed", ended["error"]
    assert set(ended["output"]["results"]) == {"auth", "page", "manual"}


async def does_one(site: Site, session: str, name: str, both_hold_work: threading.Barrier) -> str:
    """Take one task of a session as one of a pair, answer it while the other one holds hers, and return its chunk."""
    run = session.rsplit("/", 1)[1]
    client = await nats.connect(site.nats_url)
    try:
        work = await client.jetstream().pull_subscribe(f"sessions.{run}.work", durable=f"pair-{run}", stream="sessions")
        (message,) = await work.fetch(1, timeout=60)
        task = json.loads(message.data)["payload"]
        await asyncio.to_thread(both_hold_work.wait, 60)
        done = {"chunk_id": task["chunk_id"], "work_type": "coding", "context": {"agent_id": name}, "summary": "done"}
        await asyncio.to_thread(answer, site, session, {"id": task["work_id"]}, "result.success", done)
        await message.ack()
    finally:
        await client.close()
    return str(task["chunk_id"])


def at_gates(site: Site, session: str) -> dict[str, dict[str, Any]]:
    """Return the open gates of a session by their chunks."""
    found = [item for item in site.read(session)["waits"] if item["kind"] == "approval" and item["status"] == "pending"]
    return {item["payload"]["chunk_id"]: item for item in found}


def yes(site: Site, session: str, gate: Mapping[str, Any]) -> None:
    decided = site.call("POST", f"{session}/resume", {"decision": "approve", "wait_id": gate["id"]})
    assert decided.status_code == 200, decided.text


def created(site: Site, chunks: Sequence[Mapping[str, Any]] = CHUNKS) -> str:
    """Create a session, and return its path as a run."""
    answer = site.call("POST", "/sessions", {"name": "Sign-in", "graph": {"chunks": chunks}})
    assert answer.status_code == 201, answer.text
    return f"/operators/coders/runs/{answer.json()['id']}"


def is_told_as_it_was(site: Site, session: str) -> None:
    """See that REST, the stream and the file tell the same of a session that is over, and of its agents."""
    found = site.call("GET", f"/sessions/{session}").json()
    assert (found["status"], found["chunks_completed"], found["chunks_total"]) == ("completed", 2, 2)
    told = site.call("GET", f"/events?session={session}&limit=1000").json()["events"]
    types = [record["type"] for record in told]
    assert types.count("work.testing") == 3
    assert types.count("result.failure") == 1
    assert types.count("approval.granted") == 7
    assert [record["seq"] for record in told] == list(range(1, len(told) + 1))
    log = site.home / "sessions" / "default" / f"{session}.jsonl"
    lines = until(lambda: found if len(found := log.read_bytes().splitlines()) == len(told) else None, "it is logged")
    assert [json.loads(line)["id"] for line in lines] == [record["id"] for record in told]
    streamed = read_stream(site, f"/v1/events/stream?session={session}&after=0", len(told))
    assert [(item["type"], item["session_id"]) for item in streamed] == [(word, session) for word in types]
    agents = {item["id"]: item for item in site.call("GET", "/agents").json()["results"]}
    assert {agents[name]["role"] for name in ("pia", "jan")} <= {"coding", "testing", "review"}
    assert agents["pia"]["sessions"] == agents["jan"]["sessions"] == []


@pytest.mark.timeout(300)
def test_a_session_goes_on_while_the_bus_is_away_and_catches_up(tmp_path: Path) -> None:
    with sites.running(tmp_path / "home") as own:
        until(lambda: keeps(own), "the streams are there")
        session = created(own)
        work = until(lambda: asked(own, session, "code"), "the code is asked for")
        own.kill("nats", signal.SIGSTOP)
        try:
            # By REST, since nobody hears of anything over the bus.
            result = {"result": {"summary": "done", "files_changed": ["a.py"]}}
            assert own.call("POST", f"{session}/waits/{work['id']}/result", result).status_code == 200
            gate = until(lambda: asked(own, session, "post_coding"), "the gate asks", seconds=60)
            decided = own.call("POST", f"{session}/resume", {"decision": "approve", "wait_id": gate["id"]})
            assert decided.status_code == 200, decided.text
            until(lambda: asked(own, session, "check"), "the tests are asked for", seconds=60)
            own.kill("bridge")
        finally:
            own.kill("nats", signal.SIGCONT)
        program = [sys.executable, str(AGENTS / "sample_agent.py")]
        with agent(own, *program, folder=AGENTS, name="late", roles="testing"):
            until(lambda: asked(own, session, "post_testing"), "the tests were made", seconds=60)
        told = own.call("GET", f"/events?session={session.rsplit('/', 1)[1]}").json()["events"]
        log = own.home / "sessions" / "default" / f"{session.rsplit('/', 1)[1]}.jsonl"
        until(lambda: len(log.read_bytes().splitlines()) >= len(told), "the log has caught up")
        lines = [json.loads(line)["seq"] for line in log.read_bytes().splitlines()]
        assert lines == list(range(1, len(lines) + 1))


def asked(site: Site, session: str, node: str) -> dict[str, Any] | None:
    """Return the open wait at a node, if there is one."""
    found = [item for item in site.read(session)["waits"] if item["node"] == node and item["status"] == "pending"]
    return found[0] if found else None


def decide(site: Site, session: str, gate: str) -> None:
    """Say yes at a gate once it opens, over NATS as an approver does."""
    wait = until(lambda: asked(site, session, gate), f"{gate} asks (now {site.read(session)['status']})")
    seen = {name: wait[name] for name in ("version", "payload_sha256")}
    answer(site, session, {"id": None}, "approval.granted", {"gate_id": wait["id"], "approved_by": "Eve", **seen})
    until(lambda: (asked(site, session, gate) or {}).get("id") != wait["id"], "it is decided")


def answer(site: Site, session: str, work: dict[str, Any], type: str, payload: dict[str, Any]) -> None:
    """Send a message of a session, as a program of somebody's own does."""
    run = session.rsplit("/", 1)[1]
    told = {"work_id": work["id"]} if work["id"] else {}
    body = {
        "version": "1",
        "id": str(uuid.uuid4()),
        "timestamp": datetime.now(UTC).isoformat(),
        "session_id": run,
        "type": type,
        "payload": {**told, **payload},
    }
    place = "approvals" if type.startswith("approval.") else "results"
    site.post(f"sessions.{run}.{place}", json.dumps(body).encode())


def test_the_agents_of_the_documents_are_short_and_know_nothing_of_openvibe() -> None:
    for name in ("sample_agent.py", "sample_agent.mjs"):
        text = (AGENTS / name).read_text("utf-8")
        assert len(text.splitlines()) < 80
        assert "import openvibe" not in text
        assert "from openvibe" not in text


def test_an_external_run_is_streamed_to_whoever_asks_for_its_uid(errands: Site) -> None:
    subject = "workflow.lab.fix-issue.uid-77.agent.coder"
    errands.post(f"{subject}.message", b'{"id": "m1", "content": "I begin"}')
    errands.post(f"{subject}.run-complete", b'{"id": "m2", "status": "succeeded"}')
    first = until(lambda: streamed(errands, "workflowUid=uid-77", 4), "the run has ended")
    assert [event["type"] for event in first] == [
        "run.started",
        "agent.message",
        "agent.run_complete",
        "run.completed",
    ]
    run = f"/operators/external_agents/runs/{first[0]['run_id']}"
    assert errands.read(run)["status"] == "completed"


def test_publish_and_soak_carry_what_one_agent_did_to_the_next(errands: Site) -> None:
    ours = {**os.environ, "NATS_URL": errands.nats_url, "OPENVIBE_HOME": str(errands.home), "OPENVIBE_URL": errands.url}
    told = ("publish", "--general", "--agent", "ann", "--kind", "status")
    assert openvibe(ours, *told, "--attr", "branch=main", given="I mended the door\n") == ""
    busy(errands, "before")
    assert openvibe(ours, *told, given="and the roof\n") == ""
    busy(errands, "after")
    until(lambda: "the roof" in openvibe(ours, "soak", "--last", "1"), "the general channel has both lines")
    heard = openvibe(ours, "soak", "--last", "2").splitlines()
    assert [line.partition(" ann ")[2] for line in heard] == ["[status] I mended the door", "[status] and the roof"]
    assert openvibe(ours, "soak", "--kind", "run.started", "--last", "3").count("run_x") == 3
    [line] = openvibe(ours, "soak", "--branch", "main", "--last", "1").splitlines()
    assert line.endswith("I mended the door")


def busy(site: Site, when: str) -> None:
    """Let sixty runs tell everybody that they have started."""
    names = [f"busy-{when}-{number}" for number in range(60)]
    for name in names:
        site.post(f"workflow.lab.busy.{name}.agent.ben.message", b'{"content": "I begin"}')
    until(lambda: streamed(site, f"workflowUid={names[-1]}", 2), "the last of them has begun")


def openvibe(environ: dict[str, str], *command: str, given: str = "") -> str:
    """Run a command of `openvibe` and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "openvibe", *command],
        cwd=ROOT, env=environ, input=given, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def streamed(site: Site, query: str, most: int) -> list[dict[str, Any]]:
    """Return the first events of a stream, or none while there are fewer."""
    return read_stream(site, f"/api/agents/events?{query}", most)


def read_stream(site: Site, path: str, most: int) -> list[dict[str, Any]]:
    """Return the first events of a stream at a path, or none while there are fewer."""
    headers = {"Authorization": f"Bearer {site.token}"}
    found: list[dict[str, Any]] = []
    url = f"{site.url}{path}"
    with httpx.stream("GET", url, headers=headers, timeout=15, trust_env=False) as answer:
        if answer.status_code == 404:
            return []
        for line in answer.iter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
            if len(found) == most or line == ": alive":
                return found if len(found) == most else []
    return []


def run(command: Sequence[str], folder: Path) -> None:
    """Run a command to its end; it must succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
