"""What the bridge makes of messages: events, each once and in order, or dead letters, whole and with the reason."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection

from openvibe.bus import MOST_BYTES, Message
from openvibe.bus.memory import MemoryBus
from openvibe.protocol import envelope
from operators.bridge import ingest
from operators.models import Card, Channel, DeadLetter, Event, Project, Run
from operators.services import announcements, streams
from tests.bridge.conftest import letters, make_run, said

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project", "memory")]

PUBLIC = "cg.v1.default.public.evt.agent.scout.message"
GENERAL = "workflow.general.status"
OPERATORS = "operators.scout.events.company.found"


def message(subject: str, body: object, **headers: str) -> Message:
    stamps = {"CG-Recursion-Depth": "0", **headers} if subject.startswith("operators.") else headers
    return Message(subject, body if isinstance(body, bytes) else json.dumps(body).encode(), stamps)


def hello(number: int = 1, *, subject: str = PUBLIC) -> Message:
    return message(subject, {"id": f"m{number}", "content": f"hello {number}"})


def thread(run_id: str) -> str:
    return f"cg.v1.default.t_{run_id}.evt.agent.scout.message"


def nested(depth: int) -> bytes:
    # Written by hand, because Python's own writer gives up before its reader does.
    return b'{"in":' * depth + b"{}" + b"}" * depth


def test_a_canonical_message_becomes_one_public_event() -> None:
    body = {"id": "m1", "content": "hello", "operator_id": "scout-7", "step_id": "s1", "payload": {"n": 1}}
    ingest.take([message(PUBLIC, {**body, "kind": "note", "unknown": True})])
    event = Event.objects.get()
    assert (event.channel, event.seq, event.kind, event.actor, event.run_id) == (
        "public",
        1,
        "agent.note",
        "scout-7",
        None,
    )
    assert event.data == {"content": "hello", "role": "assistant", "payload": {"n": 1}, "step_id": "s1"}
    assert letters() == []


@pytest.mark.parametrize("component", ["agent", "user", "tool"])
def test_agents_users_and_tools_may_speak(component: str) -> None:
    ingest.take([message(f"cg.v1.default.public.evt.{component}.x.said", {"id": "m1", "content": "hello"})])
    assert Event.objects.get().kind == "agent.said"


def test_the_same_message_twice_is_one_event_in_one_batch_and_in_two() -> None:
    ingest.take([hello(1), hello(1), hello(2)])
    ingest.take([hello(2), hello(1), hello(3)])
    assert said() == ["hello 1", "hello 2", "hello 3"]
    assert list(Event.objects.order_by("seq").values_list("seq", flat=True)) == [1, 2, 3]
    assert Channel.objects.get(name="public").last_seq == 3


def test_messages_without_an_id_of_their_own_are_one_event_if_they_are_the_same() -> None:
    ingest.take([message(OPERATORS, {"content": "a"}), message(OPERATORS, {"content": "a"})])
    ingest.take([message(OPERATORS, {"content": "a"}), message(OPERATORS, {"content": "b"})])
    assert said() == ["a", "b"]


@pytest.mark.parametrize("subject", [OPERATORS, GENERAL])
def test_what_is_said_again_in_the_same_words_is_another_message_and_what_comes_again_is_none(subject: str) -> None:
    monday, tuesday = (
        dataclasses.replace(message(subject, {"content": "a"}), position=f"s:{number}:9") for number in (1, 2)
    )
    ingest.take([monday, tuesday, monday])
    ingest.take([dataclasses.replace(tuesday, deliveries=2)])
    assert said() == ["a", "a"]


@pytest.mark.parametrize("subject", [OPERATORS, GENERAL])
def test_what_says_when_it_was_said_is_one_message_wherever_its_stream_keeps_it(subject: str) -> None:
    told = message(subject, {"content": "a", "timestamp": "2026-01-02T03:04:05Z"})
    ingest.take([dataclasses.replace(told, position=f"s:{number}:9") for number in (1, 2)])
    assert said() == ["a"]


def test_two_agents_that_count_their_own_messages_take_none_from_each_other() -> None:
    places = [f"cg.v1.default.public.evt.agent.{agent}.message" for agent in ("scout", "critic")]
    told = [message(place, {"id": "1", "content": place.split(".")[6]}) for place in places]
    ingest.take([*told, *told])
    assert said() == ["scout", "critic"]


@pytest.mark.parametrize("subject", [OPERATORS, GENERAL])
def test_a_message_without_an_id_in_its_body_may_bear_one_in_its_headers(subject: str) -> None:
    named = [message(subject, {"content": "a"}, **{"Nats-Msg-Id": name}) for name in ("m1", "m2", "m1")]
    ingest.take([dataclasses.replace(item, position=f"s:{number}:9") for number, item in enumerate(named)])
    assert said() == ["a", "a"]


def test_the_id_in_a_bare_payload_is_that_of_the_thing_and_not_of_the_message() -> None:
    ingest.take([message(OPERATORS, {"id": "deal-7", "content": stage}) for stage in ("open", "won", "open")])
    assert said() == ["open", "won"]


def test_a_batch_is_written_in_the_order_of_arrival() -> None:
    ingest.take([hello(number) for number in range(250)])
    assert said() == [f"hello {number}" for number in range(250)]


def test_a_message_to_a_runs_channel_lands_in_its_thread_with_the_next_number(run: Run) -> None:
    ingest.take([hello(1, subject=thread(run.id)), hello(2, subject=thread(run.id)), hello(2, subject=thread(run.id))])
    events = list(Event.objects.order_by("seq"))
    assert [(event.seq, event.run_id, event.channel) for event in events] == [
        (4, run.id, f"t_{run.id}"),
        (5, run.id, f"t_{run.id}"),
    ]
    run.refresh_from_db()
    assert run.last_seq == 5


def test_a_batch_for_many_channels_keeps_each_channels_order(project: Project, run: Run) -> None:
    other = make_run(project, "run_02")
    batch = [
        hello(number, subject=subject) for number in range(20) for subject in (thread(run.id), PUBLIC, thread(other.id))
    ]
    ingest.take(batch)
    expected = [f"hello {number}" for number in range(20)]
    assert [said(channel) for channel in (f"t_{run.id}", "public", f"t_{other.id}")] == [expected] * 3


def test_an_operators_event_appears_in_public_under_its_own_name() -> None:
    ingest.take([message(OPERATORS, {"id": "m1", "payload": {"company": "Acme"}})])
    event = Event.objects.get()
    assert (event.channel, event.kind, event.actor) == ("public", "agent.event", "scout")
    assert event.data == {
        "content": "scout emitted company.found",
        "event": "company.found",
        "payload": {"company": "Acme"},
    }


@pytest.mark.parametrize("key", ["content", "text", "message", "status", "error"])
def test_a_general_message_appears_in_public_by_whatever_it_calls_its_text(key: str) -> None:
    ingest.take([message("workflow.general.status.late", {"id": "m1", "agent_id": "etl", key: "half done"})])
    event = Event.objects.get()
    assert (event.channel, event.kind, event.actor) == ("public", "agent.status_late", "etl")
    assert event.data["content"] == "half done"


def test_what_arrived_is_announced(memory: MemoryBus) -> None:
    ingest.take([hello(1)])
    announcements.settle(10)
    assert Channel.objects.get(name="public").announced_seq == 1


def test_our_own_announcements_are_skipped(run: Run) -> None:
    for channel in ("public", f"t_{run.id}"):
        subject = f"cg.v1.default.{channel}.evt.sys.timeline.recorded"
        ingest.take([message(subject, {"id": "m1", "content": "an echo"})])
    assert (Event.objects.count(), letters()) == (0, [])


@pytest.mark.parametrize("subject", ["workflow", "sessions.r.work", "elsewhere"])
def test_subjects_that_are_not_for_the_timeline_are_let_be(subject: str) -> None:
    ingest.take([message(subject, b"whatever")])
    assert (Event.objects.count(), letters()) == (0, [])


@pytest.mark.parametrize(
    ("subject", "body", "reason"),
    [
        (PUBLIC, b"{not json", "no JSON"),
        (PUBLIC, b"", "no JSON"),
        (PUBLIC, b"\xff\xfe", "no JSON"),
        (PUBLIC, b'{"id": "m", "content": "\xff"}', "no JSON"),
        (PUBLIC, b'{"id": "m", "content": "\\ud800"}', "no JSON"),
        (PUBLIC, b'{"id": "m", "payload": {"n": NaN}}', "no JSON"),
        (PUBLIC, b'{"id": "m", "payload": {"n": 1e400}}', "no JSON"),
        (PUBLIC, b"[" * 3000, "no JSON"),
        (PUBLIC, b"[1]", "an object is needed"),
        (PUBLIC, b'{"content": "no id"}', "id: "),
        (PUBLIC, b'{"id": "", "content": "empty id"}', "id: "),
        (PUBLIC, b'{"id": "m", "content": 7}', "content: "),
        (PUBLIC, b'{"id": "m", "payload": "text"}', "payload: "),
        (OPERATORS, b"null", "an object is needed"),
        ("workflow.general.message", b'{"id": "m"}', "content: "),
        (GENERAL, b'{"id": "m", "content": {"a": 1}}', "content: "),
        (PUBLIC, b'{"id": "m", "content": "a\\u0000b"}', "NUL"),
        (PUBLIC, b'{"id": "m", "payload": {"a\\u0000b": 1}}', "NUL"),
        (PUBLIC, b'{"id": "m\\u0000", "content": "a"}', "NUL"),
        (OPERATORS, b'{"id": "m", "x": ["\\\\\\u0000"]}', "NUL"),
        (GENERAL, b'{"id": "m", "content": "a", "agent_id": "\\u0000"}', "NUL"),
        ("operators.a\0b.events.x", b"{}", "NUL"),
    ],
)
def test_what_cannot_be_read_is_one_dead_letter_with_its_full_body_and_the_reason(
    subject: str, body: bytes, reason: str
) -> None:
    ingest.take([message(subject, body, traceparent="00-x"), hello(2)])
    ingest.take([message(subject, body, traceparent="00-x"), hello(3)])
    ((kept_subject, kept_body, kept_reason),) = letters()
    assert (kept_subject, kept_body) == (subject.replace("\0", "\N{REPLACEMENT CHARACTER}"), body)
    assert reason in kept_reason
    assert DeadLetter.objects.get().headers["traceparent"] == "00-x"
    assert said() == ["hello 2", "hello 3"]


def test_a_text_about_nul_is_no_nul() -> None:
    ingest.take([message(PUBLIC, b'{"id": "m", "content": "write \\\\u0000"}')])
    assert said() == ["write \\u0000"]


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ("cg.v1.nowhere.public.evt.agent.scout.message", "There is no project 'nowhere'"),
        ("cg.v1.default.t_run_99.evt.agent.scout.message", "Nobody knows the channel 't_run_99'"),
        ("cg.v1.default.u_7.evt.agent.scout.message", "Nobody knows the channel 'u_7'"),
        ("cg.v1.default.run_01.evt.agent.scout.message", "Nobody knows the channel 'run_01'"),
    ],
)
@pytest.mark.usefixtures("run")
def test_what_belongs_nowhere_is_a_dead_letter_with_the_whole_original_message(subject: str, reason: str) -> None:
    body = {"id": "m1", "content": "hello", "payload": {"n": 1}, "kind": "note"}
    given = message(subject, body, traceparent="00-x")
    ingest.take([given, hello(2)])
    assert letters() == [(subject, given.data, reason)]
    assert DeadLetter.objects.get().headers["traceparent"] == "00-x"
    assert said() == ["hello 2"]


def test_a_run_of_another_project_cannot_be_spoken_to(run: Run, other_project: Project) -> None:
    subject = f"cg.v1.{other_project.id}.t_{run.id}.evt.agent.charlie.message"
    ingest.take([hello(1, subject=subject)])
    assert said(f"t_{run.id}") == []
    assert [letter[0] for letter in letters()] == [subject]


@pytest.mark.parametrize("depth", [90, 200, 253, 900, 1020])
@pytest.mark.parametrize("field", [b"payload", b"attrs", b"role", b"text"])
@pytest.mark.parametrize("subject", [PUBLIC, OPERATORS, GENERAL])
def test_a_deep_nest_is_kept_or_buried_but_stops_nobody(subject: str, field: bytes, depth: int) -> None:
    body = b'{"id": "deep", "content": "deep", "%b": %b}' % (field, nested(depth))
    ingest.take([message(subject, body), hello(2)])
    assert "hello 2" in said()
    assert len(said()) + len(letters()) == 2


@pytest.mark.parametrize("subject", [PUBLIC, OPERATORS, GENERAL])
def test_what_is_kept_of_a_deep_nest_can_be_told_to_everybody(subject: str) -> None:
    # From some depth on it could just be kept, and in a frame, a level deeper, no more.
    for depth in (90, 101, *range(240, 260)):
        ingest.take([message(subject, b'{"id": "%d", "text": "x", "attrs": %b, "payload": %b}' % (
            depth, nested(depth), nested(depth)))])  # fmt: skip
    for event in Event.objects.all():
        streams.frame(event.seq, streams.session_named({**event.wire(), "timestamp": event.created_at.isoformat()}))
    assert len(letters()) == 21


@pytest.mark.parametrize("values", [{"operator_id": "o" * 5000}, {"kind": "k" * 5000}, {"role": "r" * 5000}])
def test_names_that_are_too_long_stop_nobody(values: dict[str, str]) -> None:
    ingest.take([message(PUBLIC, {"id": "m1", "content": "long", **values}), hello(2)])
    assert said() == ["long", "hello 2"]


@pytest.mark.parametrize("subject", [OPERATORS, GENERAL, f"operators.scout.events.{'very.' * 60}long"])
def test_long_ids_that_differ_at_their_end_only_are_different_messages(subject: str) -> None:
    bodies = [{"id": f"{'x' * 300}{number}", "content": f"hello {number}"} for number in (1, 2, 1)]
    ingest.take([message(subject, body) for body in bodies])
    ingest.take([message(subject, bodies[0])])
    assert said() == ["hello 1", "hello 2"]


def test_long_subjects_do_not_swallow_the_ids_behind_them() -> None:
    subject = f"cg.v1.default.public.evt.agent.{'a' * 64}.{'step.' * 60}done"
    ingest.take([hello(1, subject=subject), hello(2, subject=subject), hello(1, subject=subject)])
    assert said() == ["hello 1", "hello 2"]


def test_an_envelopes_id_over_200_characters_is_a_dead_letter() -> None:
    ingest.take([message(PUBLIC, {"id": "x" * 201, "content": "hello"}), hello(2)])
    assert [letter[2].partition(":")[0] for letter in letters()] == ["id"]
    assert said() == ["hello 2"]


def test_large_values_become_cards() -> None:
    text = "ü" * 300_000
    ingest.take([message(PUBLIC, {"id": "m1", "content": text, "payload": {"small": 1, "large": text}})])
    event = Event.objects.get()
    assert event.data["payload"]["small"] == 1
    for pointer in (event.data["content"], event.data["payload"]["large"]):
        assert Card.objects.get(sha256=pointer["card"]).content == text


def test_a_body_as_large_as_nats_carries_is_kept_whole() -> None:
    good = message(PUBLIC, {"id": "m1", "content": "x" * (MOST_BYTES - 100)})
    bad = message(PUBLIC, b"x" * MOST_BYTES)
    ingest.take([good, bad])
    pointer = Event.objects.exclude(kind="error").get().data["content"]
    assert len(Card.objects.get(sha256=pointer["card"]).content) == MOST_BYTES - 100
    assert [letter[1] for letter in letters()] == [bad.data]


def test_headers_and_subjects_that_no_database_takes_do_not_stop_a_dead_letter() -> None:
    odd = Message("operators.\udcff.events.x", b"[]", {"X-\0": "a\0\udcff"})
    ingest.take([odd, hello(2)])
    assert [(letter[0], letter[1]) for letter in letters()] == [("operators.?.events.x", b"[]")]
    assert DeadLetter.objects.get().headers == {"X-\N{REPLACEMENT CHARACTER}": "a\N{REPLACEMENT CHARACTER}?"}
    assert said() == ["hello 2"]


def test_a_dead_letter_tells_the_general_channel_once() -> None:
    bad = message(PUBLIC, b"not json")
    ingest.take([bad])
    ingest.take([bad])
    event = Event.objects.get(kind="error")
    assert event.data["subject"] == PUBLIC
    assert event.data["dead_letter"] == DeadLetter.objects.get().pk


def test_two_bad_messages_with_one_body_on_two_subjects_are_two_dead_letters() -> None:
    ingest.take([message(PUBLIC, b"x"), message(GENERAL, b"x"), message(GENERAL, b"x")])
    assert [letter[0] for letter in letters()] == [PUBLIC, GENERAL]


def test_a_forged_id_cannot_hide_an_event_of_a_run(run: Run) -> None:
    ingest.take([message(PUBLIC, {"id": f"{run.id}:1", "content": "first"})])
    assert not Event.objects.filter(message_id=f"{run.id}:1").exists()


@contextlib.contextmanager
def locked_database() -> Iterator[None]:
    holder = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    with contextlib.closing(holder):
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")


def test_when_the_database_is_busy_nothing_is_buried_and_the_batch_may_come_again(project: Project) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("Only SQLite has one lock for all")
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 0")
    try:
        with locked_database(), pytest.raises(OperationalError):
            ingest.take([hello(1), hello(2)])
    finally:
        # The next one is patient again: whoever announces writes, too.
        connection.close()
    ingest.take([hello(1), hello(2)])
    assert said() == ["hello 1", "hello 2"]
    assert letters() == []


def test_what_concerns_nobody_waits_for_no_lock(project: Project) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("Only SQLite has one lock for all")
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 0")
    try:
        with locked_database():
            assert ingest.take([message("cg.v1.default.public.evt.sys.timeline.recorded", {"id": "m1"})]) == []
    finally:
        connection.close()


def test_a_message_id_names_the_subject_too() -> None:
    ingest.take([hello(1), hello(1, subject="cg.v1.default.public.evt.agent.other.message")])
    assert said() == ["hello 1", "hello 1"]
    assert envelope.message_id("a", "1") != envelope.message_id("b", "1")
