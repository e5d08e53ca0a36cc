"""What the contracts of the buses share: making them, hearing, and waiting with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import pytest

from openvibe.bus import Bus, Entry, Message, Pull, adapted, bus
from openvibe.errors import BusError
from openvibe.protocol.streams import STREAMS
from tests.contracts.plain import PlainBus

T = TypeVar("T")

#: How long anything may take, and how long nothing must happen before it counts as nothing.
SOON = 10.0
QUIET = 0.2
#: The buses inside this process, with one connection only.
LOCAL = ["memory", "adapted"]
#: The buses over a server.
NAMES = ["nats", pytest.param("redis", marks=pytest.mark.redis)]


def made(kind: str, request: pytest.FixtureRequest, **options: Any) -> Bus:
    """Make a bus to the server that all tests share."""
    if kind == "adapted":
        return adapted(PlainBus(request, **options))
    url = {} if kind == "memory" else {"url": request.getfixturevalue(f"{kind}_url")}
    return bus(kind, **url, **options)


class _Heard(list[T], Generic[T]):
    async def __call__(self, said: T) -> None:
        self.append(said)


class Heard(_Heard[Message]):
    """A handler that keeps what it is given."""

    @property
    def subjects(self) -> list[str]:
        return [message.subject for message in self]


class Seen(_Heard[Entry]):
    """A watcher that keeps what it is told."""

    @property
    def changes(self) -> list[tuple[str, bytes | None]]:
        return [(entry.key, None if entry.deleted else entry.value) for entry in self]


async def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, "this did not become true in time"
        await asyncio.sleep(0.005)


async def fetched(pull: Pull, wanted: int, *, most: int = 100) -> list[Message]:
    found: list[Message] = []
    deadline = time.monotonic() + SOON
    while len(found) < wanted:
        assert time.monotonic() < deadline, f"only {len(found)} of {wanted} messages came"
        found += await pull.fetch(min(most, wanted - len(found)), timeout=1)
    return found


async def acknowledged(messages: Sequence[Message]) -> list[bytes]:
    for message in messages:
        await message.acknowledge()
    return [message.data for message in messages]


async def answers(message: Message) -> bytes:
    """Answer with what was asked."""
    return message.data


async def refusals(bus: Bus) -> list[str]:
    """Try everything that needs a connection; return the names of what did not raise `BusError`."""
    acts = {
        "publish": lambda: bus.publish("x.a", b""),
        "store": lambda: bus.store("x.a", b""),
        "store_all": lambda: bus.store_all([Message("x.a", b"")]),
        "subscribe": lambda: bus.subscribe("x.a", Heard()),
        "ensure": lambda: bus.ensure(STREAMS),
        "pull": lambda: bus.pull("operators", durable="d", patterns=["operators.*.events.>"]),
        "request": lambda: bus.request("x.a", b"", timeout=SOON),
        "serve": lambda: bus.serve("x.a", answers),
        "serve_service": lambda: bus.serve_service("x", version="1.0.0", endpoints={"x.a": answers}),
        "put_kv": lambda: bus.put_kv("x", "key", b""),
        "get_kv": lambda: bus.get_kv("x", "key"),
        "entry_kv": lambda: bus.entry_kv("x", "key"),
        "delete_kv": lambda: bus.delete_kv("x", "key"),
        "keys_kv": lambda: bus.keys_kv("x"),
        "history_kv": lambda: bus.history_kv("x", "key"),
        "watch_kv": lambda: bus.watch_kv("x", Seen()),
    }
    passed = []
    for name, act in acts.items():
        try:
            await act()
        except BusError:
            continue
        passed.append(name)
    return passed
