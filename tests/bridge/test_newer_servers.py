"""While servers are upgraded one after the other, an older one does not answer for what only a newer one offers."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from openvibe.bus import Message
from openvibe.bus.nats import NatsBus
from openvibe.errors import NoResponders
from operators.models import Operator, Project, Run, Server
from operators.services import servers
from tests.bridge.conftest import SOON, Bridge
from tests.bridge.test_requests import ask, refused, with_client
from tests.bridge.village import Grocer, served

pytestmark = pytest.mark.django_db(transaction=True)

CREDIT = "operators.grocer.request.credit"
SHOES = "operators.grocer.request.shoes"


@pytest.fixture
def grocer(project: Project) -> Iterator[Operator]:
    for found in served(project, Grocer):
        yield found["grocer"]


def test_what_a_newer_server_has_registered_in_the_same_database_is_started(grocer: Operator, bridge: Bridge) -> None:
    newer = grocer.workflows.get(slug="quote")
    newer.pk, newer.slug, newer.trigger, newer.trigger_id = None, "lend", "request:credit", "credit"
    newer.spec = copy.deepcopy(newer.spec)
    newer.spec["trigger"] |= {"id": "credit", "source": "credit", "text": "request:credit"}
    newer.save()

    # No worker here has the newer code; the run waits for one that has.
    told = refused(ask(bridge, CREDIT, {"loaves": 3}, OpenVibe_Timeout="0.1"))

    assert told.code == "504"
    assert Run.objects.get().workflow.slug == "lend"


def test_a_newer_server_on_the_same_bus_gets_every_request_for_what_it_alone_offers(
    grocer: Operator, bridge: Bridge
) -> None:
    assert refused(ask(bridge, SHOES, {})).code == "404"
    offered = ["advice", "credit", "price"]
    heartbeat = {"server": "newer", "capabilities": {"grocer": offered}, "last_heartbeat": timezone.now().isoformat()}
    servers.heard("default", [heartbeat])

    async def lend(_: Message) -> bytes:
        return b"lent"

    async def answers(bus: NatsBus) -> set[bytes]:
        await bus.serve_service("openvibe-grocer", version="9.0.0", endpoints={CREDIT: lend})
        # The older one has heard of it as soon as it answers no more what nobody offers.
        with contextlib.suppress(NoResponders):
            for _ in range(int(SOON / 0.1)):
                await bus.request(SHOES, b"{}", timeout=SOON)
                await asyncio.sleep(0.1)
        return {(await bus.request(CREDIT, b"{}", timeout=SOON)).data for _ in range(30)}

    assert with_client(bridge, answers) == {b"lent"}
    # When the newer one is gone, somebody says again that nobody offers it.
    Server.objects.update(heard_at=timezone.now() - timedelta(minutes=5))
    assert refused(ask(bridge, CREDIT, {})).code == "404"
