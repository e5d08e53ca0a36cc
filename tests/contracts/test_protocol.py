"""What goes over the wire: subjects, envelopes, headers and streams."""

from __future__ import annotations

import re

import pytest

from openvibe.bus import matches
from openvibe.protocol import envelope, headers, subjects
from openvibe.protocol.envelope import Malformed
from openvibe.protocol.streams import STREAMS
from openvibe.protocol.subjects import Subject

TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


@pytest.mark.parametrize(
    "text",
    [
        "cg.v1.default.public.evt.sys.timeline.recorded",
        "cg.v1.acme.t_run_01.cmd.tool.search.call",
        "cg.v1.acme.u_7.evt.agent.scout.step.finished.late",
    ],
)
def test_a_subject_taken_apart_and_put_together_is_the_same(text: str) -> None:
    assert str(subjects.parse(text)) == text


def test_a_subject_put_together_and_taken_apart_is_the_same() -> None:
    subject = Subject("acme", "t_run_1", "evt", "agent", "scout", "step.finished")
    assert subjects.parse(str(subject)) == subject


@pytest.mark.parametrize(
    "text",
    ["", "cg", "cg.v1.p.c.evt.agent.x", "cg.v2.p.c.evt.agent.x.step", "gc.v1.p.c.evt.agent.x.step", "operators.a.b.c"],
)
def test_what_is_no_canonical_subject_of_this_version_is_none(text: str) -> None:
    assert subjects.parse(text) is None


@pytest.mark.parametrize("text", ["a", "run_01JABC", "A-b_9", "x" * 64])
def test_a_text_that_may_stand_in_a_subject_is_its_own_token(text: str) -> None:
    assert subjects.token(text) == text


@pytest.mark.parametrize("text", ["", "a.b", "a b", "*", ">", "ä", "x" * 65, "a\0b", "a\n", "$JS"])
def test_any_other_text_becomes_a_hash_that_may_stand_in_a_subject(text: str) -> None:
    token = subjects.token(text)
    assert token.startswith("h_")
    assert TOKEN.fullmatch(token)
    assert token == subjects.token(text)


def test_different_texts_have_different_tokens() -> None:
    texts = ["", "a.b", "a.c", "a b", "x" * 65, "x" * 66, "a"]
    assert len({subjects.token(text) for text in texts}) == len(texts)


def test_a_subject_with_odd_parts_still_has_eight_safe_tokens() -> None:
    subject = str(Subject("a project.", "*", "evt", "agent", ">", "step"))
    assert all(TOKEN.fullmatch(part) for part in subject.split("."))
    assert len(subject.split(".")) == 8


def test_a_runs_thread_is_its_id_behind_a_t() -> None:
    assert subjects.thread("run_01J") == "t_run_01J"


def test_a_foreign_runs_thread_is_still_one_token() -> None:
    thread = subjects.thread("their run/1.2")
    assert thread.startswith("t_h_")
    assert TOKEN.fullmatch(thread)


def test_passing_words_are_heard_by_the_pattern_of_their_channel_only() -> None:
    chunk = subjects.chunk("acme", "t_run_1", "scout")
    assert matches(subjects.words("acme", "t_run_1"), chunk)
    assert not matches(subjects.words("acme", "t_run_2"), chunk)
    assert not matches(subjects.words("other", "t_run_1"), chunk)
    assert not matches(subjects.words("acme", "t_run_1"), subjects.recorded("acme", "t_run_1"))


@pytest.mark.parametrize(
    ("subject", "stream"),
    [
        ("cg.v1.acme.t_run_1.cmd.tool.search.call", "cg_cmd_v1"),
        (subjects.recorded("acme", "t_run_1"), "cg_evt_v1"),
        ("operators.scout.events.company.found", "operators"),
        ("workflow.general.status", "agent-comms"),
        ("sessions.run_1.results", "sessions"),
        (subjects.chunk("acme", "t_run_1", "scout"), None),
        ("operators.scout.request.search", None),
        ("operators.scout.heartbeat", None),
    ],
)
def test_a_subject_is_kept_by_the_one_stream_of_its_kind_or_by_none(subject: str, stream: str | None) -> None:
    kept = [item.name for item in STREAMS if any(matches(pattern, subject) for pattern in item.subjects)]
    assert kept == ([stream] if stream else [])


def test_a_new_trace_is_valid_and_new() -> None:
    one, two = headers.new_trace(), headers.new_trace()
    assert headers.valid(one)
    assert one != two


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-" + "a" * 32 + "-" + "b" * 16,
        "00-" + "A" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "a" * 31 + "-" + "b" * 16 + "-01",
        "ff-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "b" * 16 + "-01\n",
        "00-" + "a" * 32 + "-" + "b" * 16 + "-01-more",
        "00-" + "0" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "0" * 16 + "-01",
    ],
)
def test_what_is_no_traceparent_is_not_valid(text: str) -> None:
    assert not headers.valid(text)


def test_a_message_keeps_the_trace_that_it_is_given() -> None:
    trace = headers.new_trace()
    stamps = headers.stamped("timeline.recorded", message_id="m", traceparent=trace, depth=3)
    assert headers.traceparent(stamps) == trace
    assert (stamps["Nats-Msg-Id"], stamps["CG-Msg-Type"], stamps["CG-Recursion-Depth"]) == (
        "m",
        "timeline.recorded",
        "3",
    )


def test_a_missing_or_wrong_trace_is_begun() -> None:
    for given in ("", "nonsense"):
        assert headers.valid(headers.stamped("x", message_id="m", traceparent=given)["traceparent"])


@pytest.mark.parametrize("given", [None, {}, {"traceparent": "nonsense"}])
def test_headers_without_a_usable_trace_have_none(given: dict[str, str] | None) -> None:
    assert headers.traceparent(given) == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b'{"a": NaN}', "no JSON"),
        (b"[" * 2000, "no JSON"),
        (b"[]", "list"),
        (b"null", "NoneType"),
        (b'"text"', "str"),
        (b"7", "int"),
    ],
)
def test_a_body_that_is_no_json_object_is_malformed_and_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        envelope.loads(data)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "id"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"id": "x" * 201}, "id"),
        ({"id": "a", "content": {}}, "content"),
        ({"id": "a", "payload": []}, "payload"),
        ({"id": "a", "timestamp": "yesterday"}, "timestamp"),
        ({"id": "a", "seq": "first"}, "seq"),
    ],
)
def test_a_wrong_field_is_malformed_and_named(body: dict[str, object], field: str) -> None:
    with pytest.raises(Malformed, match=f"^{field}: "):
        envelope.read(body)


def test_an_envelope_needs_an_id_only_and_ignores_what_it_does_not_know() -> None:
    read = envelope.read({"id": "a", "from_the_future": {"x": 1}})
    assert (read.id, read.version, read.content, read.payload) == ("a", envelope.VERSION, "", {})
    assert read.timestamp.tzinfo is not None


def test_a_body_written_and_read_is_the_same() -> None:
    body = {"id": "a", "content": "ünï\ncödé", "payload": {"n": 1, "list": [None, True]}}
    assert envelope.loads(envelope.dumps(body)) == body


def test_a_message_id_differs_by_subject_and_by_id_and_stays() -> None:
    names = [envelope.message_id(*pair) for pair in (("a", "1"), ("b", "1"), ("a", "2"), ("a\n1", ""))]
    assert len(set(names)) == 4
    assert envelope.message_id("a", "1") == names[0]
    assert all(re.fullmatch(r"[0-9a-f]{32}", name) for name in names)
