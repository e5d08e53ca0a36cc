"""What a bus promises about kept values, on the double and on real servers alike; and how keys are written."""

from __future__ import annotations

import asyncio
import re
import secrets
from datetime import UTC, datetime, timedelta

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openvibe.bus import HISTORY, MOST_BYTES, Bus, Entry
from openvibe.bus.nats import NatsBus
from openvibe.errors import BusError, RevisionConflict
from openvibe.protocol import keys
from tests.contracts.buses import QUIET, SOON, Seen, eventually

KEYS = ["key", "stripe/intel", "a b", "ü", "", ".", "a..b", ".a.", "a.b.c", "*", ">", "a=b", "=41", "\n", "\ud800"]


@pytest.mark.parametrize("key", KEYS)
async def test_any_text_is_a_key(bus: Bus, name: str, key: str) -> None:
    seen = Seen()
    await bus.watch_kv(name, seen)
    revision = await bus.put_kv(name, key, b"value")
    assert await bus.get_kv(name, key) == b"value"
    assert await bus.keys_kv(name) == [key]
    assert [entry.revision for entry in await bus.history_kv(name, key)] == [revision]
    await eventually(lambda: seen.changes == [(key, b"value")])


async def test_keys_that_look_alike_are_different(bus: Bus, name: str) -> None:
    for key in KEYS:
        await bus.put_kv(name, key, key.encode(errors="surrogatepass"))
    for key in KEYS:
        assert await bus.get_kv(name, key) == key.encode(errors="surrogatepass")


async def test_a_value_is_kept_and_its_revision_rises(bus: Bus, name: str) -> None:
    first = await bus.put_kv(name, "key", b"one")
    second = await bus.put_kv(name, "key", b"two")
    assert second > first > 0
    assert await bus.get_kv(name, "key") == b"two"


@pytest.mark.parametrize("value", [b"", bytes(range(256)), b"\n1 2 3\n", b"x" * (MOST_BYTES - 1024)])
async def test_any_bytes_are_a_value(bus: Bus, name: str, value: bytes) -> None:
    await bus.put_kv(name, "key", value)
    assert await bus.get_kv(name, "key") == value
    assert [entry.value for entry in await bus.history_kv(name, "key")] == [value]


async def test_a_value_too_large_is_refused(bus: Bus, name: str) -> None:
    with pytest.raises(BusError):
        await bus.put_kv(name, "key", b"x" * (MOST_BYTES + 1))
    assert await bus.get_kv(name, "key") is None


async def test_a_value_that_was_never_kept_is_missing(bus: Bus, name: str) -> None:
    for _ in range(2):
        assert await bus.get_kv(name, "key") is None
        assert await bus.entry_kv(name, "key") is None
        assert await bus.keys_kv(name) == []
        assert await bus.history_kv(name, "key") == []
        assert await bus.delete_kv(name, "key") == 0
        # The same again, in a bucket that exists.
        await bus.put_kv(name, "other", b"")
        await bus.delete_kv(name, "other")


async def test_buckets_do_not_see_each_other(bus: Bus, name: str) -> None:
    await bus.put_kv(f"{name}-one", "key", b"1")
    await bus.put_kv(f"{name}-two", "key", b"2")
    assert await bus.get_kv(f"{name}-one", "key") == b"1"
    assert await bus.keys_kv(f"{name}-two") == ["key"]


@pytest.mark.parametrize("bucket", ["", "a.b", "a b", "*", "ü", "a/b"])
async def test_a_bucket_that_nats_would_refuse_is_refused(bus: Bus, bucket: str) -> None:
    with pytest.raises(BusError, match="bucket"):
        await bus.put_kv(bucket, "key", b"")
    with pytest.raises(BusError, match="bucket"):
        await bus.get_kv(bucket, "key")


async def test_an_entry_tells_value_revision_and_time(bus: Bus, name: str) -> None:
    revision = await bus.put_kv(name, "key", b"one")
    entry = await bus.entry_kv(name, "key")
    assert entry is not None
    assert entry == Entry("key", b"one", revision, entry.created)
    assert abs(datetime.now(UTC) - entry.created) < timedelta(minutes=1)


