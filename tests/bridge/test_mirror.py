"""The shared context in NATS KV, on a real nats-server: both ways, through outages, and without an echo."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from openvibe.bus import Entry
from openvibe.bus.nats import NatsBus
from openvibe.errors import BusError
from operators import definitions
from operators.bridge import mirror
from operators.models import ContextEntry, ContextRevision, Project, Wait
from operators.services import cards, compiled, context, deliveries, mirroring, registration
from tests.bridge.conftest import Bridge, eventually, letters
from tests.domain.lab import played, started
from tests.domain.test_changes import Watcher

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]

LEADS = "context-leads"
#: NATS KV takes neither blanks nor a dot at the end.
KEY = "Äcme Inc./intel."


def kv(bridge: Bridge, act: Callable[[NatsBus], Any]) -> Any:
    async def main() -> Any:
        bus = NatsBus(bridge.server.url, name="stranger")
        await bus.connect()
        try:
            return await act(bus)
        finally:
            await bus.close()

    return asyncio.run(main())


def put(bridge: Bridge, key: str, value: object) -> int:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return int(kv(bridge, lambda bus: bus.put_kv(LEADS, key, data)))


def mirrored(bridge: Bridge, key: str) -> Any:
    value = kv(bridge, lambda bus: bus.get_kv(LEADS, key))
    return None if value is None else json.loads(value)


def history(key: str) -> list[tuple[Any, bool, str]]:
    rows = ContextRevision.objects.filter(entry__key=key).order_by("revision")
    return [(row.value, row.deleted, row.author) for row in rows]


def at_rest(key: str) -> bool:
    return bool(ContextEntry.objects.filter(key=key, mirrored_revision__gt=0) and not mirroring.behind(1))


def test_what_is_put_here_is_read_there_and_no_echo_comes_back(bridge: Bridge) -> None:
    context.put("default", "leads", KEY, {"score": 1}, author="alice")
    eventually(lambda: mirrored(bridge, KEY) == {"score": 1})
    context.put("default", "leads", KEY, {"score": 2}, author="alice")
    eventually(lambda: mirrored(bridge, KEY) == {"score": 2})
    eventually(lambda: at_rest(KEY))
    # What comes after an echo would have come in order.
    put(bridge, "other", 1)
    eventually(lambda: context.value("default", "leads", "other") == 1)
    assert history(KEY) == [({"score": 1}, False, "alice"), ({"score": 2}, False, "alice")]
    written = kv(bridge, lambda bus: bus.history_kv(LEADS, KEY))
    assert [json.loads(entry.value) for entry in written] == [{"score": 1}, {"score": 2}]


def test_what_others_put_there_is_a_revision_here_and_does_not_go_back(bridge: Bridge) -> None:
    first, second = put(bridge, KEY, {"score": 1}), put(bridge, KEY, {"score": 2})
    eventually(lambda: context.value("default", "leads", KEY) == {"score": 2})
    assert history(KEY)[-1] == ({"score": 2}, False, "nats")
    entry = ContextEntry.objects.get(key=KEY)
    assert (entry.mirrored_revision, entry.kv_revision) == (entry.revision, second)
    assert kv(bridge, lambda bus: bus.entry_kv(LEADS, KEY)).revision == second > first


def test_deletions_go_both_ways(bridge: Bridge) -> None:
    context.put("default", "leads", "ours", 1, author="alice")
    put(bridge, "theirs", 2)
    eventually(lambda: mirrored(bridge, "ours") == 1)
    eventually(lambda: context.value("default", "leads", "theirs") == 2)
    context.delete("default", "leads", "ours", author="alice")
    kv(bridge, lambda bus: bus.delete_kv(LEADS, "theirs"))
    eventually(lambda: mirrored(bridge, "ours") is None)
    eventually(lambda: context.keys("default", "leads") == [])
    assert history("theirs")[-1] == (None, True, "nats")


def test_an_outage_loses_nothing_of_either_side(bridge: Bridge) -> None:
    context.put("default", "leads", "ours", 1, author="alice")
    eventually(lambda: mirrored(bridge, "ours") == 1)
    bridge.server.stop()
    context.put("default", "leads", "ours", 2, author="alice")
    context.put("default", "leads", "new", 3, author="alice")
    bridge.server.start()
    eventually(lambda: (mirrored(bridge, "ours"), mirrored(bridge, "new")) == (2, 3))
    put(bridge, "theirs", 4)
    eventually(lambda: context.value("default", "leads", "theirs") == 4)


def test_what_happened_while_no_bridge_ran_is_made_up_for(bridge: Bridge) -> None:
    for key in ("kept", "gone", "changed"):
        context.put("default", "leads", key, 1, author="alice")
    eventually(lambda: mirrored(bridge, "changed") == mirrored(bridge, "gone") == 1)
    eventually(lambda: not mirroring.behind(1))
    bridge.stop()
    # A key that is missing counts as lost only if it was written some time ago.
    ContextEntry.objects.update(updated_at=timezone.now() - 2 * mirroring.SETTLED)
    kv(bridge, lambda bus: bus.delete_kv(LEADS, "gone"))
    put(bridge, "changed", 2)
    context.put("default", "leads", "kept", 2, author="alice")
    bridge.start()
    eventually(lambda: context.keys("default", "leads") == ["changed", "kept"])
    eventually(lambda: context.value("default", "leads", "changed") == 2)
    eventually(lambda: mirrored(bridge, "kept") == 2)


def test_a_server_that_lost_everything_is_filled_again(bridge: Bridge) -> None:
    context.put("default", "leads", KEY, {"score": 1}, author="alice")
    eventually(lambda: mirrored(bridge, KEY) == {"score": 1})
    eventually(lambda: not mirroring.behind(1))
    bridge.stop()
    ContextEntry.objects.update(updated_at=timezone.now() - 2 * mirroring.SETTLED)
    bridge.server.kill()
    shutil.rmtree(bridge.server.folder / "jetstream")
    bridge.server.start()
    bridge.start()
    eventually(lambda: _filled(bridge))
    assert history(KEY) == [({"score": 1}, False, "alice")]


def _filled(bridge: Bridge) -> bool:
    try:
        return bool(mirrored(bridge, KEY) == {"score": 1})
    except BusError:
        return False


def test_what_cannot_be_read_is_a_dead_letter_and_the_next_value_arrives(bridge: Bridge) -> None:
    put(bridge, "bad", b"{no json")
    put(bridge, "x" * 500, 1)
    put(bridge, "good", 1)
    eventually(lambda: context.value("default", "leads", "good") == 1)
    assert [(subject[:24], body) for subject, body, _ in letters()] == [
        ("$KV.context-leads.bad", b"{no json"),
        ("$KV.context-leads.xxxxxx", b"1"),
    ]
    assert context.keys("default", "leads") == ["good"]


#: What a value may have over REST, less what makes it a text.
LARGEST = 1024 * 1024 - 100


@pytest.mark.parametrize("key", ["k", "/".join(["acme"] * 80)])
def test_a_value_that_fits_goes_whole_and_one_that_does_not_as_a_pointer_to_its_card(bridge: Bridge, key: str) -> None:
    fitting, large = "x" * (cards.VALUE_LIMIT - 2), "y" * LARGEST
    context.put("default", "leads", key, fitting, author="alice")
    eventually(lambda: mirrored(bridge, key) == fitting)
    context.put("default", "leads", key, large, author="alice")
    eventually(lambda: cards.is_pointer(mirrored(bridge, key)))
    told = mirrored(bridge, key)
    assert told["size"] == LARGEST + 2
    assert cards.content("default", told["card"]) == large
    # What comes after an echo would have come in order.
    put(bridge, "other", 1)
    eventually(lambda: context.value("default", "leads", "other") == 1)
    assert [value for value, _, _ in history(key)] == [fitting, large]


def test_a_pointer_that_comes_back_stands_for_its_value(bridge: Bridge) -> None:
    large = "y" * LARGEST
    context.put("default", "leads", "k", large, author="alice")
    eventually(lambda: at_rest("k"))
    told = mirrored(bridge, "k")
    put(bridge, "k", "small")
    eventually(lambda: context.value("default", "leads", "k") == "small")
    put(bridge, "k", told)
    eventually(lambda: context.value("default", "leads", "k") == large)
    assert [author for _, _, author in history("k")] == ["alice", "nats", "nats"]


def test_the_echo_of_a_pointer_and_pointers_of_others_are_what_they_are() -> None:
    large, small = "y" * LARGEST, {"card": "0" * 64, "size": 40_000}
    context.put("default", "leads", "k", large, author="alice")
    echo = cards.keep("default", large, json.dumps(large).encode())
    # As after a death between the write and the mark that it was written.
    assert not heard("k", echo, 7)
    assert mirroring.behind(5) == []
    assert heard("k", small, 8)
    assert heard("k", {"card": "0" * 64, "size": LARGEST * 2}, 9)
    assert [value for value, _, _ in history("k")] == [large, small, {"card": "0" * 64, "size": LARGEST * 2}]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_value_with_too_many_levels_of_ours_or_of_others_stops_no_other_one(bridge: Bridge) -> None:
    put(bridge, "theirs", nested(300))
    eventually(letters)
    context.put("default", "leads", "theirs", "ours", author="alice")
    context.put("default", "leads", "deep", nested(300), author="alice")
    context.put("default", "leads", "flat", 1, author="alice")
    eventually(lambda: (mirrored(bridge, "theirs"), mirrored(bridge, "flat")) == ("ours", 1))
    eventually(lambda: not mirroring.behind(1))
    assert mirrored(bridge, "deep") is None


@pytest.mark.parametrize("key", ["=ED=A0=80", "=00"])
def test_a_key_that_no_database_keeps_is_a_dead_letter(bridge: Bridge, key: str) -> None:
    kv(bridge, lambda bus: bus.put_kv(LEADS, "k", b"1"))
    kv(bridge, lambda bus: bus.publish(f"$KV.{LEADS}.{key}", b"2"))
    put(bridge, "good", 3)
    eventually(lambda: context.value("default", "leads", "good") == 3)
    assert [(subject, body) for subject, body, _ in letters()] == [(f"$KV.{LEADS}.{key}", b"2")]


@pytest.mark.parametrize("key", ["a=b", "a=41", "a=3Db"])
def test_a_key_with_an_equals_sign_is_the_same_here_and_there(bridge: Bridge, key: str) -> None:
    place = f"$KV.{LEADS}.{key}"
    put(bridge, "first", 1)
    kv(bridge, lambda bus: bus.publish(place, b"1"))
    eventually(lambda: context.value("default", "leads", key) == 1)
    context.put("default", "leads", key, 2, author="alice")
    eventually(lambda: at_rest(key))
    found = kv(bridge, lambda bus: bus._stream.get_last_msg(f"KV_{LEADS}", place))
    assert found.data == b"2"


def test_a_bucket_that_cannot_be_read_hinders_no_other(bridge: Bridge) -> None:
    async def spoil(bus: NatsBus) -> None:
        await bus._stream.delete_stream(f"KV_{LEADS}")
        # A stream of that name that keeps no values.
        await bus._stream.add_stream(name=f"KV_{LEADS}", subjects=["elsewhere"])

    put(bridge, "first", 1)
    eventually(lambda: context.value("default", "leads", "first") == 1)
    bridge.stop()
    kv(bridge, spoil)
    bridge.start()
    context.put("default", "leads", "ours", 1, author="alice")
    context.put("default", "market", "ours", 2, author="alice")
    eventually(lambda: kv(bridge, lambda bus: bus.get_kv("context-market", "ours")) == b"2")
    kv(bridge, lambda bus: bus.put_kv("context-market", "theirs", b"3"))
    eventually(lambda: context.value("default", "market", "theirs") == 3)


def test_a_value_that_is_refused_costs_the_other_buckets_nothing(
    bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "operators.bridge.mirror")
    context.put("default", "market", "k", 1, author="alice")
    eventually(lambda: at_rest("k"))
    kv(bridge, _narrow)
    before = kv(bridge, lambda bus: _followed_by(bus, "context-market"))
    context.put("default", "leads", "large", "x" * 1000, author="alice")
    eventually(lambda: caplog.text.count("context-leads/large was not kept") >= 3)
    assert kv(bridge, lambda bus: _followed_by(bus, "context-market")) == before != []


def test_many_values_that_are_refused_hold_up_no_other_one(bridge: Bridge) -> None:
    kv(bridge, _narrow)
    for number in range(mirroring.MOST + 1):
        context.put("default", "leads", f"large/{number}", "x" * 1000, author="alice")
    context.put("default", "market", "k", 2, author="alice")
    eventually(lambda: ContextEntry.objects.filter(key="k", mirrored_revision=1))
    assert len(mirroring.behind(mirroring.MOST * 2)) == mirroring.MOST + 1


async def _narrow(bus: NatsBus) -> None:
    """Let a bucket refuse what is not small, as an administrator may."""
    await bus.put_kv(LEADS, "small", b"1")
    config = (await bus._stream.stream_info(f"KV_{LEADS}")).config
    await bus._stream.update_stream(config, max_msg_size=100)


async def _followed_by(bus: NatsBus, bucket: str) -> list[str]:
    return sorted(reader.name for reader in await bus._stream.consumers_info(f"KV_{bucket}"))


def test_other_projects_are_not_mirrored(bridge: Bridge, other_project: Project) -> None:
    context.put(other_project.pk, "leads", "secret", 1, author="charlie")
    context.put("default", "leads", "known", 2, author="alice")
    eventually(lambda: mirrored(bridge, "known") == 2)
    assert mirrored(bridge, "secret") is None


def heard(key: str, value: object, revision: int, *, deleted: bool = False) -> bool:
    return context.take("default", "leads", key, value, kv_revision=revision, deleted=deleted)


def test_the_database_wins_over_what_arrives_while_its_own_value_has_yet_to_go_out() -> None:
    context.put("default", "leads", "k", "ours", author="alice")
    assert not heard("k", "theirs", 7)
    assert context.value("default", "leads", "k") == "ours"
    assert [entry.key for entry in mirroring.behind(5)] == ["k"]


def test_an_echo_that_is_older_than_the_latest_value_leaves_that_one_to_go_out() -> None:
    context.put("default", "leads", "k", "first", author="alice")
    context.put("default", "leads", "k", "second", author="alice")
    assert not heard("k", "first", 7)
    entry = ContextEntry.objects.get()
    assert (entry.value, entry.revision, entry.mirrored_revision, entry.kv_revision) == ("second", 2, 1, 7)
    assert not heard("k", "second", 8)
    assert mirroring.behind(5) == []


def test_the_same_revision_twice_is_taken_once_and_an_old_value_anew_is_news() -> None:
    assert heard("k", "a", 7)
    assert not heard("k", "a", 7)
    assert heard("k", "b", 8)
    assert heard("k", "a", 9)
    assert [value for value, _, _ in history("k")] == ["a", "b", "a"]


def test_a_value_of_a_bucket_made_anew_is_news_though_its_revision_is_known() -> None:
    assert heard("k", "a", 7)
    assert heard("k", "b", 7)
    assert context.value("default", "leads", "k") == "b"


def test_a_deletion_of_what_nobody_knows_changes_nothing() -> None:
    assert not heard("k", None, 7, deleted=True)
    assert ContextEntry.objects.count() == 0


def test_an_older_revision_that_arrives_late_is_dropped(bridge: Bridge) -> None:
    newest = put(bridge, "k", "new")
    eventually(lambda: context.value("default", "leads", "k") == "new")
    late = Entry("k", b'"old"', newest - 1, timezone.now())
    kv(bridge, lambda bus: mirror._heard(bus, mirror.Place("default", "leads"), late))
    assert context.value("default", "leads", "k") == "new"


def test_a_foreign_put_wakes_a_run_that_waits_for_it(bridge: Bridge, project: Project) -> None:
    definition = definitions.registry.register(Watcher)
    try:
        run = played(started(registration.register(project, definition), "next"))
        deliveries.ask(Wait.objects.get(run=run).id)
        put(bridge, "ada/score", 7)
        eventually(lambda: context.value("default", "leads", "ada/score") == 7)
        # No worker hears the bell here; the clock, which rides in the bridge, makes up for that.
        Wait.objects.update(opened_at=timezone.now() - timedelta(seconds=10))
        eventually(lambda: Wait.objects.get(run=run).status == "resolved")
        run = played(run)
    finally:
        definitions.registry.remove("watcher")
        compiled.workflow.cache_clear()
    assert (run.status, run.output["value"], Wait.objects.get(run=run).decider) == ("completed", 7, "nats")
