"""An administrator pauses one of the bridge's readers: that is told, and it goes on when he lets it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any

import pytest
from django.test import Client

from openvibe.bus.nats import NatsBus
from operators.bridge import furnishing
from operators.models import Event
from tests.bridge.conftest import Bridge, eventually, said

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]

STREAM = "cg_evt_v1"
LATER = "2999-01-01T00:00:00Z"
PUBLIC = "cg.v1.default.public.evt.agent.scout.message"


@pytest.fixture(autouse=True)
def _hasty(settings: Any) -> None:
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, pull_seconds=0.3)


def _administrate(bridge: Bridge, act: str) -> None:
    async def administrate() -> None:
        bus = NatsBus(bridge.server.url, name="administrator")
        await bus.connect()
        durable = next(row.durable for row in furnishing.consumers() if row.stream == STREAM)
        if act == "pause":
            await bus._stream.pause_consumer(STREAM, durable, LATER)
        else:
            await bus._stream.resume_consumer(STREAM, durable)
        await bus.close()

    asyncio.run(administrate())


def told() -> list[str]:
    return list(Event.objects.filter(kind__startswith="stream.").order_by("seq").values_list("kind", flat=True))


def metrics() -> str:
    return Client().get("/metrics").content.decode()


def test_a_paused_reader_is_told_of_and_goes_on_when_it_is_resumed(
    bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    bridge.send((PUBLIC, {"id": "m1", "content": "before"}))
    eventually(lambda: said() == ["before"])
    with caplog.at_level(logging.WARNING):
        _administrate(bridge, "pause")
        eventually(lambda: told() == ["stream.paused"])
    assert f"`nats consumer resume {STREAM}" in caplog.text
    eventually(lambda: f'openvibe_stream_paused{{stream="{STREAM}"}} 1.0' in metrics())
    bridge.send((PUBLIC, {"id": "m2", "content": "meanwhile"}))

    _administrate(bridge, "resume")

    eventually(lambda: said() == ["before", "meanwhile"])
    eventually(lambda: told() == ["stream.paused", "stream.resumed"])
    eventually(lambda: f'openvibe_stream_paused{{stream="{STREAM}"}} 0.0' in metrics())
    paused = Event.objects.get(kind="stream.paused")
    assert paused.project_id == "default"
    assert paused.data["stream"] == STREAM
    assert paused.data["until"] == LATER


def test_a_pause_that_ends_while_no_bridge_lives_is_told_by_the_next_one(bridge: Bridge) -> None:
    bridge.send((PUBLIC, {"id": "m1", "content": "before"}))
    eventually(lambda: said() == ["before"])
    _administrate(bridge, "pause")
    eventually(lambda: told() == ["stream.paused"])
    bridge.stop()
    _administrate(bridge, "resume")

    bridge.start()

    eventually(lambda: told() == ["stream.paused", "stream.resumed"])