async def test_two_connections_see_the_same(bus: Bus, other: Bus, name: str) -> None:
    revision = await bus.put_kv(name, "key", b"one")
    assert await other.get_kv(name, "key") == b"one"
    assert await other.put_kv(name, "key", b"two", revision=revision) > revision
    assert await bus.get_kv(name, "key") == b"two"


# Compare and set


async def test_a_write_for_the_last_revision_succeeds_and_for_another_one_conflicts(bus: Bus, name: str) -> None:
    first = await bus.put_kv(name, "key", b"1")
    second = await bus.put_kv(name, "key", b"2", revision=first)
    for wrong in (first, second + 1, 0):
        with pytest.raises(RevisionConflict, match="key"):
            await bus.put_kv(name, "key", b"lost", revision=wrong)
    assert await bus.get_kv(name, "key") == b"2"
    assert len(await bus.history_kv(name, "key")) == 2


async def test_revision_zero_asks_that_there_is_no_value(bus: Bus, name: str) -> None:
    first = await bus.put_kv(name, "key", b"1", revision=0)
    with pytest.raises(RevisionConflict):
        await bus.put_kv(name, "key", b"2", revision=0)
    await bus.delete_kv(name, "key")
    assert await bus.put_kv(name, "key", b"3", revision=0) > first
    with pytest.raises(RevisionConflict):
        await bus.put_kv(name, "other", b"", revision=first)


async def test_the_revision_of_a_deletion_counts_too(bus: Bus, name: str) -> None:
    first = await bus.put_kv(name, "key", b"1")
    deleted = await bus.delete_kv(name, "key")
    with pytest.raises(RevisionConflict):
        await bus.put_kv(name, "key", b"lost", revision=first)
    assert await bus.put_kv(name, "key", b"2", revision=deleted) > deleted > first


async def test_writes_of_other_keys_do_not_conflict(bus: Bus, name: str) -> None:
    revision = await bus.put_kv(name, "key", b"1")
    await bus.put_kv(name, "other", b"1")
    await bus.put_kv(name, "key", b"2", revision=revision)


async def test_of_many_writers_for_one_revision_one_wins(bus: Bus, other: Bus, name: str) -> None:
    revision = await bus.put_kv(name, "key", b"")
    writes = [
        each.put_kv(name, "key", str(number).encode(), revision=revision)
        for number, each in enumerate([bus, other] * 10)
    ]
    results = await asyncio.gather(*writes, return_exceptions=True)
    won = [str(number).encode() for number, result in enumerate(results) if isinstance(result, int)]
    assert [type(result) for result in results].count(RevisionConflict) == 19
    assert [await bus.get_kv(name, "key")] == won


async def test_a_counter_that_many_raise_by_comparing_loses_nothing(bus: Bus, other: Bus, name: str) -> None:
    async def raised(each: Bus) -> None:
        while True:
            entry = await each.entry_kv(name, "counter")
            value, revision = (int(entry.value), entry.revision) if entry else (0, 0)
            try:
                await each.put_kv(name, "counter", str(value + 1).encode(), revision=revision)
            except RevisionConflict:
                continue
            return

    async with asyncio.timeout(SOON * 3):
        await asyncio.gather(*[raised(each) for each in [bus, other] * 5])
    assert await bus.get_kv(name, "counter") == b"10"


# Deleting, keys, history


async def test_a_deleted_value_is_missing_and_its_history_stays(bus: Bus, name: str) -> None:
    first = await bus.put_kv(name, "key", b"1")
    deleted = await bus.delete_kv(name, "key")
    assert deleted > first
    assert await bus.get_kv(name, "key") is None
    assert await bus.keys_kv(name) == []
    entry = await bus.entry_kv(name, "key")
    assert entry is not None
    assert (entry.value, entry.revision, entry.deleted) == (b"", deleted, True)
    assert [(each.value, each.deleted) for each in await bus.history_kv(name, "key")] == [(b"1", False), (b"", True)]


async def test_deleting_twice_does_nothing_the_second_time(bus: Bus, name: str) -> None:
    await bus.put_kv(name, "key", b"1")
    await bus.delete_kv(name, "key")
    assert await bus.delete_kv(name, "key") == 0
    assert len(await bus.history_kv(name, "key")) == 2


