"""Whoever follows a bucket of NATS KV slowly hears all of it, however much there is."""

from __future__ import annotations

import asyncio

import pytest

from openvibe.bus import Entry
from openvibe.bus.mailbox import MOST_WAITING
from openvibe.bus.nats import NatsBus
from tests import servers

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
    assert "a message is dropped" not in caplog.text


async def read_on(bus: NatsBus) -> None:
    """Return when the watcher has read everything, or reads no further."""
    left = [-1]
    while len(left) < 3 or not left[-1] == left[-2] == left[-3]:
        [reader] = await bus._stream.consumers_info("KV_crowd")
        left.append(reader.num_pending or 0)
        await asyncio.sleep(0.3)
