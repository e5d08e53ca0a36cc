"""The registry on a real nats-server: what this server tells, what it hears, and who has gone silent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from nats.js.errors import NotFoundError

from openvibe.bus import Message
from openvibe.bus.nats import NatsBus
from operators.models import ApiToken, Operator, Project, Run, Server
from operators.models.server import BEAT_SECONDS, MOST_MISSED
from operators.services import servers
from tests.bridge.conftest import SOON, Bridge, eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]


def entry(server: str = "far", **changes: Any) -> dict[str, Any]:
    return {
        "server": server,
        "version": "1.2.3",
        "operators": ["grocer"],
        "capabilities": {"grocer": ["price"]},
        "load": 2,
        "last_heartbeat": timezone.now().isoformat(),
        **changes,
    }


def test_a_server_tells_what_it_offers_and_hears_the_others(registered: dict[str, Operator], bridge: Bridge) -> None:
    async def act() -> tuple[Any, Any, Any]:
        bus = NatsBus(bridge.server.url, name="stranger")
        await bus.connect()
        beats: asyncio.Queue[Message] = asyncio.Queue()
        await bus.subscribe("operators.company_intel.heartbeat", beats.put)
        await bus.put_kv("registry", "servers/far", json.dumps(entry()).encode())
        await bus.put_kv("registry", "servers/odd", b"[]")
        async with asyncio.timeout(SOON):
            beat = await beats.get()
        kept = [await bus.get_kv("registry", key) for key in ("servers/openvibe", "company_intel")]
        await bus.close()
        return json.loads(beat.data), json.loads(kept[0] or b"{}"), json.loads(kept[1] or b"{}")

    beat, own, operator = asyncio.run(act())
    assert own["server"] == operator["server"] == beat["server"] == "openvibe"
    assert own["capabilities"]["company_intel"] == operator["capabilities"] == beat["capabilities"] == ["research"]
    assert "content_engine" in own["operators"]
    eventually(lambda: Server.objects.filter(name="far").exists())
    assert [(item.name, item.state) for item in servers.listing("default")] == [("far", "fresh"), ("openvibe", "fresh")]
    assert Server.objects.get(name="far").load == 2


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_an_entry_with_an_impossible_time_is_nobodys_and_costs_no_other(moment: str) -> None:
    servers.heard("default", [entry("odd", last_heartbeat=moment), entry("far")])
    assert [server.name for server in servers.listing("default")] == ["far"]


def test_what_is_wrong_in_one_projects_registry_silences_this_server_in_no_other(
    bridge: Bridge, other_project: Project
) -> None:
    name = f"tenant-{other_project.id}-registry"

    async def spoil() -> None:
        bus = NatsBus(bridge.server.url, name="stranger")
        await bus.connect()
        for bucket in ("registry", name):
            with contextlib.suppress(NotFoundError):
                await bus._stream.delete_stream(f"KV_{bucket}")
        # A stream of that name that keeps no values.
        await bus._stream.add_stream(name="KV_registry", subjects=["elsewhere"])
        await bus.close()

    async def look() -> None:
        bus = NatsBus(bridge.server.url, name="stranger")
        await bus.connect()
        async with asyncio.timeout(SOON):
            while await bus.get_kv(name, "servers/openvibe") is None:
                await asyncio.sleep(0.1)
        await bus.close()

    bridge.stop()
    asyncio.run(spoil())
    bridge.start()
    asyncio.run(look())


def test_the_load_is_the_number_of_runs_that_are_played_here(run: Run) -> None:
    assert servers.own()["default"]["load"] == 0
    Run.objects.update(status=Run.Status.RUNNING)
    assert servers.own()["default"]["load"] == 0, "nobody here knows that operator"


def test_a_server_is_stale_after_three_silences_and_fresh_when_it_speaks_again() -> None:
    servers.heard("default", [entry()])
    assert [server.state for server in servers.listing("default")] == ["fresh"]
    assert servers.offered("default", "grocer", "price")
    Server.objects.update(heard_at=timezone.now() - timedelta(seconds=MOST_MISSED * BEAT_SECONDS + 1))
    assert [server.state for server in servers.listing("default")] == ["stale"]
    assert not servers.offered("default", "grocer", "price")
    servers.heard("default", [entry()])
    assert [server.state for server in servers.listing("default")] == ["fresh"]


def test_an_entry_that_stays_the_same_keeps_nobody_fresh() -> None:
    told = entry()
    servers.heard("default", [told])
    long_ago = timezone.now() - timedelta(minutes=5)
    Server.objects.update(heard_at=long_ago)
    servers.heard("default", [told])
    assert Server.objects.get().heard_at == long_ago


def test_a_server_that_was_dead_before_anybody_looked_is_stale_at_once() -> None:
    servers.heard("default", [entry(last_heartbeat=(timezone.now() - timedelta(hours=1)).isoformat())])
    assert [server.state for server in servers.listing("default")] == ["stale"]


def test_a_server_whose_clock_is_wrong_is_fresh_as_long_as_it_speaks() -> None:
    for seconds in (0, 10):
        beat = timezone.now() - timedelta(hours=1) + timedelta(seconds=seconds)
        servers.heard("default", [entry(last_heartbeat=beat.isoformat())])
    assert [server.state for server in servers.listing("default")] == ["fresh"]


@pytest.mark.parametrize(
    "told",
    [
        {},
        entry(last_heartbeat="soon"),
        entry(last_heartbeat="2026-13-01T00:00:00Z"),
        entry(server="a.b"),
        entry(server=7),
        entry(last_heartbeat=None),
    ],
)
def test_an_entry_that_says_nothing_is_nobodys(told: dict[str, Any]) -> None:
    servers.heard("default", [told])
    assert servers.listing("default") == []


def test_odd_fields_are_left_out() -> None:
    servers.heard("default", [entry(operators="grocer", capabilities={"grocer": "price", "baker": ["bread"]}, load=-1)])
    server = Server.objects.get()
    assert (server.operators, server.capabilities, server.load) == ([], {"baker": ["bread"]}, 0)


def test_a_server_that_has_been_silent_for_a_week_is_forgotten() -> None:
    servers.heard("default", [entry()])
    Server.objects.update(heard_at=timezone.now() - timedelta(days=8))
    servers.heard("default", [entry("other")])
    assert [server.name for server in servers.listing("default")] == ["other"]


def listed(user: Any, project: Project) -> list[dict[str, Any]]:
    key = ApiToken.new_key()
    ApiToken.objects.create(key_sha256=ApiToken.fingerprint(key), name="test", project=project, user=user)
    answer = Client(headers={"Authorization": f"Bearer {key}"}).get("/v1/servers")
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()["servers"]
    return found


def test_servers_are_listed_over_rest_and_not_for_charlie(
    vera: Any, charlie: Any, project: Project, other_project: Project
) -> None:
    servers.heard("default", [entry()])
    [server] = listed(vera, project)
    assert (server["id"], server["state"], server["capabilities"]) == ("far", "fresh", {"grocer": ["price"]})
    assert listed(charlie, other_project) == []
