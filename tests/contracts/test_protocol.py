"""What goes over the wire: subjects, envelopes, headers and streams."""

from __future__ import annotations

import re

import pytest

from openvibe.bus import matches
from openvibe.protocol import envelope, headers, subjects, turns, workflow
from openvibe.protocol.envelope import Malformed, ProtocolViolation, TooDeep
from openvibe.protocol.streams import CONSUMERS, STREAMS
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


def test_what_is_passed_on_is_what_came_and_nothing_else() -> None:
    given = {
        "tracestate": "a=1, b@c=2,",
        "CG-User-ID": "zoë",
        "CG-Channel-ID": "u_1",
        "CG-Context-ID": "x y",
        "CG-Other": "z",
    }
    told = headers.passed_on({"traceparent": headers.new_trace(), **given})
    assert told == {name: text for name, text in given.items() if name != "CG-Other"}
    stamps = headers.stamped("x", message_id="m", passed_on=told)
    assert {name: stamps[name] for name in told} == told
    assert headers.passed_on(None) == headers.passed_on({}) == {}
    assert set(headers.stamped("x", message_id="m")) & {"tracestate", *headers.PASSED_ON} == set()


@pytest.mark.parametrize(
    "text",
    ["", " ", "no entry", "A=1", "a=", "a=1\n", "a=ü", "a=1=2", "a" * 257 + "=1", "a=" + "x" * 257,
     ",".join(["a=1"] * 33), ",".join(f"{name}={'x' * 200}" for name in "abc")],
)  # fmt: skip
def test_a_tracestate_that_is_none_or_too_long_is_not_passed_on(text: str) -> None:
    assert headers.passed_on({"traceparent": headers.new_trace(), "tracestate": text}) == {}


def test_a_tracestate_goes_nowhere_without_its_trace() -> None:
    assert (
        headers.passed_on({"tracestate": "a=1"}) == headers.passed_on({"traceparent": "x", "tracestate": "a=1"}) == {}
    )


@pytest.mark.parametrize("text", ["", " x", "x ", "x\ny", "x\0", "\udcff", "x" * 201])
def test_what_no_header_should_hold_is_not_passed_on(text: str) -> None:
    assert headers.passed_on(dict.fromkeys(headers.PASSED_ON, text)) == {}


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


@pytest.mark.parametrize(("text", "depth"), [("0", 0), ("7", 7), ("19", 19)])
def test_a_required_depth_is_a_natural_number_below_the_bound(text: str, depth: int) -> None:
    assert headers.required_depth({headers.DEPTH: text}) == depth


@pytest.mark.parametrize("stamps", [None, {}, {headers.DEPTH: "-1"}, {headers.DEPTH: "x"}, {headers.DEPTH: " 1"}])
def test_a_required_depth_that_is_missing_or_wrong_violates_the_protocol(stamps: dict[str, str] | None) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        headers.required_depth(stamps)
    assert caught.value.code == "protocol_violation"


def test_a_depth_of_twenty_is_too_deep() -> None:
    with pytest.raises(TooDeep) as caught:
        headers.required_depth({headers.DEPTH: "20"})
    assert caught.value.code == "recursion_depth_exceeded"


@pytest.mark.parametrize(("current", "read"), [(1, (1,)), (2, (2, 1)), (3, (3, 2))])
def test_the_current_version_and_the_one_before_it_are_read(current: int, read: tuple[int, ...]) -> None:
    assert envelope.accepted(current) == read


@pytest.mark.parametrize("version", ["0", "2", "1.0", "", "one"])
def test_an_envelope_of_another_version_is_malformed(version: str) -> None:
    with pytest.raises(Malformed, match=r"^version: "):
        envelope.read({"id": "a", "version": version})


@pytest.mark.parametrize(
    ("type", "name", "version"),
    [
        ("work.coding", "work.coding", 1),
        ("work.coding.v1", "work.coding", 1),
        ("work.coding.v12", "work.coding", 12),
        ("work.very", "work.very", 1),
        ("vote.v", "vote.v", 1),
        (".v2", ".v2", 1),
        ("work.coding.v\N{SUPERSCRIPT TWO}", "work.coding.v\N{SUPERSCRIPT TWO}", 1),
    ],
)
def test_a_types_suffix_says_its_version(type: str, name: str, version: int) -> None:
    assert envelope.versioned(type) == (name, version)


