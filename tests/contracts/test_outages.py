"""What a bus over a server promises when the server goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from openvibe.bus import Bus, Message, bus
from openvibe.bus.nats import NatsBus
from openvibe.errors import BusError, NoResponders
from openvibe.protocol.streams import STREAMS, Stream, streams
from tests import servers
from tests.contracts.buses import NAMES, QUIET, SOON, Heard, Seen, acknowledged, answers, eventually, fetched, refusals
from tests.servers import Server

#: How long a bus may take to find that nobody answers, in seconds.
CONNECT_TIMEOUT = 5.0


@pytest.fixture(params=NAMES)
def named(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(named: str) -> Iterator[Server]:
    with servers.nats() if named == "nats" else servers.redis(durable=True) as server:
        yield server


@pytest.fixture
async def real(named: str, server: Server) -> AsyncIterator[Bus]:
    made = bus(named, url=server.url)
    await made.connect()
    yield made
    await made.close()


only_nats = pytest.mark.parametrize("named", ["nats"])


async def test_subscriptions_and_readers_work_again_after_an_outage(real: Bus, server: Server) -> None:
    await real.ensure(STREAMS)
    heard = Heard()
    await real.subscribe("x.>", heard)
    await real.subscribe("x.a", heard)
    pull = await real.pull("operators", durable="d", patterns=["operators.*.events.>"])
    await real.store("operators.a.events.x", b"before")
    server.stop()
    await eventually(lambda: not real.connected)
    server.start()
    await eventually(lambda: real.connected)
    await real.publish("x.a", b"after")
    await real.store("operators.a.events.x", b"after")
    await eventually(lambda: heard)
    await eventually(lambda: [message.data for message in heard] == [b"after"] * 2)
    assert await acknowledged(await fetched(pull, 2)) == [b"before", b"after"]


async def test_during_an_outage_whatever_must_be_kept_is_refused_quickly(real: Bus, server: Server) -> None:
    await real.ensure(STREAMS)
    server.stop()
    await eventually(lambda: not real.connected)
    began = time.monotonic()
    assert set(await refusals(real)) <= {"publish", "subscribe", "serve"}
    assert time.monotonic() - began < 1


@only_nats
async def test_what_was_published_during_a_short_outage_arrives_after_it(real: Bus, server: Server) -> None:
    heard = Heard()
    await real.subscribe("x.a", heard)
    server.stop()
    await eventually(lambda: not real.connected)
    await real.publish("x.a", b"patience")
    server.start()
    await eventually(lambda: heard)
    assert heard[0].data == b"patience"


async def test_a_bus_can_be_closed_while_the_server_is_away(real: Bus, server: Server) -> None:
    await real.ensure(STREAMS)
    await real.subscribe("x.a", Heard())
    await real.pull("operators", durable="d", patterns=["operators.*.events.>"])
    server.stop()
    await eventually(lambda: not real.connected)
    with contextlib.suppress(BusError):
        await real.publish("x.a", b"lost")
    async with asyncio.timeout(SOON):
        await real.close()
    assert not real.connected


async def test_an_outage_does_not_close_a_bus(real: Bus, server: Server) -> None:
    server.stop()
    await eventually(lambda: not real.connected)
    assert not real.closed
    server.start()
    await eventually(lambda: real.connected)


@only_nats
async def test_a_refusal_by_the_server_closes_a_bus(real: NatsBus) -> None:
    assert real._client is not None
    real._client._transport.write(b"NONSENSE\r\n")
    await eventually(lambda: real.closed)


async def test_a_server_that_is_killed_forgets_nothing_that_was_stored(real: Bus, server: Server) -> None:
    await real.ensure(STREAMS)
    for number in range(50):
        await real.store("operators.a.events.x", str(number).encode())
    server.kill()
    await eventually(lambda: not real.connected)
    server.start()
    await eventually(lambda: real.connected)
    pull = await real.pull("operators", durable="d", patterns=["operators.*.events.>"])
    assert [int(message.data) for message in await fetched(pull, 50)] == list(range(50))


async def test_what_is_heard_and_served_for_the_first_time_during_an_outage_works_after_it(
    real: Bus, server: Server
) -> None:
    server.stop()
    await eventually(lambda: not real.connected)
    heard = Heard()
    await real.subscribe("x.a", heard)
    await real.subscribe("x.*", heard)
    server.start()
    await eventually(lambda: real.connected)
    await real.publish("x.a", b"after")
    await eventually(lambda: len(heard) == 2)


async def test_whoever_serves_is_found_again_after_an_outage(real: Bus, server: Server) -> None:
    await real.serve("x.a", answers, queue="q")
    await real.serve_service("x", version="1.0.0", endpoints={"x.b": answers})
    server.kill()
    await eventually(lambda: not real.connected)
    server.start()
    await eventually(lambda: real.connected)
    for subject in ("x.a", "x.b"):
        assert (await answered(real, subject)).data == b"x"


async def test_a_watcher_hears_after_an_outage_what_changed(named: str, real: Bus, server: Server) -> None:
    seen = Seen()
    await real.put_kv("x", "old", b"1")
    await real.watch_kv("x", seen)
    await eventually(lambda: seen)
    server.stop()
    await eventually(lambda: not real.connected)
    server.start()
    other = bus(named, url=server.url)
    await other.connect()
    await other.put_kv("x", "new", b"2")
    await other.delete_kv("x", "old")
    await eventually(lambda: len(seen) == 3)
    assert seen.changes == [("old", b"1"), ("new", b"2"), ("old", None)]
    await other.put_kv("x", "newer", b"3")
    await eventually(lambda: len(seen) == 4)
    await other.close()


async def test_values_survive_a_server_that_is_killed(real: Bus, server: Server) -> None:
    revision = await real.put_kv("x", "key", b"1")
    server.kill()
    await eventually(lambda: not real.connected)
    server.start()
    await eventually(lambda: real.connected)
    assert await real.put_kv("x", "key", b"2", revision=revision) > revision
    assert [entry.value for entry in await real.history_kv("x", "key")] == [b"1", b"2"]


@pytest.mark.parametrize("named", [NAMES[1]])
async def test_a_reader_of_a_redis_that_forgot_everything_is_told_and_begins_anew(real: Bus, named: str) -> None:
    with servers.redis() as forgetful:
        forgetting = bus(named, url=forgetful.url)
        await forgetting.connect()
        await forgetting.ensure(STREAMS)
        pull = await forgetting.pull("operators", durable="d", patterns=["operators.*.events.>"])
        forgetful.stop()
        await eventually(lambda: not forgetting.connected)
        forgetful.start()
        await eventually(lambda: forgetting.connected)
        with pytest.raises(BusError):
            await pull.fetch(1, timeout=QUIET)
        await forgetting.ensure(STREAMS)
        await forgetting.store("operators.a.events.x", b"1")
        pull = await forgetting.pull("operators", durable="d", patterns=["operators.*.events.>"])
        assert await acknowledged(await fetched(pull, 1)) == [b"1"]
        await forgetting.close()


async def answered(real: Bus, subject: str) -> Message:
    """Ask until somebody is found: whoever serves tells a server that has come back at its own pace."""
    deadline = time.monotonic() + SOON
    while True:
        try:
            return await real.request(subject, b"x", timeout=SOON)
        except NoResponders:
            assert time.monotonic() < deadline, "nobody serves"
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("named", ["nats", "redis"])
async def test_connecting_to_nobody_is_a_bus_error_in_time(named: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        began = time.monotonic()
        with pytest.raises(BusError, match="does not answer") as caught:
            await bus(named, url=f"{named}://name:secret@127.0.0.1:{nobody.getsockname()[1]}").connect()
        assert time.monotonic() - began < CONNECT_TIMEOUT
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("named", ["nats", "redis"])
async def test_connecting_to_somebody_silent_is_a_bus_error_in_time_that_tells_no_password(named: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(BusError) as caught:
            await bus(named, url=f"{named}://name:secret@127.0.0.1:{silent.getsockname()[1]}").connect()
        assert time.monotonic() - began < CONNECT_TIMEOUT
        assert "secret" not in str(caught.value)


async def test_a_server_that_falls_silent_is_noticed_and_heard_again(real: Bus, server: Server) -> None:
    heard = Heard()
    await real.subscribe("x.a", heard)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await eventually(lambda: not real.connected)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await eventually(lambda: real.connected)
    await real.publish("x.a", b"after")
    await eventually(lambda: heard)


@only_nats
async def test_a_subject_that_is_no_text_stops_nobody(real: Bus, server: Server) -> None:
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


@only_nats
@pytest.mark.parametrize("headers", [b"NATS/1.0", b"NATS/1.0\r\n", b"NATS/1.0\r\n\r\n", b"garbage", b"x"])
async def test_headers_that_are_none_stop_nobody(real: Bus, server: Server, headers: bytes) -> None:
    await real.ensure(STREAMS)
    heard = Heard()
    await real.subscribe("operators.>", heard)
    pull = await real.pull("operators", durable="d", patterns=["operators.*.events.>"])
    sizes = b"%d %d" % (len(headers), len(headers) + 1)
    await send_raw(server, b"HPUB operators.a.events.x " + sizes + b"\r\n" + headers + b"1\r\n")
    await real.store("operators.a.events.x", b"2")
    await eventually(lambda: len(heard) == 2)
    assert await acknowledged(await fetched(pull, 2)) == [b"1", b"2"]


@only_nats
@pytest.mark.parametrize("status", ["100", "404", "409", "503", "999", "no number"])
async def test_a_value_with_a_status_of_its_own_is_a_value(real: Bus, status: str) -> None:
    await real.put_kv("context-leads", "a", b"1")
    seen = Seen()
    await real.watch_kv("context-leads", seen)
    await eventually(lambda: seen)
    await real.publish("$KV.context-leads.b", b"2", headers={"Status": status})
    await eventually(lambda: len(seen) == 2)
    await real.put_kv("context-leads", "c", b"3")
    await eventually(lambda: len(seen) == 3)
    assert seen.changes == [("a", b"1"), ("b", b"2"), ("c", b"3")]
    assert await real.keys_kv("context-leads") == ["a", "b", "c"]


@only_nats
async def test_a_bucket_that_is_made_anew_is_heard_from_its_beginning(real: NatsBus) -> None:
    seen = Seen()
    await real.put_kv("context-leads", "a", b"old")
    await real.watch_kv("context-leads", seen)
    await eventually(lambda: seen)
    # By the time that anybody looks it has grown past what was heard of the old one.
    assert await real._stream.delete_key_value("context-leads")
    await real._stream.create_key_value(bucket="context-leads", history=16)
    for key in ("b", "c"):
        await real._live.publish(f"$KV.context-leads.{key}", b"new")
    await eventually(lambda: len(seen) == 3)
    assert seen.changes == [("a", b"old"), ("b", b"new"), ("c", b"new")]


@pytest.mark.parametrize("named", [pytest.param("redis", marks=pytest.mark.redis)])
async def test_what_others_say_on_a_shared_redis_stops_nobody(real: Bus, server: Server) -> None:
    await real.ensure(STREAMS)
    heard, seen = Heard(), Seen()
    await real.subscribe("operators.>", heard)
    await real.put_kv("context-leads", "a", b"1")
    await real.watch_kv("context-leads", seen)
    pull = await real.pull("operators", durable="d", patterns=["operators.*.events.>"])
    nest = b"[" * 100_000 + b"]" * 100_000
    other = Redis.from_url(server.url)
    for frame in (b"", nest, b'[{}, "", 5]', b"[1, 2, 3]"):
        await other.publish("openvibe:operators.a.events.x", frame)
        await other.publish("openvibe:kv:context-leads", frame)
        await other.xadd("openvibe:stream:operators", {"s": "operators.a.events.x", "f": frame})
    await other.publish("openvibe:kv:context-leads", b"k 1 " + b"9" * 40 + b" 0\n")
    await other.xadd("openvibe:stream:operators", {"neither": "nor"})
    await other.aclose()
    await real.store("operators.a.events.x", b"good")
    await real.put_kv("context-leads", "b", b"2")
    await eventually(lambda: heard and heard[-1].data == b"good" and len(seen) == 2)
    found: list[bytes] = []
    async with asyncio.timeout(SOON):
        while b"good" not in found:
            found += await acknowledged(list(await pull.fetch(10, timeout=1)))


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


@pytest.mark.parametrize("named", ["redis"])
async def test_a_stream_keeps_what_a_site_that_was_set_otherwise_wants_of_it(real: Bus) -> None:
    await real.ensure(streams(("workflow",)))
    await real.store("workflow.general.note", b"one")
    with pytest.raises(BusError, match="No stream keeps"):
        await real.store("argo.workflow.general.note", b"two")
    await real.ensure(streams(("workflow", "argo.workflow")))
    await real.store("argo.workflow.general.note", b"two")
    pull = await real.pull("agent-comms", durable="d", patterns=["workflow.>", "argo.workflow.>"])
    assert [message.data for message in await fetched(pull, 2)] == [b"one", b"two"]


@pytest.mark.parametrize("named", ["redis"])
async def test_a_stream_keeps_what_each_of_several_sites_wants_of_it_whoever_came_last(real: Bus) -> None:
    day = timedelta(days=1)
    await real.ensure([Stream("both", ("a.>", "b.>"), 7 * day, max_bytes=-1)])
    await real.ensure([Stream("both", ("b.>", "c.>"), timedelta(milliseconds=1), max_bytes=1)])
    for subject in ("a.1", "b.1", "c.1"):
        await real.store(subject, subject.encode())
    pull = await real.pull("both", durable="d", patterns=["a.>", "b.>", "c.>"])
    assert [message.data for message in await fetched(pull, 3)] == [b"a.1", b"b.1", b"c.1"]


async def test_a_server_that_speaks_otherwise_than_nats_is_none_that_answers() -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO []\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as babbler:
        place = f"127.0.0.1:{babbler.sockets[0].getsockname()[1]}"
        with pytest.raises(BusError, match=f"NATS does not answer at nats://{place}"):
            await NatsBus(f"nats://{place}").connect()
