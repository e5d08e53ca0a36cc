"""The process's one connection, when the server wants nothing more to do with it."""

from __future__ import annotations

from typing import Any

import pytest

from openvibe.bus.memory import MemoryBus
from openvibe.bus.nats import NatsBus
from openvibe.bus.redis import RedisBus
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
