"""A site whose bus is Redis: runs, pages and operators as with NATS, and an outage that costs nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from openvibe.bus.redis import RedisBus
from tests import servers
from tests.acceptance import site as sites
from tests.acceptance.site import ENDED, Site, until
from tests.acceptance.test_programs import following
from tests.servers import Server

pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]
Place = tuple[Site, Server]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A site and its Redis."""
    with (
        servers.redis(durable=True) as server,
        sites.running(tmp_path_factory.mktemp("redis"), OPENVIBE_BUS="redis", REDIS_URL=server.url) as site,
    ):
        yield site, server


def test_a_run_is_followed_live_over_redis_and_no_nats_server_is_started(place: Place) -> None:
    site, _ = place
    with following(site, "/v1/events/stream?limit=0&kind=run.*") as general:
        run = site.start_run("revenue_ops", "engagement")
        assert next(general)["type"] == "run.started"
        gate = site.wait_for(run, "waiting", *ENDED)["waits"][0]
        with following(site, f"/api/agents/events?runId={run.rsplit('/', 1)[-1]}") as thread:
            seen = [event["type"] for event in _until(thread, "gate.opened")]
            answer = site.call("POST", f"{run}/resume", {"decision": "approve", "wait_id": gate["id"]})
            assert answer.status_code == 200, answer.text
            seen += [event["type"] for event in _until(thread, "run.completed")]
        assert next(general)["type"] == "run.completed"
    assert seen == [event["type"] for event in site.events(run)]
    assert not (site.home / "nats.url").exists()
    assert "nats" not in (site.home / "children.json").read_text()
    assert "Redis at redis://127.0.0.1" in site.output.read_text()


def test_the_registry_lies_in_redis_and_the_general_page_tells_agents_no_way_in(place: Place) -> None:
    site, server = place
    entry = until(lambda: asyncio.run(_kept(server.url)), "the server says what it offers")
    assert entry["operators"] == sorted(item["id"] for item in site.call("GET", "/operators").json()["operators"])
    page = httpx.get(f"{site.url}/agents/general/", headers={"Cookie": site.session()}, trust_env=False)
    assert page.status_code == 200
    assert "Post from an agent" not in page.text


def test_runs_go_on_while_redis_is_away_and_are_announced_when_it_is_back(place: Place) -> None:
    site, server = place
    server.kill()
    run = site.start_run("company_intel", "query", {"company_name": "Away"})
    assert site.wait_for(run, *ENDED)["status"] == "completed"
    server.start()
    until(site.ready, "the site reaches Redis again")
    with following(site, "/v1/events/stream?limit=0&kind=run.*") as general:
        later = site.start_run("company_intel", "query", {"company_name": "Back"})
        told = next(event for event in general if event["session_id"] == later.rsplit("/", 1)[-1])
    assert told["type"] == "run.started"


def test_memory_is_refused_with_the_remedy(tmp_path: Path) -> None:
    site = sites.launch(tmp_path / "home", OPENVIBE_BUS="memory")
    assert site.process.wait(30) == 2
    assert "leave it out for the NATS server" in site.output.read_text()


def test_the_streams_of_nats_cannot_be_compared_on_redis(place: Place) -> None:
    site, _ = place
    with pytest.raises(AssertionError, match="OPENVIBE_BUS is 'redis': only NATS has streams to compare"):
        site.manage("bus", "check")


async def _kept(url: str) -> dict[str, Any]:
    bus = RedisBus(url)
    await bus.connect()
    value = await bus.get_kv("registry", "servers/openvibe")
    await bus.close()
    return json.loads(value) if value else {}


def _until(events: Iterator[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    for event in events:
        yield event
        if event["type"] == kind:
            return
