"""A whole site on a NATS server with TLS and accounts: bridge, words, live pages, and agents with keys of their own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import ConsumerConfig
from websockets.sync.client import ClientConnection, connect

from openvibe.bus.nats_access import Access, NatsClient
from tests import servers
from tests.acceptance import site as sites
from tests.acceptance.site import ENDED, Site
from tests.acceptance.test_strangers import packages, played
from tests.servers import Server

__all__ = ["packages"]
pytestmark = pytest.mark.timeout(240)
GENERAL = "cg.v1.default.public.evt.agent.scout.message"


@pytest.fixture(scope="module")
def nats() -> Iterator[Server]:
    with servers.closed_nats("default", "acme") as server:
        yield server


@pytest.fixture(scope="module")
def site(nats: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with sites.running(
        tmp_path_factory.mktemp("closed"),
        NATS_URL=nats.url,
        NATS_CREDENTIALS=str(nats.folder / "openvibe-site.nk"),
        NATS_CERT_DIR=str(nats.folder),
        OPENVIBE_OPERATORS="operators.catalog,tests.acceptance.errands",
        OPENVIBE_SIMULATED_PACE="20",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def cookie(site: Site) -> str:
    """Somebody who is signed in."""
    return site.session()


def look(site: Site, place: str, cookie: str) -> ClientConnection:
    """Open a page's socket."""
    headers = {"Cookie": cookie, "Origin": site.url}
    return connect(f"ws://127.0.0.1:{site.port}/ws/agents/{place}/?after=0", additional_headers=headers, proxy=None)


def heard(socket: ClientConnection, text: str) -> str:
    """Return what a page hears, up to this text."""
    seen = ""
    while text not in seen:
        frame = socket.recv(30)
        seen += frame if isinstance(frame, str) else frame.decode()
    return seen


async def agent(server: Server, project: str) -> NatsClient:
    client = NatsClient()
    access = Access(server.url, str(server.folder / f"agents-{project}.nk"), str(server.folder))
    await client.connect(**access.options())
    return client


def test_a_page_hears_a_models_words_and_the_end_of_a_run(site: Site, cookie: str) -> None:
    run = site.start_run("company_intel", "query", {"company_name": "Closed"})
    with look(site, run.rsplit("/", 1)[1], cookie) as socket:
        seen = heard(socket, "status-completed")
    assert "beforeend:#words-" in seen
    assert site.wait_for(run, *ENDED)["status"] == "completed"


def test_an_agent_with_its_key_is_seen_on_the_general_page(site: Site, nats: Server, cookie: str) -> None:
    async def post() -> str:
        client = await agent(nats, "default")
        done = await client.jetstream().publish(GENERAL, b'{"id": "closed-1", "content": "hello by key"}')
        await client.close()
        return str(done.stream)

    with look(site, "general", cookie) as socket:
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(asyncio.run, post()).result(30) == "cg_evt_v1"
        heard(socket, "hello by key")


def test_an_agent_with_its_key_takes_work_and_brings_the_result(site: Site, nats: Server) -> None:
    ready = threading.Event()

    async def work() -> None:
        client = await agent(nats, "default")
        tasks = await client.subscribe("sessions.*.work")
        await client.flush()
        ready.set()
        task = json.loads((await tasks.next_msg(timeout=60)).data)
        body = {
            "version": "1", "id": "result-1", "timestamp": task["timestamp"], "session_id": task["session_id"],
            "type": "result.success",
            "payload": {"work_id": task["payload"]["work_id"], "work_type": "coding", "summary": "done by key"},
        }  # fmt: skip
        await client.jetstream().publish(f"sessions.{task['session_id']}.results", json.dumps(body).encode())
        await client.close()

    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(asyncio.run, work())
        assert ready.wait(30)
        run = site.start_run("errands", "run_errand")
        working.result(90)
    ended = site.wait_for(run, *ENDED)
    assert (ended["status"], ended["output"]["report"]) == ("completed", "done by key"), ended["error"]


def answered(task: dict[str, Any], summary: str) -> bytes:
    """Return the result of a task."""
    body = {
        "version": "1", "id": f"result-{task['session_id']}", "timestamp": task["timestamp"],
        "session_id": task["session_id"], "type": "result.success",
        "payload": {"work_id": task["payload"]["work_id"], "work_type": "coding", "summary": summary},
    }  # fmt: skip
    return json.dumps(body).encode()


def test_work_waits_for_an_agent_that_comes_later_and_for_the_next_one_if_it_dies(site: Site, nats: Server) -> None:
    run = site.start_run("errands", "run_errand", {"wish": "wait for me"})
    sites.until(lambda: site.read(run)["status"] == "waiting", "the work is handed out")
    work = f"sessions.{run.rsplit('/', 1)[1]}.work"

    async def take(summary: str) -> None:
        client = await agent(nats, "default")
        reader = ConsumerConfig(ack_wait=1)
        tasks = await client.jetstream(domain="openvibe").pull_subscribe(work, durable="late", config=reader)
        [message] = await tasks.fetch(1, timeout=30)
        if summary:
            task = json.loads(message.data)
            await client.jetstream().publish(f"sessions.{task['session_id']}.results", answered(task, summary))
            await message.ack_sync()
        await client.close()

    asyncio.run(take(""))
    asyncio.run(take("done by the next one"))
    assert site.wait_for(run, *ENDED)["output"]["report"] == "done by the next one"


def test_an_agent_in_javascript_reads_its_work_durably_and_writes_the_shared_context(
    site: Site, nats: Server, packages: Path
) -> None:
    run = site.start_run("errands", "run_errand", {"wish": "javascript"})
    name = run.rsplit("/", 1)[1]
    told = {"NATS_URL": nats.url, "NATS_KEY": str(nats.folder / "agents-default.nk"),
            "NATS_CA": str(nats.folder / "ca.pem"), "WORK": f"sessions.{name}.work"}  # fmt: skip
    printed = played(site, ["node", str(packages / "closed_agent.mjs")], **told)
    assert printed == f"sessions-default: {name}\n"
    assert site.wait_for(run, *ENDED)["output"]["report"] == "done for javascript"
    place = f"/context/leads/{name}"
    sites.until(lambda: site.call("GET", place).status_code == 200, "what it wrote is in the shared context")
    assert site.call("GET", place).json()["value"] == {"by": "closed-js"}


def test_a_site_without_its_key_says_what_is_missing(nats: Server, tmp_path: Path) -> None:
    site = sites.launch(tmp_path / "home", NATS_URL=nats.url, NATS_CERT_DIR=str(nats.folder))
    try:
        log = tmp_path / "home" / "logs" / "bridge.log"
        sites.until(lambda: log.exists() and "set NATS_CREDENTIALS" in log.read_text(), "the log says so", seconds=60)
        assert not site.ready()
    finally:
        site.stop()


def test_a_key_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    site = sites.launch(tmp_path / "home", NATS_URL="tls://127.0.0.1:1", NATS_CREDENTIALS=str(tmp_path / "no.nk"))
    assert site.process.wait(30) == 2
    assert "NATS_CREDENTIALS" in site.output.read_text()
