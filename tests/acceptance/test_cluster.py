"""One system on two servers: a database, a broker with a queue for each operator, a NATS cluster that loses a node."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nats
import psycopg
import pytest

from openvibe.contrib import hubspot
from tests import servers
from tests.acceptance import site as sites
from tests.acceptance.site import ENDED, Site, until
from tests.servers import Server

pytestmark = [pytest.mark.postgres, pytest.mark.redis, pytest.mark.timeout(300)]

MODULE = "tests.acceptance.region"
#: Which operators each server serves. Whoever qualifies a lead asks somebody on the other one.
SERVED = ("content_desk,market_desk,intel_desk", "revenue_desk,success_desk")
SECRET = "a secret of HubSpot's"
STREAM = "operators"
#: What each lead starts: the run that it qualifies by, who is asked, and who listens.
STARTED = {"revenue_desk": 1, "intel_desk": 1, "success_desk": 1, "content_desk": 1, "market_desk": 1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[Server]]:
    with servers.nats_cluster() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def shared(cluster: list[Server]) -> Iterator[dict[str, str]]:
    """What both servers are told: one database, one broker, all nodes of the cluster."""
    with servers.postgres() as postgres, servers.redis() as broker:
        yield {
            "DATABASE_URL": servers.new_database(postgres.url),
            "CELERY_BROKER_URL": broker.url,
            "NATS_URL": ",".join(node.url for node in cluster),
            "OPENVIBE_NATS_REPLICAS": "3",
            "OPENVIBE_HUBSPOT_SECRET": SECRET,
        }


@dataclass
class Pair:
    """Two servers, each started by `openvibe serve --operators …`."""

    homes: list[Path]
    shared: dict[str, str]
    stack: ExitStack
    sites: dict[int, Site] = field(default_factory=dict)

    def start(self, number: int) -> None:
        command = ("serve", "--modules", MODULE, "--operators", SERVED[number])
        self.sites[number] = self.stack.enter_context(sites.begun(self.homes[number], *command, **self.shared))


@pytest.fixture(scope="module")
def both(shared: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both servers, started at the same time on an empty database."""
    with ExitStack() as stack:
        pair = Pair([tmp_path_factory.mktemp("server") for _ in SERVED], shared, stack)
        for number in range(len(SERVED)):
            pair.start(number)
        for site in pair.sites.values():
            sites.await_health(site)
        yield pair


def told(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def ours(node: Server) -> int:
    """Count OpenVibe's connections to a node."""
    return sum(item["name"] == "openvibe" for item in told(f"{node.monitor}/connz")["connections"])


def lead_stream(url: str, preferred: str) -> str:
    """Let a node lead the stream of operators' events, and return the name of the one that does."""

    async def ask() -> str:
        client = await nats.connect(url)
        try:
            leader = (await client.jetstream().stream_info(STREAM)).cluster.leader
            if leader != preferred:
                body = json.dumps({"placement": {"preferred": preferred}}).encode()
                await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}", body, timeout=5)
            return (await client.jetstream().stream_info(STREAM)).cluster.leader or ""
        finally:
            await client.close()

    return asyncio.run(ask())


def leads(site: Site, names: Sequence[str]) -> None:
    """Tell a server of leads as HubSpot does: signed, with no token, each twice."""
    url = f"{site.url}/v1/webhooks/hubspot_new_lead/"
    body = json.dumps([{"eventId": f"event-{name}", "company": name} for name in names])
    for _ in range(2):
        stamp = str(int(time.time() * 1000))
        signature = hubspot.signature_v3(SECRET, method="POST", uri=url, body=body, timestamp=stamp)
        signs = {"X-HubSpot-Signature-v3": signature, "X-HubSpot-Request-Timestamp": stamp}
        headers = {"Content-Type": "application/json", **signs}
        answer = httpx.post(url, content=body, headers=headers, timeout=15, trust_env=False)
        assert answer.status_code == 202, answer.text


