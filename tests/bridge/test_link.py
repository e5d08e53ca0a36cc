"""The process's one connection, when the server wants nothing more to do with it."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from typing import Any

import pytest

from openvibe.bus.memory import MemoryBus
from openvibe.bus.nats import NatsBus
from openvibe.bus.nats_access import NatsClient
from openvibe.bus.redis import RedisBus
from openvibe.errors import BusError
from operators.link import link
from tests import servers
from tests.bridge.conftest import SOON, eventually


def test_a_connection_that_the_server_refused_for_good_is_made_anew(settings: Any) -> None:
    link.use(None)
    with servers.nats() as server:
        settings.NATS_URL = server.url
        first = link.submit(link.bus()).result(SOON)
        link.submit(_offend(first)).result(SOON)
        eventually(lambda: first.closed)

        second = link.submit(link.bus()).result(SOON)

        assert second is not first
        assert link.connected
        link.submit(link.close()).result(SOON)


def test_a_server_that_says_nothing_is_waited_for_as_long_as_the_setting_says(settings: Any) -> None:
    link.use(None)
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, nats_patience=0.4)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.NATS_URL = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(BusError):
            link.submit(link.bus()).result(SOON)
    assert 0.3 < time.monotonic() - began < 2.5


def test_an_attempt_ends_in_time_also_when_its_end_is_lost(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # As Python 3.11's wait_for does when a connection is refused at the very moment at which time is over.
    told: list[bool] = []

    async def refused(client: NatsClient, server: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append(True)
            if len(told) > 1:
                raise
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(NatsClient, "_connect_to_server", refused)
    link.use(None)
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, nats_patience=0.1)
    with pytest.raises(BusError, match="does not answer"):
        link.submit(link.bus()).result(SOON)
    assert told


async def _offend(bus: Any) -> None:
    assert isinstance(bus, NatsBus)
    assert bus._client is not None
    bus._client._transport.write(b"NONSENSE\r\n")


@pytest.mark.redis
def test_the_connection_is_made_to_the_bus_that_is_set(settings: Any) -> None:
    link.use(None)
    settings.BUS = "redis"
    with servers.redis() as server:
        settings.REDIS_URL = server.url
        assert link.reach(SOON)
        assert isinstance(link.submit(link.bus()).result(SOON), RedisBus)
        link.submit(link.close()).result(SOON)
    settings.BUS = "memory"
    assert isinstance(link.submit(link.bus()).result(SOON), MemoryBus)
    link.submit(link.close()).result(SOON)
