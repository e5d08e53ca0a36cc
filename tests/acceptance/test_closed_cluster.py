"""A site on a cluster with TLS, to clients and between its nodes, and accounts: a node dies, and all go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from nats.errors import Error as NATSError
from nats.js.api import ConsumerConfig

from openvibe.bus.nats_access import Access, NatsClient
from openvibe_site import ports
from operators.management.commands import credentials
from tests import servers
from tests.acceptance import site as sites
from tests.acceptance.site import ENDED, Site, until
from tests.acceptance.test_closed_nats import answered
from tests.servers import Server

pytestmark = pytest.mark.timeout(300)
GENERAL = "cg.v1.default.public.evt.agent.scout.message"
#: What the dying node leads: where agents post, where work is handed out, and where agents read it.
LED = ("cg_evt_v1", "sessions", "sessions-default")


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[Server]]:
    with servers.closed_nats_cluster("default", "acme") as nodes:
        yield nodes


@pytest.fixture(scope="module")
def site(cluster: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = cluster[0].folder
    with sites.running(
        tmp_path_factory.mktemp("closed"),
        NATS_URL=addresses(cluster),
        NATS_CREDENTIALS=str(folder / "openvibe-site.nk"),
        NATS_CERT_DIR=str(folder),
        OPENVIBE_NATS_REPLICAS="3",
        OPENVIBE_OPERATORS="tests.acceptance.errands",
    ) as running:
        yield running


def addresses(cluster: list[Server]) -> str:
    return ",".join(node.url for node in cluster)


async def connected(cluster: list[Server], key: str) -> NatsClient:
    """Connect with a key, to any node that lives."""
    folder = cluster[0].folder
    client = NatsClient()
    access = Access(addresses(cluster), str(folder / key), str(folder))
    await client.connect(**access.options(), reconnect_time_wait=0.1, max_reconnect_attempts=-1, error_cb=silent)
    return client


async def silent(error: Exception) -> None:
    """A node that dies is part of the test."""


def told(node: Server, place: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{node.monitor}/{place}", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def ours(node: Server) -> int:
    """Count OpenVibe's connections to a node."""
    return sum(item["name"] == "openvibe" for item in told(node, "connz")["connections"])


def leads(cluster: list[Server], name: str) -> bool:
    """Tell whether a node leads all that matters, after asking for it."""

    async def ask() -> bool:
        client = await connected(cluster, "openvibe-site.nk")
        try:
            return all([await _led(client, stream, name) for stream in LED])
        except (NATSError, TimeoutError):
            return False
        finally:
            await client.close()

    return asyncio.run(ask())


async def _led(client: NatsClient, stream: str, name: str) -> bool:
    info = await client.jetstream().stream_info(stream)
    assert info.config.num_replicas == 3
    if info.cluster.leader != name:
        body = json.dumps({"placement": {"preferred": name}}).encode()
        await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", body, timeout=5)
    return bool(info.cluster.leader == name)


class Publisher:
    """An agent that posts one message after the other, each until a stream says that it is kept."""

    def __init__(self, cluster: list[Server]) -> None:
        self._cluster = cluster
        self.kept: list[str] = []
        self.ended = threading.Event()

    def work(self) -> None:
        asyncio.run(self._work())

    async def _work(self) -> None:
        client = await connected(self._cluster, "agents-default.nk")
        while not self.ended.is_set():
            name = f"post-{len(self.kept)}"
            body = json.dumps({"id": name, "content": name}).encode()
            stream, named = client.jetstream(timeout=1), {"Nats-Msg-Id": name}
            await insisted(partial(stream.publish, GENERAL, body, headers=named))
            self.kept.append(name)
            await asyncio.sleep(0.02)
        await client.close()


def posts(site: Site) -> Counter[str]:
    """How often the general channel tells of each message."""
    with contextlib.closing(sqlite3.connect(site.home / "openvibe.db")) as connection:
        rows = connection.execute("SELECT data FROM operators_event WHERE channel = 'public' AND kind LIKE 'agent.%'")
        return Counter(json.loads(row[0])["content"] for row in rows)