def runs(database: str, companies: Sequence[str]) -> Counter[tuple[str, str, str]]:
    """How many runs there are about these companies, by operator, company and status."""
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT o.slug, r.input->>'company', r.status FROM operators_run r JOIN operators_operator o "
            "ON o.id = r.operator_id"
        ).fetchall()
    return Counter(row for row in rows if row[1] in companies)


def emitted(database: str, companies: Sequence[str]) -> Counter[str]:
    """How often the general channel tells of the event of each of these leads."""
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT data->'payload'->>'company' FROM operators_event WHERE channel = 'public' AND kind = 'agent.event'"
        ).fetchall()
    return Counter(row[0] for row in rows if row[0] in companies)


def test_two_servers_share_the_work_while_a_node_of_the_cluster_dies(
    cluster: list[Server], both: Pair, shared: dict[str, str]
) -> None:
    database = shared["DATABASE_URL"]
    before, during, after = ([f"{when}-{number}" for number in range(6)] for when in ("before", "during", "after"))
    expected = [*before, *during, *after]

    # A webhook may come to either of them, whichever holds the operator.
    for names, site in ((before[:3], both.sites[0]), (before[3:], both.sites[1])):
        leads(site, names)
    until(lambda: len(emitted(database, before)) == len(before), "the first leads are told of", seconds=60)

    victim = max(cluster, key=ours)
    name = f"n{cluster.index(victim) + 1}"
    assert ours(victim) > 0
    until(lambda: lead_stream(victim.url, name) == name, f"{name} leads the stream", seconds=30)
    for names, site in ((during[:3], both.sites[0]), (during[3:], both.sites[1])):
        leads(site, names)
    victim.kill()
    for names, site in ((after[:3], both.sites[1]), (after[3:], both.sites[0])):
        leads(site, names)

    wanted = {(operator, company, "completed"): many for operator, many in STARTED.items() for company in expected}
    until(lambda: runs(database, expected) == wanted, "every run has completed, each once", seconds=60)
    until(lambda: emitted(database, expected) == Counter(expected), "every event is told once", seconds=60)
    for site in both.sites.values():
        until(site.ready, "the server is ready without the node")

    stored = events_kept(next(node for node in cluster if node is not victim))
    assert Counter(name for name in stored if name in expected) == Counter(expected)


def events_kept(node: Server) -> list[str]:
    """The companies of all events that the stream holds."""

    async def read() -> list[str]:
        client = await nats.connect(node.url)
        try:
            jetstream = client.jetstream()
            state = (await jetstream.stream_info(STREAM)).state
            found = [await jetstream.get_msg(STREAM, seq) for seq in range(state.first_seq, state.last_seq + 1)]
            return [json.loads(message.data)["payload"]["company"] for message in found]
        finally:
            await client.close()

    return asyncio.run(read())


def test_a_run_whose_server_is_away_waits_for_it_and_its_page_says_so(both: Pair) -> None:
    here = both.sites[1]
    both.sites[0].stop()
    run = here.start_run("content_desk", "personalise", {"company": "Patient"})
    until(lambda: unserved(here, run), "its page says that nobody serves it", seconds=40)
    assert here.read(run)["status"] == "queued"
    # So does one that asks somebody there.
    asking = here.start_run("revenue_desk", "qualify", {"company": "Curious"})
    assert here.wait_for(asking, "waiting")["status"] == "waiting"
    both.start(0)
    assert here.wait_for(run, *ENDED)["status"] == "completed"
    answered = here.wait_for(asking, *ENDED)
    assert (answered["status"], answered["output"]["industry"]) == ("completed", "industry of Curious")
    sites.await_health(both.sites[0])


def unserved(site: Site, run: str) -> bool:
    address = f"{site.url}/agents/{run.rsplit('/', 1)[1]}/"
    page = httpx.get(address, headers={"Cookie": site.session()}, timeout=15, trust_env=False).text
    return "No worker serves" in page
