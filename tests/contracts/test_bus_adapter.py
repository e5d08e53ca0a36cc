"""A custom bus may be plain or async, and need not offer everything. The whole contract runs on a plain one besides."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from openvibe.bus import Message, adapted
from openvibe.bus.memory import MemoryBus
from openvibe.errors import BusError, SetupError


class Pigeons:
    """The least that is a bus."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, Any]] = []

    def publish(self, subject: str, data: bytes, *, headers: Any = None) -> None:
        self.sent.append((subject, data, headers))


class Half(Pigeons):
    """Plain here, async there, and somewhere a plain function that returns something to be awaited."""

    async def get_kv(self, bucket: str, key: str) -> bytes:
        return f"{bucket}/{key}".encode()

    def put_kv(self, bucket: str, key: str, value: bytes, *, revision: int | None = None) -> Awaitable[int]:
        async def put() -> int:
            return len(value)

        return put()

    async def subscribe(self, pattern: str, handler: Any) -> Any:
        await handler(Message(pattern, b"at once"))


def test_a_name_is_made_and_a_bus_is_taken_as_it_is() -> None:
    assert isinstance(adapted("memory", ack_wait=1.0), MemoryBus)
    bus = MemoryBus()
    assert adapted(bus) is bus


async def test_the_least_bus_publishes_and_tells_what_it_lacks() -> None:
    pigeons = Pigeons()
    bus = adapted(pigeons)
    await bus.connect()
    await bus.publish("a.b", b"1", headers={"X": "y"})
    assert pigeons.sent == [("a.b", b"1", {"X": "y"})]
    with pytest.raises(BusError, match="Pigeons has no method 'get_kv'"):
        await bus.get_kv("a", "b")
    assert bus.connected
    assert not bus.closed
    await bus.close()
    assert not bus.connected
    assert bus.closed


async def test_what_cannot_store_messages_together_stores_one_after_the_other() -> None:
    class Loft(Pigeons):
        def store(self, subject: str, data: bytes, *, headers: Any = None) -> None:
            if not data:
                raise BusError("an empty letter")
            self.sent.append((subject, data, headers))

    loft = Loft()
    faults = await adapted(loft).store_all([Message("a", b""), Message("b", b"1")])
    assert [str(fault or "") for fault in faults] == ["an empty letter", ""]
    assert loft.sent == [("b", b"1", {})]


async def test_a_bus_may_be_half_plain_and_half_async() -> None:
    bus, heard = adapted(Half()), []

    async def hear(message: Message) -> None:
        heard.append(message.data)

    assert await bus.get_kv("a", "b") == b"a/b"
    assert await bus.put_kv("a", "b", b"four") == 4
    end = await bus.subscribe("x", hear)
    await end()
    assert heard == [b"at once"]


async def test_what_a_plain_function_raises_arrives() -> None:
    class Broken(Pigeons):
        def publish(self, subject: str, data: bytes, *, headers: Any = None) -> None:
            raise BusError("no pigeon")

    with pytest.raises(BusError, match="no pigeon"):
        await adapted(Broken()).publish("a", b"")


@pytest.mark.parametrize("thing", [None, 5, object()])
def test_what_is_no_bus_is_a_setup_error(thing: object) -> None:
    with pytest.raises(SetupError, match="publish"):
        adapted(thing)
