"""Whoever follows a bucket slowly hears the last revision of each key, on NATS all of it, however much there is."""

from __future__ import annotations

import asyncio

import pytest

from openvibe.bus import Bus, Entry, Message
from openvibe.bus.mailbox import MOST_WAITING
from openvibe.bus.memory import MemoryBus
from openvibe.bus.nats import NatsBus
from tests import servers
from tests.contracts.buses import Heard, eventually

MANY = MOST_WAITING + 2_000


@pytest.mark.timeout(120)
async def test_a_watcher_that_is_held_up_misses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with servers.nats() as server:
        bus = NatsBus(server.url)
        await bus.connect()
        await bus.put_kv("crowd", "first", b"0")
        for number in range(MANY):
            await bus.publish(f"$KV.crowd.key-{number}", b"1")
        last = await bus.put_kv("crowd", "last", b"2")
        assert last == MANY + 2
        heard: set[str] = set()
        done = asyncio.Event()

        async def hear(entry: Entry) -> None:
            if not heard:
                # As one that waits for a database, while the bucket is read on.
                await read_on(bus)
            heard.add(entry.key)
            if entry.key == "last" or len(heard) == MANY + 2:
                done.set()

        await bus.watch_kv("crowd", hear)
        async with asyncio.timeout(60):
            await done.wait()
        await bus.close()
    assert len(heard) == MANY + 2
    assert "dropped" not in caplog.text


async def read_on(bus: NatsBus) -> None:
    """Return when the watcher has read everything, or reads no further."""
    left = [-1]
    while len(left) < 3 or not left[-1] == left[-2] == left[-3]:
        [reader] = await bus._stream.consumers_info("KV_crowd")
        left.append(reader.num_pending or 0)
        await asyncio.sleep(0.3)


@pytest.mark.parametrize("kind", ["memory", pytest.param("redis", marks=pytest.mark.redis)])
@pytest.mark.timeout(120)
async def test_a_watcher_that_is_held_up_hears_the_last_revision_of_each_key(bus: Bus, name: str) -> None:
    heard: dict[str, int] = {}
    go_on = asyncio.Event()

    async def hear(entry: Entry) -> None:
        await go_on.wait()
        heard[entry.key] = int(entry.value)

    await bus.watch_kv(name, hear)
    for start in range(0, MANY, 500):
        numbers = range(start, min(start + 500, MANY))
        await asyncio.gather(*[bus.put_kv(name, f"key-{number % 1000}", str(number).encode()) for number in numbers])
    await bus.put_kv(name, "last", b"0")
    written = {entry: int(await bus.get_kv(name, entry) or b"") for entry in await bus.keys_kv(name)}
    go_on.set()

    await eventually(lambda: "last" in heard)
    assert heard == written


async def test_what_a_slow_subscriber_does_not_hear_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    bus, heard, go_on = MemoryBus(), Heard(), asyncio.Event()
    await bus.connect()

    async def hear(message: Message) -> None:
        await go_on.wait()
        await heard(message)

    await bus.subscribe("crowd", hear)
    for _ in range(MANY):
        await bus.publish("crowd", b"")
    go_on.set()
    await eventually(lambda: len(heard) == MOST_WAITING + 1)
    await eventually(lambda: f"crowd: {MANY - len(heard)} messages were dropped" in caplog.text)
    assert caplog.text.count("crowd") == 2