async def work_off(cluster: list[Server]) -> None:
    """Take a piece of work and bring its result, as an agent that reads durably and tries again."""
    client = await connected(cluster, "agents-default.nk")
    stream, kept = client.jetstream(domain="openvibe", timeout=2), client.jetstream(timeout=2)

    async def take() -> Any:
        config = ConsumerConfig(ack_wait=5)
        reader = await stream.pull_subscribe("sessions.*.work", durable="coder", config=config)
        return (await reader.fetch(1, timeout=2))[0]

    message = await insisted(take)
    task = json.loads(message.data)
    result = answered(task, "done over TLS")
    await insisted(lambda: kept.publish(f"sessions.{task['session_id']}.results", result))
    await insisted(lambda: message.ack_sync(timeout=2))
    await client.close()


async def insisted(act: Callable[[], Awaitable[Any]]) -> Any:
    """Do something as often as it takes: while nodes agree on a new leader, they answer nobody."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(NATSError, TimeoutError):
                return await act()
            await asyncio.sleep(0.2)


def test_a_site_its_posters_and_its_readers_go_on_when_a_node_dies(cluster: list[Server], site: Site) -> None:
    victim = max(cluster, key=ours)
    name = f"n{cluster.index(victim) + 1}"
    assert ours(victim) > 0
    until(lambda: leads(cluster, name), f"{name} leads the streams", seconds=60, pause=0.5)
    before = site.start_run("errands", "run_errand", {"wish": "before"})
    until(lambda: site.read(before)["status"] == "waiting", "work is handed out")
    publisher = Publisher(cluster)
    with ThreadPoolExecutor(1) as thread:
        posting = thread.submit(publisher.work)
        until(lambda: len(publisher.kept) > 20, "the agent posts")
        victim.kill()
        posted = len(publisher.kept)
        after = site.start_run("errands", "run_errand", {"wish": "after"})
        try:
            for _ in range(2):
                asyncio.run(work_off(cluster))
            until(lambda: len(publisher.kept) > posted + 20, "the agent goes on posting", seconds=60)
        finally:
            publisher.ended.set()
        posting.result(30)
    for run in (before, after):
        ended = site.wait_for(run, *ENDED)
        assert (ended["status"], ended["output"]["report"]) == ("completed", "done over TLS"), ended["error"]
    until(lambda: posts(site) == Counter(publisher.kept), "every message is told once", seconds=60)
    until(site.ready, "the site is ready without the node")
    # The node comes back, over TLS, and has what it missed.
    victim.start()
    servers.agree(cluster)
    until(lambda: leads(cluster, name), f"{name} leads again", seconds=60, pause=0.5)


def test_what_has_no_certificate_of_the_clusters_ca_is_no_node_of_it(
    cluster: list[Server], tmp_path_factory: pytest.TempPathFactory
) -> None:
    urls = told(cluster[0], "varz")["cluster"]["urls"]
    assert told(cluster[0], "varz")["cluster"]["tls_verify"] is True
    folder = tmp_path_factory.mktemp("rogue")
    # Its own CA, and otherwise all that a node has.
    credentials.write(folder, hosts=["127.0.0.1"], projects=["default"], routes=urls)
    port, monitor = ports.free(), ports.free()
    command = [cluster[0].command[0], "-c", "server.conf", "-n", "rogue", "-a", "127.0.0.1", "-p", str(port)]
    command += ["-m", str(monitor), "--cluster", f"nats://127.0.0.1:{ports.free()}"]
    rogue = Server(f"tls://127.0.0.1:{port}", command, folder, lambda: ports.answers(port))
    rogue.monitor = f"http://127.0.0.1:{monitor}"
    rogue.start()
    try:
        log = folder / "server.log"
        until(lambda: "TLS route handshake error" in log.read_text(errors="replace"), "it is turned away")
        assert told(rogue, "routez")["num_routes"] == 0
        assert "rogue" not in {route["remote_name"] for node in cluster for route in told(node, "routez")["routes"]}
    finally:
        rogue.stop()
