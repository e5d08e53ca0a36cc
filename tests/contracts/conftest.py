"""One fixture for all buses: whoever asks for `bus` runs on the double and on every real server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from openvibe.bus import Bus
from tests import servers
from tests.contracts.buses import LOCAL, NAMES, made


@pytest.fixture(scope="session")
def nats_url() -> Iterator[str]:
    with servers.nats() as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with servers.redis() as server:
        yield server.url


@pytest.fixture(params=[*LOCAL, *NAMES])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def fresh(kind: str, request: pytest.FixtureRequest) -> Bus:
    """A bus that nobody has connected."""
    return made(kind, request)


@pytest.fixture
async def bus(fresh: Bus) -> AsyncIterator[Bus]:
    await fresh.connect()
    yield fresh
    await fresh.close()


@pytest.fixture
async def other(bus: Bus, kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    """A second connection to the same server; in memory there is only the one."""
    if kind in LOCAL:
        yield bus
        return
    second = made(kind, request)
    await second.connect()
    yield second
    await second.close()


@pytest.fixture
def name() -> str:
    """A first token that no other test uses, because they share a server."""
    return f"x{secrets.token_hex(6)}"