async def test_deleting_an_older_revision_conflicts(bus: Bus, name: str) -> None:
    first = await bus.put_kv(name, "key", b"1")
    second = await bus.put_kv(name, "key", b"2")
    with pytest.raises(RevisionConflict):
        await bus.delete_kv(name, "key", revision=first)
    assert await bus.get_kv(name, "key") == b"2"
    assert await bus.delete_kv(name, "key", revision=second) > second
    with pytest.raises(RevisionConflict):
        await bus.delete_kv(name, "key", revision=second)


async def test_keys_are_sorted_and_chosen_by_their_beginning(bus: Bus, name: str) -> None:
    for key in ("stripe/intel", "stripe/contacts", "acme/intel", "strip"):
        await bus.put_kv(name, key, b"")
    await bus.put_kv(name, "stripe/gone", b"")
    await bus.delete_kv(name, "stripe/gone")
    assert await bus.keys_kv(name) == ["acme/intel", "strip", "stripe/contacts", "stripe/intel"]
    assert await bus.keys_kv(name, "stripe/") == ["stripe/contacts", "stripe/intel"]
    assert await bus.keys_kv(name, "nobody") == []


async def test_many_keys_are_all_found(bus: Bus, name: str) -> None:
    for number in range(600):
        await bus.put_kv(name, f"k{number:04}", b"")
    assert await bus.keys_kv(name) == [f"k{number:04}" for number in range(600)]


async def test_the_history_holds_the_last_revisions_in_order(bus: Bus, name: str) -> None:
    revisions = [await bus.put_kv(name, "key", str(number).encode()) for number in range(HISTORY + 4)]
    await bus.put_kv(name, "other", b"")
    history = await bus.history_kv(name, "key")
    assert [entry.revision for entry in history] == revisions[-HISTORY:]
    assert [int(entry.value) for entry in history] == list(range(4, HISTORY + 4))
    assert [entry.created for entry in history] == sorted(entry.created for entry in history)
    assert {entry.key for entry in history} == {"key"}


# Watching


async def test_a_watcher_hears_what_is_there_and_then_every_change_in_order(bus: Bus, other: Bus, name: str) -> None:
    await bus.put_kv(name, "a", b"old")
    await bus.put_kv(name, "b", b"1")
    await bus.put_kv(name, "a", b"2")
    await bus.put_kv(name, "gone", b"")
    await bus.delete_kv(name, "gone")
    seen = Seen()
    await bus.watch_kv(name, seen)
    await eventually(lambda: len(seen) == 2)
    await other.put_kv(name, "b", b"3")
    await bus.put_kv(name, "c", b"")
    await other.delete_kv(name, "a")
    await eventually(lambda: len(seen) == 5)
    assert seen.changes == [("b", b"1"), ("a", b"2"), ("b", b"3"), ("c", b""), ("a", None)]
    assert [entry.revision for entry in seen] == sorted(entry.revision for entry in seen)


async def test_a_watcher_of_an_empty_bucket_hears_its_first_value(bus: Bus, name: str) -> None:
    seen = Seen()
    await bus.watch_kv(name, seen)
    assert seen == []
    revision = await bus.put_kv(name, "key", b"1")
    await eventually(lambda: [(entry.key, entry.value, entry.revision) for entry in seen] == [("key", b"1", revision)])


async def test_a_watcher_misses_nothing_that_is_written_while_it_begins(bus: Bus, other: Bus, name: str) -> None:
    async def write() -> None:
        # Each a key of its own: of one key a bucket keeps a few values only, and who reads slowly misses the others.
        for number in range(200):
            await other.put_kv(name, f"key-{number}", str(number).encode())

    writing = asyncio.create_task(write())
    watchers = [Seen() for _ in range(10)]
    for seen in watchers:
        await bus.watch_kv(name, seen)
    await writing
    await eventually(lambda: all(seen and seen[-1].value == b"199" for seen in watchers))
    for seen in watchers:
        # From the first one heard on every number, each once.
        values = [int(entry.value) for entry in seen]
        assert values == list(range(values[0], 200))


async def test_a_watcher_hears_its_own_bucket_only(bus: Bus, name: str) -> None:
    seen = Seen()
    await bus.watch_kv(name, seen)
    await bus.put_kv(f"{name}-other", "key", b"")
    await bus.put_kv(name, "mine", b"")
    await eventually(lambda: seen)
    assert seen.changes == [("mine", b"")]


