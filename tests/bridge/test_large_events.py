"""An operator's event that no message can carry: it goes out once, with a pointer to its payload."""

from __future__ import annotations

import asyncio
import json

import pytest
from django.utils import timezone

from openvibe.bus import MOST_BYTES
from openvibe.bus.nats import NatsBus
from operators.models import Card, Emission, Project
from operators.services import deliveries
from operators.services.cards import INLINE_LIMIT
from tests.bridge.conftest import SOON, Bridge, make_run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(("size", "inline"), [(10, True), (INLINE_LIMIT, False), (2 * MOST_BYTES, False)])
def test_a_large_payload_goes_out_as_a_pointer_to_its_card(
    bridge: Bridge, project: Project, size: int, *, inline: bool
) -> None:
    bridge.send()
    payload = {"text": "x" * size}
    emission = Emission.objects.create(
        id="emission_1", project=project, run=make_run(project, "run_01"), name="scout.found", payload=payload,
        emitted_at=timezone.now(),
    )  # fmt: skip

    assert deliveries.deliver(emission.id)
    emission.refresh_from_db()
    assert emission.published_at is not None
    said = asyncio.run(kept(bridge.server.url))["payload"]
    if inline:
        assert said == payload
    else:
        assert set(said) == {"card", "size"}
        assert Card.objects.get(sha256=said["card"]).content == payload


async def kept(url: str) -> dict[str, object]:
    bus = NatsBus(url, name="reader")
    await bus.connect()
    pull = await bus.pull("operators", durable="reader", patterns=["operators.scout.events.found"])
    async with asyncio.timeout(SOON):
        while not (found := await pull.fetch(1, timeout=1)):
            pass
    await bus.close()
    body: dict[str, object] = json.loads(found[0].data)
    return body
