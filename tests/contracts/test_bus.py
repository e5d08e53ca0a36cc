# long: one contract, the same for every bus, read from top to bottom
"""What a bus promises, on the double and on a real nats-server alike."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta

import pytest

from openvibe.bus import MOST_BYTES, Bus, Message, Pull, matches
from openvibe.bus.memory import MemoryBus
from openvibe.bus.nats import CONNECT_TIMEOUT, NatsBus
from openvibe.errors import BusError
from openvibe.protocol.streams import STREAMS, Stream
from tests import servers
from tests.servers import Server

#: How long anything here may take, and how long nothing must happen before it counts as nothing.
SOON = 10.0
QUIET = 0.2


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    with servers.nats() as server:
        yield server.url


@pytest.fixture(params=["memory", "nats"])
def fresh(request: pytest.FixtureRequest) -> Bus:
    """A bus that nobody has connected."""
    return MemoryBus() if request.param == "memory" else NatsBus(request.getfixturevalue("nats_url"))


@pytest.fixture
async def bus(fresh: Bus) -> AsyncIterator[Bus]:
    await fresh.connect()
    yield fresh
    await fresh.close()


@pytest.fixture
def name() -> str:
    """A first token that no other test uses, because they share a server."""
    return f"x{secrets.token_hex(6)}"


@pytest.fixture
async def stream(bus: Bus, name: str) -> str:
    await bus.ensure([Stream(name, (f"{name}.>",), timedelta(hours=1))])
    return name


class Heard(list[Message]):
    """A handler that keeps what it is given."""

    async def __call__(self, message: Message) -> None:
        self.append(message)

    @property
    def subjects(self) -> list[str]:
        return [message.subject for message in self]


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


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.b", "a", False),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("*.*", "a.b", True),
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.d", False),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c.d", True),
        ("a.>", "a", False),
        ("a.*.>", "a.b", False),
        ("a.*.>", "a.b.c", True),
        (">", "a", True),
        (">", "a.b", True),
        ("a.b", "A.b", False),
        ("a*.b", "ab.b", False),
    ],
)
def test_a_pattern_matches_by_the_rules_of_nats(pattern: str, subject: str, fits: bool) -> None:
    assert matches(pattern, subject) is fits


async def test_a_pattern_matches_on_the_bus_as_in_the_table(bus: Bus, name: str) -> None:
    patterns = [f"{name}.a.b", f"{name}.*.b", f"{name}.a.>", f"{name}.>", f"{name}.*", f"{name}.a.*.c"]
    subjects = [f"{name}.{rest}" for rest in ("a", "a.b", "a.c", "b.b", "a.b.c", "a.b.c.d")]
    heard = {pattern: Heard() for pattern in patterns}
    for pattern, handler in heard.items():
        await bus.subscribe(pattern, handler)
    for subject in subjects:
        await bus.publish(subject, b"")
    expected = {pattern: [subject for subject in subjects if matches(pattern, subject)] for pattern in patterns}
    await eventually(lambda: {pattern: handler.subjects for pattern, handler in heard.items()} == expected)


async def test_publishing_reaches_every_subscriber_that_fits_and_no_other(bus: Bus, name: str) -> None:
    one, two, other = Heard(), Heard(), Heard()
    await bus.subscribe(f"{name}.said", one)
    await bus.subscribe(f"{name}.*", two)
    await bus.subscribe(f"{name}.unsaid", other)
    await bus.publish(f"{name}.said", b"hello")
    await eventually(lambda: one and two)
    assert ([one[0].data, two[0].data], other) == ([b"hello", b"hello"], [])


async def test_publishing_to_nobody_is_no_error(bus: Bus, name: str) -> None:
    await bus.publish(f"{name}.unheard", b"")


async def test_a_subscriber_hears_in_the_order_of_publishing(bus: Bus, name: str) -> None:
    heard = Heard()
    await bus.subscribe(f"{name}.>", heard)
    for number in range(200):
        await bus.publish(f"{name}.{number % 3}", str(number).encode())
    await eventually(lambda: len(heard) == 200)
    assert [int(message.data) for message in heard] == list(range(200))


async def test_headers_arrive(bus: Bus, name: str) -> None:
    heard = Heard()
    await bus.subscribe(name, heard)
    await bus.publish(name, b"", headers={"traceparent": "00-ab", "CG-Sender": "alice"})
    await bus.publish(name, b"")
    await eventually(lambda: len(heard) == 2)
    assert (heard[0].headers, heard[1].headers) == ({"traceparent": "00-ab", "CG-Sender": "alice"}, {})


async def test_any_bytes_arrive(bus: Bus, name: str) -> None:
    heard = Heard()
    await bus.subscribe(name, heard)
    bodies = [b"", bytes(range(256)), b"\r\nPUB x 1\r\n", b"x" * (MOST_BYTES - 1024)]
    for body in bodies:
        await bus.publish(name, body)
    await eventually(lambda: len(heard) == len(bodies))
    assert [message.data for message in heard] == bodies


async def test_an_unsubscribed_handler_hears_no_more(bus: Bus, name: str) -> None:
    gone, still = Heard(), Heard()
    unsubscribe = await bus.subscribe(name, gone)
    await bus.subscribe(name, still)
    await bus.publish(name, b"1")
    await eventually(lambda: gone and still)
    await unsubscribe()
    await bus.publish(name, b"2")
    await eventually(lambda: len(still) == 2)
    assert len(gone) == 1


async def test_unsubscribing_twice_is_harmless(bus: Bus, name: str) -> None:
    unsubscribe = await bus.subscribe(name, Heard())
    await unsubscribe()
    await unsubscribe()


async def test_a_message_too_large_is_refused_and_the_next_one_passes(bus: Bus, name: str) -> None:
    heard = Heard()
    await bus.subscribe(name, heard)
    with pytest.raises(BusError):
        await bus.publish(name, b"x" * (MOST_BYTES + 1))
    await bus.publish(name, b"small")
    await eventually(lambda: heard)
    assert [message.data for message in heard] == [b"small"]


async def test_storing_needs_a_stream(bus: Bus, name: str) -> None:
    with pytest.raises(BusError, match=name):
        await bus.store(f"{name}.nowhere", b"")


async def test_a_stored_message_is_heard_by_subscribers_too(bus: Bus, stream: str) -> None:
    heard = Heard()
    await bus.subscribe(f"{stream}.>", heard)
    await bus.store(f"{stream}.a", b"both")
    await eventually(lambda: heard)
    assert heard[0].data == b"both"


async def test_a_stream_keeps_published_messages_too(bus: Bus, stream: str) -> None:
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    await bus.publish(f"{stream}.a", b"core")
    assert [message.data for message in await fetched(pull, 1)] == [b"core"]


async def test_ensuring_twice_is_harmless_and_keeps_what_is_stored(bus: Bus, stream: str) -> None:
    await bus.store(f"{stream}.a", b"kept")
    await bus.ensure([Stream(stream, (f"{stream}.>",), timedelta(hours=1))])
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    assert [message.data for message in await fetched(pull, 1)] == [b"kept"]


async def test_the_streams_of_the_house_can_be_made_and_made_again(bus: Bus) -> None:
    await bus.ensure(STREAMS)
    await bus.ensure(STREAMS)
    for subject in ("cg.v1.default.public.evt.agent.x.step", "operators.x.events.done", "workflow.general.status"):
        await bus.store(subject, b"{}")


async def test_a_repeated_message_id_is_kept_once(bus: Bus, stream: str) -> None:
    for body, message_id in ((b"1", "a"), (b"2", "b"), (b"1 again", "a")):
        await bus.store(f"{stream}.a", body, headers={"Nats-Msg-Id": message_id})
    await bus.store(f"{stream}.a", b"last")
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    assert await acknowledged(await fetched(pull, 3)) == [b"1", b"2", b"last"]
    assert await pull.fetch(1, timeout=QUIET) == []


async def test_messages_without_an_id_are_all_kept(bus: Bus, stream: str) -> None:
    for _ in range(3):
        await bus.store(f"{stream}.a", b"same")
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    assert await acknowledged(await fetched(pull, 3)) == [b"same"] * 3


async def test_a_new_reader_begins_at_the_beginning_and_in_order(bus: Bus, stream: str) -> None:
    for number in range(20):
        await bus.store(f"{stream}.{number % 2}", str(number).encode(), headers={"X-Number": str(number)})
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    found = await fetched(pull, 20, most=7)
    assert [int(message.data) for message in found] == list(range(20))
    assert [message.headers["X-Number"] for message in found] == [str(number) for number in range(20)]


async def test_a_reader_gets_only_what_fits_its_patterns(bus: Bus, stream: str) -> None:
    for subject in ("a.x", "b.x", "c.x", "a.y"):
        await bus.store(f"{stream}.{subject}", subject.encode())
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.a.>", f"{stream}.c.*"])
    assert await acknowledged(await fetched(pull, 3)) == [b"a.x", b"c.x", b"a.y"]
    assert await pull.fetch(1, timeout=QUIET) == []


async def test_a_reader_gets_at_most_what_it_asked_for(bus: Bus, stream: str) -> None:
    for _ in range(5):
        await bus.store(f"{stream}.a", b"")
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    assert len(await pull.fetch(2, timeout=1)) <= 2


async def test_a_reader_that_waits_gets_the_first_message_at_once(bus: Bus, stream: str) -> None:
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    waiting = asyncio.create_task(pull.fetch(100, timeout=30))
    await asyncio.sleep(QUIET)
    assert not waiting.done()
    await bus.store(f"{stream}.a", b"now")
    # Far less than the time that the reader is ready to wait for a hundred.
    async with asyncio.timeout(SOON):
        assert [message.data for message in await waiting] == [b"now"]


async def test_a_fetch_without_messages_ends_empty_after_its_time(bus: Bus, stream: str) -> None:
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    for most in (1, 10):
        began = time.monotonic()
        assert list(await pull.fetch(most, timeout=QUIET)) == []
        assert QUIET * 0.8 <= time.monotonic() - began < SOON


async def test_a_message_for_others_does_not_end_the_wait(bus: Bus, stream: str) -> None:
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.mine"])
    waiting = asyncio.create_task(pull.fetch(10, timeout=30))
    await bus.store(f"{stream}.theirs", b"")
    await asyncio.sleep(QUIET)
    assert not waiting.done()
    await bus.store(f"{stream}.mine", b"mine")
    async with asyncio.timeout(SOON):
        assert [message.data for message in await waiting] == [b"mine"]


async def test_the_position_of_a_durable_survives_its_reader(bus: Bus, stream: str) -> None:
    for number in range(4):
        await bus.store(f"{stream}.a", str(number).encode())
    first = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    assert await acknowledged(await fetched(first, 2)) == [b"0", b"1"]
    await first.close()
    second = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    assert await acknowledged(await fetched(second, 2)) == [b"2", b"3"]


async def test_two_durables_read_the_same_stream_each_from_its_beginning(bus: Bus, stream: str) -> None:
    await bus.store(f"{stream}.a", b"1")
    for durable in ("one", "two"):
        pull = await bus.pull(stream, durable=durable, patterns=[f"{stream}.>"])
        assert await acknowledged(await fetched(pull, 1)) == [b"1"]


async def test_two_readers_of_one_durable_share_its_messages(bus: Bus, stream: str) -> None:
    for number in range(20):
        await bus.store(f"{stream}.a", str(number).encode())
    one, two = [await bus.pull(stream, durable="d", patterns=[f"{stream}.>"]) for _ in range(2)]
    found = await acknowledged(await fetched(one, 5)) + await acknowledged(await fetched(two, 15))
    assert sorted(found, key=int) == [str(number).encode() for number in range(20)]
    for pull in (one, two):
        assert list(await pull.fetch(1, timeout=QUIET)) == []


async def test_a_refused_message_comes_again_and_an_acknowledged_one_does_not(bus: Bus, stream: str) -> None:
    for number in range(3):
        await bus.store(f"{stream}.a", str(number).encode(), headers={"X-Number": str(number)})
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    zero, one, two = await fetched(pull, 3)
    await zero.acknowledge()
    await one.refuse()
    await two.acknowledge()
    again = await fetched(pull, 1)
    assert [(message.subject, message.data, dict(message.headers)) for message in again] == [
        (f"{stream}.a", b"1", {"X-Number": "1"})
    ]
    await again[0].acknowledge()
    assert list(await pull.fetch(1, timeout=QUIET)) == []


async def test_refused_messages_come_again_in_order_and_before_newer_ones(bus: Bus, stream: str) -> None:
    for number in range(5):
        await bus.store(f"{stream}.a", str(number).encode())
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    for message in await fetched(pull, 5):
        await message.refuse()
    await bus.store(f"{stream}.a", b"5")
    assert await acknowledged(await fetched(pull, 6)) == [str(number).encode() for number in range(6)]


async def test_reading_a_stream_that_is_not_there_is_a_bus_error(bus: Bus, name: str) -> None:
    with pytest.raises(BusError, match=name):
        await bus.pull(name, durable="d", patterns=[f"{name}.>"])


async def test_a_value_is_kept_and_its_revision_rises(bus: Bus, name: str) -> None:
    first = await bus.put_kv(name, "key", b"one")
    second = await bus.put_kv(name, "key", b"two")
    assert second > first
    assert await bus.get_kv(name, "key") == b"two"


async def test_an_empty_value_is_a_value(bus: Bus, name: str) -> None:
    await bus.put_kv(name, "key", b"")
    assert await bus.get_kv(name, "key") == b""


async def test_a_value_that_was_never_kept_is_missing(bus: Bus, name: str) -> None:
    assert await bus.get_kv(name, "key") is None
    await bus.put_kv(name, "key", b"")
    assert await bus.get_kv(name, "other") is None
    assert await bus.get_kv(f"{name}-other", "key") is None


async def refusals(bus: Bus) -> list[str]:
    """Try everything that needs a connection; return the names of what did not raise `BusError`."""
    acts = {
        "publish": lambda: bus.publish("x.a", b""),
        "store": lambda: bus.store("x.a", b""),
        "subscribe": lambda: bus.subscribe("x.a", Heard()),
        "ensure": lambda: bus.ensure(STREAMS),
        "pull": lambda: bus.pull("operators", durable="d", patterns=["operators.*.events.>"]),
        "put_kv": lambda: bus.put_kv("x", "key", b""),
        "get_kv": lambda: bus.get_kv("x", "key"),
    }
    passed = []
    for name, act in acts.items():
        try:
            await act()
        except BusError:
            continue
        passed.append(name)
    return passed


async def test_everything_is_a_bus_error_before_connecting(fresh: Bus) -> None:
    assert not fresh.connected
    assert await refusals(fresh) == []


async def test_everything_is_a_bus_error_after_closing(bus: Bus) -> None:
    assert bus.connected
    assert not bus.closed
    await bus.close()
    assert not bus.connected
    assert bus.closed
    assert await refusals(bus) == []


async def test_closing_is_harmless_twice_and_unconnected(fresh: Bus) -> None:
    await fresh.close()
    await fresh.connect()
    await fresh.close()
    await fresh.close()


# What only a real server can do: go away, and send what the library does not expect


@pytest.fixture
def server() -> Iterator[Server]:
    with servers.nats() as server:
        yield server


@pytest.fixture
async def real(server: Server) -> AsyncIterator[NatsBus]:
    bus = NatsBus(server.url)
    await bus.connect()
    yield bus
    await bus.close()


async def test_subscriptions_and_readers_work_again_after_an_outage(real: NatsBus, server: Server) -> None:
    await real.ensure(STREAMS)
    heard = Heard()
    await real.subscribe("x.>", heard)
    pull = await real.pull("operators", durable="d", patterns=["operators.*.events.>"])
    await real.store("operators.a.events.x", b"before")
    server.stop()
    await eventually(lambda: not real.connected)
    server.start()
    await eventually(lambda: real.connected)
    await real.publish("x.a", b"after")
    await real.store("operators.a.events.x", b"after")
    await eventually(lambda: heard)
    assert heard[0].data == b"after"
    assert await acknowledged(await fetched(pull, 2)) == [b"before", b"after"]


async def test_during_an_outage_whatever_must_be_kept_is_refused_quickly(real: NatsBus, server: Server) -> None:
    await real.ensure(STREAMS)
    server.stop()
    await eventually(lambda: not real.connected)
    began = time.monotonic()
    assert set(await refusals(real)) <= {"publish", "subscribe"}
    assert time.monotonic() - began < 1


async def test_what_was_published_during_a_short_outage_arrives_after_it(real: NatsBus, server: Server) -> None:
    heard = Heard()
    await real.subscribe("x.a", heard)
    server.stop()
    await eventually(lambda: not real.connected)
    await real.publish("x.a", b"patience")
    server.start()
    await eventually(lambda: heard)
    assert heard[0].data == b"patience"


async def test_a_bus_can_be_closed_while_the_server_is_away(real: NatsBus, server: Server) -> None:
    await real.ensure(STREAMS)
    await real.subscribe("x.a", Heard())
    await real.pull("operators", durable="d", patterns=["operators.*.events.>"])
    server.stop()
    await eventually(lambda: not real.connected)
    await real.publish("x.a", b"lost")
    async with asyncio.timeout(SOON):
        await real.close()
    assert not real.connected


async def test_an_outage_does_not_close_a_bus_and_a_refusal_does(real: NatsBus, server: Server) -> None:
    server.stop()
    await eventually(lambda: not real.connected)
    assert not real.closed
    server.start()
    await eventually(lambda: real.connected)
    assert real._client is not None
    real._client._transport.write(b"NONSENSE\r\n")
    await eventually(lambda: real.closed)


async def test_a_server_that_is_killed_forgets_nothing_that_was_stored(real: NatsBus, server: Server) -> None:
    await real.ensure(STREAMS)
    for number in range(50):
        await real.store("operators.a.events.x", str(number).encode())
    server.kill()
    await eventually(lambda: not real.connected)
    server.start()
    await eventually(lambda: real.connected)
    pull = await real.pull("operators", durable="d", patterns=["operators.*.events.>"])
    assert [int(message.data) for message in await fetched(pull, 50)] == list(range(50))


async def test_connecting_to_nobody_is_a_bus_error_in_time() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        began = time.monotonic()
        with pytest.raises(BusError, match="does not answer"):
            await NatsBus(f"nats://name:secret@127.0.0.1:{nobody.getsockname()[1]}").connect()
        assert time.monotonic() - began < CONNECT_TIMEOUT + 2


async def test_connecting_to_somebody_silent_is_a_bus_error_in_time_that_tells_no_password() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(BusError) as caught:
            await NatsBus(f"nats://name:secret@127.0.0.1:{silent.getsockname()[1]}").connect()
        assert time.monotonic() - began < CONNECT_TIMEOUT + 2
        assert "secret" not in str(caught.value)


async def test_a_subject_that_is_no_text_stops_nobody(real: NatsBus, server: Server) -> None:
    await real.ensure(STREAMS)
    heard = Heard()
    await real.subscribe("operators.>", heard)
    pull = await real.pull("operators", durable="d", patterns=["operators.*.events.>"])
    await send_raw(server, b"PUB operators.\xff.events.x 1\r\n1\r\n")
    await real.store("operators.a.events.x", b"2")
    await eventually(lambda: len(heard) == 2)
    assert heard.subjects == ["operators.\N{REPLACEMENT CHARACTER}.events.x", "operators.a.events.x"]
    assert await acknowledged(await fetched(pull, 2)) == [b"1", b"2"]
    assert list(await pull.fetch(1, timeout=QUIET)) == []


async def send_raw(server: Server, frame: bytes) -> None:
    """Send what no client library would."""
    host, _, port = server.url.removeprefix("nats://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n' + frame + b"PING\r\n")
    async with asyncio.timeout(SOON):
        while not (await reader.readline()).startswith(b"PONG"):
            pass
    writer.close()
    await writer.wait_closed()


async def test_whoever_has_subscribed_misses_nothing_that_another_connection_says_next(nats_url: str) -> None:
    listening, speaking = NatsBus(nats_url), NatsBus(nats_url)
    for bus in (listening, speaking):
        await bus.connect()
    heard = Heard()
    for number in range(100):
        await listening.subscribe(f"next.{number}", heard)
        await speaking.publish(f"next.{number}", b"at once")
        await speaking._live.flush()
    await eventually(lambda: len(heard) == 100)
    for bus in (listening, speaking):
        await bus.close()
