"""What the bridge makes of headers and versions: strict where a message may start runs, lenient elsewhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from openvibe import node, operator, workflow
from openvibe.bus import Message
from openvibe.protocol import headers, turns
from openvibe.protocol.commands import PATTERNS
from operators.bridge import ingest
from operators.models import Event, InboxItem, Operator, Project, Run
from operators.services import deliveries
from tests.bridge.conftest import letters, said
from tests.bridge.village import served

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project", "memory")]

OPERATORS = "operators.scout.events.company.found"
PUBLIC = "cg.v1.default.public.evt.agent.scout.message"


def event(**stamps: str) -> Message:
    return Message(OPERATORS, b'{"id": "m1", "content": "found"}', stamps)


def depth(text: str) -> dict[str, str]:
    return {"CG-Recursion-Depth": text}


@pytest.mark.parametrize("stamps", [{}, depth(""), depth("-1"), depth("one"), depth("1.0"), depth("²"), depth("٣")])
def test_an_event_that_may_start_runs_must_say_how_deep_it_stands(stamps: dict[str, str]) -> None:
    ingest.take([event(**stamps)])
    ((_, _, reason),) = letters()
    assert reason.startswith("protocol_violation: CG-Recursion-Depth")
    told = Event.objects.get(kind="error")
    assert (told.channel, told.data["code"]) == ("public", "protocol_violation")
    assert not InboxItem.objects.exists()


@pytest.mark.parametrize("text", ["20", "21", "99999"])
def test_a_chain_that_is_too_long_is_refused_and_everybody_hears_of_it(text: str) -> None:
    ingest.take([event(**depth(text))])
    assert letters()[0][2].startswith("recursion_depth_exceeded: ")
    assert Event.objects.get(kind="error", channel="public").data["code"] == "recursion_depth_exceeded"
    assert not InboxItem.objects.exists()


@operator(id="listener")
class Listener:
    heard: int = 0

    @workflow(id="listen", trigger="event:scout.company_found", inputs=("heard",))
    class Listen:
        @node
        def listen(self, state):
            return {}


@pytest.fixture
def listener(project: Project) -> Iterator[Operator]:
    for found in served(project, Listener):
        yield found["listener"]


def refusals() -> list[tuple[str, str, str]]:
    told = Event.objects.filter(kind="event.refused", channel="public").order_by("seq")
    return [(event.data["name"], event.data["workflow"], event.data["code"]) for event in told]


def test_a_listener_at_the_end_of_a_chain_does_not_start_and_everybody_hears_of_it_once(listener: Operator) -> None:
    ingest.take([event(**depth("18"))])
    assert (Run.objects.get().depth, refusals()) == (19, [])
    last = Message(OPERATORS, b'{"id": "m2", "payload": {"heard": 1}}', depth("19"))
    for _ in range(2):
        ingest.take([last])
    # As another server does that shares the database.
    name = InboxItem.objects.order_by("-id")[0].body["message_id"]
    deliveries.start_listeners("default", "scout.company_found", {}, message_id=name, depth=20)
    assert Run.objects.count() == 1
    assert refusals() == [("scout.company_found", "listener.listen", "recursion_depth_exceeded")]


def test_an_event_that_does_not_fit_its_listener_is_told_of(listener: Operator) -> None:
    ingest.take([Message(OPERATORS, b'{"id": "m1", "heard": "many"}', depth("0"))])
    assert refusals() == [("scout.company_found", "listener.listen", "invalid")]
    assert not Run.objects.exists()


def test_an_events_depth_and_trace_go_on_in_what_it_starts() -> None:
    trace = headers.new_trace()
    ingest.take([event(traceparent=trace, **depth("7"))])
    told = InboxItem.objects.get().body
    assert (told["depth"], told["traceparent"]) == (7, trace)


def test_elsewhere_a_wrong_depth_matters_to_nobody() -> None:
    ingest.take([Message(PUBLIC, b'{"id": "m1", "content": "hello"}', depth("deep"))])
    assert said() == ["hello"]


@pytest.mark.parametrize("body", [{"CG-Sender": "me"}, {"payload": {"cg-recursion-depth": 3}}])
def test_protocol_keys_in_a_body_are_warned_about(body: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ingest.take([Message(PUBLIC, json.dumps({"id": "m1", "content": "hello", **body}).encode())])
    assert said() == ["hello"]
    assert "counts in headers only" in caplog.text


#: One subject of each kind that the bridge reads.
SUBJECTS = [
    *(f"cg.v1.default.public.evt.{speaker}.message" for speaker in ("agent.scout", "user.alice", "tool.search")),
    *(f"cg.v1.default.public.evt.agent.scout.{family}" for family in turns.FAMILIES),
    *(pattern.replace("*", "default", 1).replace("*", "public", 1).replace("*", "scout") for pattern in PATTERNS),
    "cg.v1.default.public.cmd.sys.pmo.internal.launch",
    "cg.v1.default.t_run_1.cmd.sys.reply.wait_1",
    "cg.v1.default.public.cmd.sys.ui.action",
]
ELSEWHERE = [
    OPERATORS,
    "workflow.general.message",
    "workflow.default.build.uid-1.agent.scout.message",
    "sessions.run_1.results",
    "sessions.run_1.approvals.lead",
    "sessions.run_1.events",
    "tenant.default.sessions.run_1.results",
]


def enveloped(subject: str, **fields: Any) -> Message:
    body = {"version": "1", "id": "m1", "type": "note", "content": "hello", "payload": {"found": 1}, **fields}
    return Message(subject, json.dumps(body).encode(), depth("0"))


@pytest.mark.parametrize("version", ["7", "0", "", 7])
@pytest.mark.parametrize("subject", [*SUBJECTS, *ELSEWHERE])
def test_an_envelope_of_a_version_that_is_not_known_is_a_dead_letter(subject: str, version: object) -> None:
    ingest.take([enveloped(subject, version=version)])
    assert [letter[2].partition(":")[0] for letter in letters()] == ["version"]
    assert not InboxItem.objects.exists()


def test_of_no_envelope_a_version_may_say_anything() -> None:
    bodies = [
        Message("workflow.general.message", b'{"version": "7", "text": "whole"}'),
        Message("workflow.general.message", b'{"version": "7", "data": {"text": "inside", "payload": {}}}'),
        Message(OPERATORS, b'{"version": "7", "content": "found"}', depth("0")),
    ]
    ingest.take(bodies)
    assert (said(), letters()) == (["whole", "inside", "found"], [])


def test_an_envelope_inside_a_foreign_body_counts_as_one() -> None:
    ingest.take([Message("workflow.general.message", b'{"data": {"version": "7", "text": "hi", "payload": {}}}')])
    assert letters()[0][2].startswith("version: '7'")


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_type_of_a_version_that_is_not_known_is_a_dead_letter(subject: str) -> None:
    ingest.take([enveloped(subject, type="agent.message.v9")])
    assert letters()[0][2].startswith("type: 'agent.message.v9' is of a version that is not read (.v1)")


@pytest.mark.parametrize("type", ["agent.message", "agent.message.v1", "v9", "agent.message.vast", ""])
def test_a_type_in_its_first_version_is_read_with_and_without_its_suffix(type: str) -> None:
    ingest.take([enveloped(PUBLIC, type=type)])
    assert (said(), letters()) == (["hello"], [])


def test_an_operators_event_may_be_called_as_it_likes() -> None:
    ingest.take([enveloped("operators.scout.events.report.v9", type="report.v9")])
    assert (said(), letters()) == (["hello"], [])


@pytest.mark.parametrize(("type", "read"), [("event.note.v1", True), ("event.note.v2", False)])
def test_a_types_version_suffix_is_understood(run: Run, type: str, read: bool) -> None:
    body = {
        "version": "1", "id": "m1", "timestamp": "2026-02-16T10:00:00Z", "session_id": run.id, "type": type,
        "payload": {"content": "hello"},
    }  # fmt: skip
    ingest.take([Message(f"sessions.{run.id}.events", json.dumps(body).encode())])
    told = said(f"t_{run.id}")
    # What is not read is told in the thread, too.
    assert told == ["hello"] if read else "is of a version that is not read" in told[0]
    assert [letter[2].partition(":")[0] for letter in letters()] == ([] if read else ["type"])