RUN_SUBJECT = "workflow.lab.fix.uid-1.agent.coder.tool_call"


@pytest.mark.parametrize(
    "body",
    [
        {"workflow_uid": "uid-1", "agent_id": "ada", "content": "ls", "message_id": "m1", "runId": "r1"},
        {"workflowUid": "uid-1", "agentId": "ada", "text": "ls", "messageId": "m1", "run_id": "r1"},
        {"data": {"agent_run_uid": "uid-1", "agentId": "ada", "message": "ls", "id": "m1"}, "runId": "r1"},
        {"message": {"uid": "uid-1", "agent": "ada", "text": "ls"}, "event_id": "m1", "runId": "r1"},
    ],
)
def test_a_workflows_message_is_the_same_in_every_spelling_and_shape(body: dict[str, object]) -> None:
    told = workflow.read(RUN_SUBJECT, body)
    assert (told.identity.uid, told.identity.run_id, told.agent, told.content, told.id) == (
        "uid-1",
        "r1",
        "ada",
        "ls",
        "m1",
    )
    assert (told.kind, told.role, told.general, told.ending) == ("tool_call", "assistant", False, "")


def test_a_workflows_subject_tells_what_its_body_leaves_out() -> None:
    told = workflow.read(RUN_SUBJECT, {"status": "running"})
    assert (told.identity.namespace, told.identity.name, told.identity.uid) == ("lab", "fix", "uid-1")
    attrs = {"status": "running", "nats_subject": RUN_SUBJECT}
    assert (told.agent, told.content, told.attrs) == ("coder", "running", attrs)


@pytest.mark.parametrize(
    ("body", "content"),
    [({"tool": "bash"}, "bash"), ({"tool": {"name": "bash"}}, "bash"), ({"exit_code": 2}, "exit code 2")],
)
def test_a_workflows_message_without_a_text_is_told_by_what_it_has(body: dict[str, object], content: str) -> None:
    assert workflow.read(RUN_SUBJECT, body).content == content


@pytest.mark.parametrize("kind", ["status", "error", "run-complete"])
def test_what_a_runtime_says_itself_has_the_role_system(kind: str) -> None:
    assert workflow.read(f"workflow.a.b.c.agent.d.{kind}", {"text": "x"}).role == "system"
    assert workflow.read(f"workflow.a.b.c.agent.d.{kind}", {"text": "x", "role": "tool"}).role == "tool"


def test_a_workflows_subject_put_together_is_read_as_it_was_meant() -> None:
    identity = workflow.Identity("uid 1", "my.flow", "lab")
    subject = workflow.subject(identity, agent="a.b", kind="message")
    told = workflow.read(subject, {"workflow_uid": "uid 1", "workflow_name": "my.flow", "text": "x"})
    assert (told.identity, told.general) == (identity, False)
    assert workflow.run_id("p", "uid 1") == workflow.run_id("p", subjects.token("uid 1"))
    assert workflow.read(workflow.subject(workflow.Identity(), agent="a", kind="log"), {"text": "x"}).general


def test_every_reader_reads_a_stream_of_the_table() -> None:
    names = {stream.name: stream for stream in STREAMS}
    for consumer in CONSUMERS:
        kept = names[consumer.stream].subjects
        for pattern in consumer.patterns:
            subject = pattern.replace(">", "x").replace("*", "x")
            assert any(matches(wanted, subject) for wanted in kept), pattern


@pytest.mark.parametrize("run_id", ["run_2026-02-16_k3v9x0q2mz", "run_x0123456789", "run_01"])
def test_a_turn_tells_its_run(run_id: str) -> None:
    assert turns.run_of(turns.turn_id(run_id, 12)) == run_id
    assert turns.run_of(run_id) == run_id
