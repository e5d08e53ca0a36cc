# long: one contract, the same for every bus, read from top to bottom
"""What a bus promises about messages and streams, on the double and on real servers alike."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from openvibe.bus import MOST_BYTES, Bus, Message, matches
from openvibe.bus import bus as a_bus
from openvibe.bus.memory import MemoryBus
from openvibe.errors import BusError, SetupError
from openvibe.protocol.streams import STREAMS, Stream
from tests.contracts.buses import LOCAL, QUIET, SOON, Heard, acknowledged, eventually, fetched, made, refusals


@pytest.fixture
async def stream(bus: Bus, name: str) -> str:
    await bus.ensure([Stream(name, (f"{name}.>",), timedelta(hours=1))])
    return name


@pytest.fixture
async def hasty(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    """A bus that delivers again soon, and forgets message ids soon."""
    hasty = made(kind, request, ack_wait=0.5, duplicate_window=0.5)
    await hasty.connect()
    yield hasty
    await hasty.close()


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


async def test_a_handler_that_fails_ends_nothing_and_harms_nobody(
    bus: Bus, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    async def fail_once(message: Message) -> None:
        await heard(message)
        if len(heard) == 1:
            raise RuntimeError("the handler's own fault")

    await bus.subscribe(name, fail_once)
    with caplog.at_level(logging.INFO):
        await bus.publish(name, b"1")
        await bus.publish(name, b"2")
        await eventually(lambda: len(heard) == 2)
    assert "the handler's own fault" in caplog.text


async def test_a_slow_subscriber_holds_up_nobody_and_misses_nothing(bus: Bus, name: str) -> None:
    slow, quick, go_on = Heard(), Heard(), asyncio.Event()

    async def wait(message: Message) -> None:
        await go_on.wait()
        await slow(message)

    await bus.subscribe(name, wait)
    await bus.subscribe(name, quick)
    async with asyncio.timeout(SOON):
        for number in range(500):
            await bus.publish(name, str(number).encode())
    await eventually(lambda: len(quick) == 500)
    assert slow == []
    go_on.set()
    await eventually(lambda: len(slow) == 500)
    assert [int(message.data) for message in slow] == list(range(500))


async def test_a_handler_may_publish_to_its_own_subject(bus: Bus, name: str) -> None:
    heard = Heard()

    async def count_down(message: Message) -> None:
        await heard(message)
        if number := int(message.data):
            await bus.publish(name, str(number - 1).encode())

    await bus.subscribe(name, count_down)
    await bus.publish(name, b"3")
    await eventually(lambda: len(heard) == 4)


async def test_whoever_has_subscribed_misses_nothing_that_another_connection_says_next(
    bus: Bus, other: Bus, name: str
) -> None:
    heard = Heard()
    for number in range(100):
        await bus.subscribe(f"{name}.{number}", heard)
        await bus.subscribe(f"{name}.*.{number}", heard)
        await other.publish(f"{name}.{number}", b"at once")
        await other.publish(f"{name}.x.{number}", b"at once")
    await eventually(lambda: len(heard) == 200)


async def test_signs_that_a_server_reads_as_patterns_mean_themselves(bus: Bus, name: str) -> None:
    heard, wild = Heard(), Heard()
    await bus.subscribe(f"{name}.[ab]?.*", wild)
    await bus.subscribe(f"{name}.a-%d^", heard)
    for subject in ("ab.x", "[ab]?.x", "a-%d^", "a-5^", "b"):
        await bus.publish(f"{name}.{subject}", b"")
    await eventually(lambda: heard and wild)
    assert (heard.subjects, wild.subjects) == ([f"{name}.a-%d^"], [f"{name}.[ab]?.x"])


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


async def test_messages_that_are_stored_together_are_kept_in_order(bus: Bus, stream: str) -> None:
    messages = [Message(f"{stream}.{number % 3}", str(number).encode(), {"A": "b"}) for number in range(200)]
    assert list(await bus.store_all(messages)) == [None] * 200
    assert list(await bus.store_all([])) == []
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    found = await fetched(pull, 200)
    assert [(one.subject, one.data, one.headers) for one in found] == [
        (one.subject, one.data, one.headers) for one in messages
    ]


async def test_of_messages_that_are_stored_together_each_has_its_own_fate(bus: Bus, stream: str) -> None:
    large = b"x" * (MOST_BYTES + 1)
    faults = await bus.store_all(
        [
            Message(f"{stream}.a", b"1", {"Nats-Msg-Id": "1"}),
            Message(f"un{stream}.a", b"2"),
            Message(f"{stream}.a", large),
            Message(f"{stream}.a", b"1 again", {"Nats-Msg-Id": "1"}),
            Message(f"{stream}.a", b"last"),
        ]
    )
    assert [fault is None for fault in faults] == [True, False, False, True, True]
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    assert await acknowledged(await fetched(pull, 2)) == [b"1", b"last"]


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


async def test_a_message_that_is_refused_for_a_while_comes_again_after_it_and_holds_up_no_other(
    bus: Bus, stream: str
) -> None:
    for number in range(3):
        await bus.store(f"{stream}.a", str(number).encode())
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    [first] = await fetched(pull, 1)
    refused_at = time.monotonic()
    await first.refuse(1.0)
    assert await acknowledged(await fetched(pull, 2)) == [b"1", b"2"]
    assert await acknowledged(await fetched(pull, 1)) == [b"0"]
    assert 0.9 < time.monotonic() - refused_at < 10


@pytest.mark.parametrize("pattern", ["a.b", "*.b", "a.>", ">", "*", "a.*.c", "[ab]-%w.*"])
async def test_a_stream_keeps_what_fits_by_the_rules_of_nats(bus: Bus, name: str, pattern: str) -> None:
    subjects = ["a", "a.b", "b.b", "a.b.c", "a.b.c.d", "[ab]-%w.x", "a-x.x"]
    await bus.ensure([Stream(name, (f"{name}.{pattern}",), timedelta(hours=1))])
    for subject in subjects:
        await bus.publish(f"{name}.{subject}", b"")
    wanted = [f"{name}.{subject}" for subject in subjects if matches(pattern, subject)]
    pull = await bus.pull(name, durable="d", patterns=[f"{name}.>"])
    assert [message.subject for message in await fetched(pull, len(wanted))] == wanted
    assert list(await pull.fetch(1, timeout=QUIET)) == []


async def test_two_streams_may_not_matter_to_each_other(bus: Bus, name: str) -> None:
    for part in ("one", "two"):
        await bus.ensure([Stream(f"{name}-{part}", (f"{name}.{part}.>",), timedelta(hours=1))])
        await bus.store(f"{name}.{part}.a", part.encode(), headers={"Nats-Msg-Id": "the same"})
    for part in ("one", "two"):
        pull = await bus.pull(f"{name}-{part}", durable="d", patterns=[f"{name}.>"])
        assert await acknowledged(await fetched(pull, 1)) == [part.encode()]


async def test_a_stream_forgets_the_oldest_when_it_is_full(bus: Bus, name: str) -> None:
    await bus.ensure([Stream(name, (f"{name}.>",), timedelta(hours=1), max_bytes=100_000)])
    for number in range(400):
        await bus.store(f"{name}.a", str(number).encode().rjust(1000))
    pull = await bus.pull(name, durable="d", patterns=[f"{name}.>"])
    found = [int(message.data) for message in await pull.fetch(500, timeout=1)]
    assert found == list(range(found[0], 400))
    assert 10 <= len(found) <= 200


async def test_a_stream_forgets_what_is_too_old(bus: Bus, name: str) -> None:
    await bus.ensure([Stream(name, (f"{name}.>",), timedelta(seconds=1))])
    await bus.store(f"{name}.a", b"old")
    deadline = time.monotonic() + SOON
    for number in range(1000):
        # Something new must come, because not every server looks at its clock otherwise.
        await bus.store(f"{name}.a", b"new")
        pull = await bus.pull(name, durable=f"d{number}", patterns=[f"{name}.>"])
        first = await fetched(pull, 1, most=1)
        if first[0].data == b"new":
            return
        assert time.monotonic() < deadline, "the old message stayed"
        await asyncio.sleep(0.1)


async def test_a_stream_tells_since_when_it_has_kept_everything(bus: Bus, kind: str, name: str) -> None:
    await bus.ensure([Stream(name, (f"{name}.>",), timedelta(hours=1), max_bytes=100_000)])
    pull = await bus.pull(name, durable="d", patterns=[f"{name}.>"])
    told = [await pull.kept_since()]
    for number in (1, 2, 200):
        for _ in range(number):
            await bus.store(f"{name}.a", bytes(1000))
        told.append(await pull.kept_since())
    if kind in LOCAL:
        # What lives in one process knows nothing of what others have said.
        assert told == [None] * 4
        return
    empty, first, same, pushed_out = (moment for moment in told if moment)
    assert empty <= first == same < pushed_out <= datetime.now(UTC)


async def test_a_message_id_is_forgotten_after_its_window(hasty: Bus, name: str) -> None:
    await hasty.ensure([Stream(name, (f"{name}.>",), timedelta(hours=1))])
    pull = await hasty.pull(name, durable="d", patterns=[f"{name}.>"])
    found: list[bytes] = []
    deadline = time.monotonic() + SOON
    while len(found) < 2:
        assert time.monotonic() < deadline, "the id was not forgotten"
        await hasty.store(f"{name}.a", b"again", headers={"Nats-Msg-Id": "a"})
        found += await acknowledged(await pull.fetch(10, timeout=0.1))


async def test_what_nobody_acknowledges_comes_again_and_tells_how_often(hasty: Bus, name: str) -> None:
    await hasty.ensure([Stream(name, (f"{name}.>",), timedelta(hours=1))])
    for body in (b"kept waiting", b"acknowledged"):
        await hasty.store(f"{name}.a", body, headers={"X-A": "1"})
    pull = await hasty.pull(name, durable="d", patterns=[f"{name}.>"])
    waiting, done = await fetched(pull, 2)
    await done.acknowledge()
    assert (waiting.deliveries, done.deliveries) == (1, 1)
    again = await fetched(pull, 1)
    assert [(message.data, message.headers, message.deliveries) for message in again] == [
        (b"kept waiting", {"X-A": "1"}, 2)
    ]
    # It is told from every other one by its place, however often it comes.
    assert again[0].position == waiting.position not in ("", done.position)
    await again[0].acknowledge()
    assert list(await pull.fetch(1, timeout=1)) == []


async def test_what_one_reader_leaves_behind_another_one_gets(hasty: Bus, name: str) -> None:
    await hasty.ensure([Stream(name, (f"{name}.>",), timedelta(hours=1))])
    await hasty.store(f"{name}.a", b"1")
    dying = await hasty.pull(name, durable="d", patterns=[f"{name}.>"])
    assert len(await fetched(dying, 1)) == 1
    await dying.close()
    heir = await hasty.pull(name, durable="d", patterns=[f"{name}.>"])
    assert await acknowledged(await fetched(heir, 1)) == [b"1"]


async def test_a_reader_that_is_given_up_can_be_opened_again(hasty: Bus, name: str) -> None:
    await hasty.ensure([Stream(name, (f"{name}.>",), timedelta(hours=1))])
    pull = await hasty.pull(name, durable="d", patterns=[f"{name}.>"])
    waiting = asyncio.create_task(pull.fetch(1, timeout=30))
    await asyncio.sleep(QUIET)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await pull.close()
    await hasty.store(f"{name}.a", b"1")
    again = await hasty.pull(name, durable="d", patterns=[f"{name}.>"])
    assert await acknowledged(await fetched(again, 1)) == [b"1"]


async def test_many_messages_can_be_acknowledged_at_once(bus: Bus, stream: str) -> None:
    await asyncio.gather(*[bus.store(f"{stream}.a", b"") for _ in range(300)])
    pull = await bus.pull(stream, durable="d", patterns=[f"{stream}.>"])
    await asyncio.gather(*[message.acknowledge() for message in await fetched(pull, 300, most=300)])
    assert list(await pull.fetch(1, timeout=QUIET)) == []


async def test_reading_a_stream_that_is_not_there_is_a_bus_error(bus: Bus, name: str) -> None:
    with pytest.raises(BusError, match=name):
        await bus.pull(name, durable="d", patterns=[f"{name}.>"])


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


# Making one by its name


def test_a_bus_is_made_by_its_name() -> None:
    assert isinstance(a_bus("memory"), MemoryBus)


def test_an_unknown_bus_is_a_setup_error_that_tells_the_known_ones() -> None:
    with pytest.raises(SetupError, match=r"'pigeon'.*memory, nats, redis"):
        a_bus("pigeon")


@pytest.mark.parametrize("name", ["memory", "nats", "redis"])
def test_an_unknown_option_is_a_setup_error(name: str) -> None:
    with pytest.raises(SetupError, match="feathers"):
        a_bus(name, feathers=True)


@pytest.mark.parametrize("name", ["nats", "redis"])
def test_a_missing_package_is_a_setup_error_that_names_the_extra(name: str) -> None:
    code = f"""
import sys
sys.modules[{name!r}] = None
from openvibe.bus import bus
from openvibe.errors import SetupError
bus("memory")
try:
    bus({name!r})
except SetupError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert f"pip install openvibe[{name}]" in done.stdout