async def test_an_ended_watcher_hears_no_more(bus: Bus, name: str) -> None:
    gone, still = Seen(), Seen()
    end = await bus.watch_kv(name, gone)
    await bus.watch_kv(name, still)
    await bus.put_kv(name, "key", b"1")
    await eventually(lambda: gone and still)
    await end()
    await end()
    await bus.put_kv(name, "key", b"2")
    await eventually(lambda: len(still) == 2)
    assert len(gone) == 1


async def test_a_watcher_that_fails_hears_the_next_change(bus: Bus, name: str) -> None:
    seen = Seen()

    async def fail(entry: Entry) -> None:
        await seen(entry)
        raise RuntimeError("the watcher's own fault")

    await bus.watch_kv(name, fail)
    for number in range(3):
        await bus.put_kv(name, "key", str(number).encode())
    await eventually(lambda: len(seen) == 3)


async def test_a_slow_watcher_holds_up_no_writer(bus: Bus, name: str) -> None:
    seen, go_on = Seen(), asyncio.Event()

    async def wait(entry: Entry) -> None:
        await go_on.wait()
        await seen(entry)

    await bus.watch_kv(name, wait)
    async with asyncio.timeout(SOON):
        for number in range(300):
            await bus.put_kv(name, "key", str(number).encode())
    await asyncio.sleep(QUIET)
    assert seen == []
    go_on.set()
    await eventually(lambda: len(seen) == 300)
    assert [int(entry.value) for entry in seen] == list(range(300))


async def test_a_key_may_be_read_by_any_nats_client(nats_url: str) -> None:
    ours, name = NatsBus(nats_url), f"x{secrets.token_hex(6)}"
    await ours.connect()
    revision = await ours.put_kv(name, "stripe/intel", b"ours")
    await ours.put_kv(name, "a b", b"ours")
    client = await nats.connect(nats_url)
    store = await client.jetstream().key_value(name)
    entry = await store.get("stripe/intel")
    assert (entry.value, entry.revision) == (b"ours", revision)
    assert (await store.get("a=20b")).value == b"ours"
    seen = Seen()
    await ours.watch_kv(name, seen)
    await store.put("theirs", b"theirs")
    await store.delete("stripe/intel")
    await store.purge("theirs")
    await eventually(lambda: len(seen) == 5)
    assert seen.changes[2:] == [("theirs", b"theirs"), ("stripe/intel", None), ("theirs", None)]
    assert await ours.keys_kv(name) == ["a b"]
    purged = await ours.entry_kv(name, "theirs")
    assert purged is not None
    assert purged.deleted
    await client.close()
    await ours.close()


# How keys are written

#: What NATS takes for a key, and what its clients check besides: no empty token.
ACCEPTED = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*")
TEXTS = st.one_of(st.text(), st.text(alphabet=". =/*>aBü\ud800\udc00\n\x00"))


@given(TEXTS)
def test_an_encoded_key_is_accepted_and_comes_back_as_it_was(key: str) -> None:
    assert ACCEPTED.fullmatch(keys.encoded(key))
    assert keys.decoded(keys.encoded(key)) == key


@given(TEXTS, TEXTS)
def test_two_keys_are_never_encoded_alike(one: str, two: str) -> None:
    assert (keys.encoded(one) == keys.encoded(two)) is (one == two)


@given(st.from_regex(ACCEPTED, fullmatch=True))
def test_a_name_that_others_chose_is_read_whatever_it_is(name: str) -> None:
    assert keys.encoded(keys.decoded(name)) == name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("stripe/intel", "stripe/intel"),
        ("acme.com", "acme.com"),
        ("a b", "a=20b"),
        ("ü", "=C3=BC"),
        ("a=b", "a=b"),
        ("a=20b", "a=3D20b"),
        ("ü=b", "=C3=BC=3Db"),
        (".hidden.", "=2Ehidden=2E"),
        ("a..b", "a.=2Eb"),
        ("", "="),
    ],
)
def test_a_readable_key_stays_readable(key: str, name: str) -> None:
    assert keys.encoded(key) == name
    assert keys.decoded(name) == key


@pytest.mark.parametrize("name", ["a=b", "a=3Db", "a=41", "=3D41", "a=2Eb", "=FF", "=C3", "a=", "=c3=bc"])
def test_what_is_no_encoding_of_ours_stays_as_it_is(name: str) -> None:
    assert keys.decoded(name) == keys.encoded(name) == name
