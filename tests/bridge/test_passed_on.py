"""Headers that go on in everything that follows from a message: into the runs that it starts, and out of them again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import orjson
import pytest
from django.contrib.auth.models import User

from openvibe import node, operator, workflow
from openvibe.bus import Message
from openvibe.bus.memory import MemoryBus
from openvibe.protocol import headers
from operators.bridge import ingest
from operators.link import link
from operators.models import Emission, Errand, Notice, Operator, Project, Run
from operators.services import agents, announcements, cards, deliveries, errands, execution, intake, notices, outgoing
from operators.services.words import Words
from tests.api.conftest import caller
from tests.bridge.conftest import SOON, eventually
from tests.bridge.test_commands import command, result
from tests.bridge.village import served

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]

TRACE = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
PASSED_ON = {
    "tracestate": "rojo=00f067aa0ba902b7,congo=t61",
    "CG-User-ID": "u-7",
    "CG-Channel-ID": "c-1",
    "CG-Context-ID": "ctx 9",
}
SENT = {"traceparent": TRACE, "CG-Recursion-Depth": "0", "CG-Sender": "taster", **PASSED_ON}


@operator(id="listener")
class Listener:
    heard: str = ""

    @workflow(id="listen", trigger="event:scout.found", inputs=("heard",))
    class Listen:
        @node
        def listen(self, state):
            return {}

    @workflow(id="gossip", trigger="event:critic.judged")
    class Gossip:
        @node
        def gossip(self, state):
            return {}


@pytest.fixture
def listener(project: Project) -> Iterator[Operator]:
    for found in served(project, Listener):
        yield found["listener"]


class Wire(list[Message]):
    """What was said on the bus, in order."""

    async def hear(self, message: Message) -> None:
        self.append(message)

    def on(self, end: str) -> Message:
        [found] = [message for message in self if message.subject.endswith(end)]
        return found


@pytest.fixture
def wire(memory: MemoryBus) -> Wire:
    heard = Wire()
    for pattern in ("cg.>", "operators.>", "sessions.>"):
        link.submit(memory.subscribe(pattern, heard.hear)).result(SOON)
    return heard


def passed_on(stamps: Mapping[str, str]) -> dict[str, str]:
    return {name: stamps[name] for name in PASSED_ON if name in stamps}


def played(run: Run) -> Run:
    execution.perform(run.id)
    run.refresh_from_db()
    return run


def test_all_that_a_run_says_bears_what_came_with_the_turn_that_started_it(
    wire: Wire, critic: Operator, listener: Operator
) -> None:
    turn = command("turn", {"metadata": {"workflow": "judge"}})
    ingest.take([Message(turn.subject, turn.data, SENT)])
    run = played(Run.objects.get())
    assert (run.traceparent, run.passed_on) == (TRACE, PASSED_ON)
    deliveries.ask(run.waits.get().id)
    ingest.take([result(run)])
    played(run)
    [emission] = Emission.objects.all()
    deliveries.deliver(emission.id)
    assert announcements.settle(SOON)

    # The call of its tool, its event, how its turn goes.
    said = [wire.on("cmd.tool.taste.call"), wire.on("operators.critic.events.judged")]
    said += [message for message in wire if ".evt.agent.critic." in message.subject and run.id in message.subject]
    assert {message.subject.rsplit(".", 1)[1] for message in said} >= {"call", "judged", "step", "state", "task"}
    for message in said:
        assert (message.headers["traceparent"], passed_on(message.headers)) == (TRACE, PASSED_ON), message.subject
    # And the run that it has started.
    assert Run.objects.get(operator=listener).passed_on == PASSED_ON


def test_words_that_pass_by_bear_no_headers(wire: Wire, critic: Operator) -> None:
    run = intake.request(critic.workflows.get(), input={"loaves": 3}, actor=None, passed_on=PASSED_ON)
    words = Words(run)
    words.add(node="advise", step_id="s1", text="nutty")
    words.flush()
    eventually(lambda: [message for message in wire if b'"end"' in message.data])
    frames = [message for message in wire if ".str.agent.critic." in message.subject]
    assert [dict(message.headers) for message in frames] == [{}] * 3


def test_headers_are_filled_only_where_they_are_missing(wire: Wire) -> None:
    given = {"CG-Sender": "somebody", "CG-Timestamp": "2026-01-01T00:00:00Z", "CG-Msg-Type": "mine"}
    subject, body = "cg.v1.default.public.evt.agent.x.note", {"id": "n1"}
    assert outgoing.store(subject, body, "note", traceparent=TRACE, depth=3, more=given)
    stamps = wire.on(".note").headers
    assert {name: stamps[name] for name in given} == given
    assert (stamps["traceparent"], stamps["CG-Recursion-Depth"], stamps["CG-Version"]) == (TRACE, "3", "v1")


def test_a_turn_that_is_refused_is_answered_with_them(wire: Wire, critic: Operator) -> None:
    # Refused when it is read, and when it is applied.
    for fields in ({"enqueue_mode": "notify"}, {"profile_box_id": "no such workflow"}):
        turn = command("turn", {"agent_turn_id": f"t{len(fields)}{next(iter(fields))}", **fields})
        ingest.take([Message(turn.subject, turn.data, SENT)])
    for notice in Notice.objects.all():
        assert notices.send(notice.pk)
    tasks = [message for message in wire if message.subject.endswith(".evt.agent.critic.task")]
    assert [(message.headers["traceparent"], passed_on(message.headers)) for message in tasks] == [
        (TRACE, PASSED_ON)
    ] * 2


def test_what_agents_hear_of_a_run_bears_them(wire: Wire, critic: Operator) -> None:
    run = intake.request(critic.workflows.get(), input={"loaves": 3}, actor=None, passed_on=PASSED_ON)
    agents.start(run, "ada", role="coding", container_id="", actor="alice")
    [notice] = Notice.objects.all()
    assert notices.send(notice.pk)
    assert passed_on(wire.on(f"sessions.{run.id}.events").headers) == PASSED_ON


def test_an_event_from_elsewhere_hands_them_to_what_it_starts(wire: Wire, listener: Operator) -> None:
    ingest.take([Message("operators.scout.events.found", b'{"id": "m1", "heard": "news"}', SENT)])
    assert Run.objects.get().passed_on == PASSED_ON


def test_an_external_run_keeps_them(wire: Wire) -> None:
    ingest.take([Message("workflow.lab.fix.uid-1.agent.coder.message", b'{"id": "m1", "content": "I begin"}', SENT)])
    ingest.take([Message("cg.v1.default.t_job-7.evt.agent.coder.state", orjson.dumps({
        "agent_id": "coder", "agent_turn_id": "t7", "status": "running", "turn_epoch": 1,
        "updated_at": "2026-01-01T00:00:00Z"}), SENT)])  # fmt: skip
    assert [run.passed_on for run in Run.objects.all()] == [PASSED_ON, PASSED_ON]


def test_who_calls_a_tool_of_ours_finds_them_in_the_answer_and_in_the_runs_that_were_sent_out(
    wire: Wire, crier: Operator
) -> None:
    arguments = {"expert_profile": "crier", "question": "what news"}
    call = {
        "agent_id": "far",
        "agent_turn_id": "far-1",
        "turn_epoch": 1,
        "tool_call_id": "call-1",
        "tool_call_card_id": cards.keep("default", arguments, orjson.dumps(arguments))["card"],
    }
    subject = "cg.v1.default.public.cmd.sys.pmo.internal.ask_expert"
    ingest.take([Message(subject, json.dumps(call).encode(), SENT)])
    run = Run.objects.get()
    assert run.passed_on == PASSED_ON
    played(run)
    errands.look(Errand.objects.get().id)
    answer = wire.on("cmd.agent.far.tool_result")
    assert (answer.headers["traceparent"], passed_on(answer.headers)) == (TRACE, PASSED_ON)


def test_a_user_interface_finds_them_in_the_acknowledgement(
    wire: Wire, project: Project, registered: object, alice: User
) -> None:
    project.ui_allowed = "start"
    project.save()
    body = {
        "action_id": "a1", "agent_id": "ui_alice", "tool_name": "start",
        "args": {"operator": "company_intel", "trigger": "query", "input": {"company_name": "Acme"}},
    }  # fmt: skip
    mine = PASSED_ON | {"CG-User-ID": "alice"}
    ingest.take([Message("cg.v1.default.public.cmd.sys.ui.action", json.dumps(body).encode(), SENT | mine)])
    assert Run.objects.get().passed_on == mine
    acks = [message for message in wire if message.subject.endswith("ui.action_ack")]
    assert [passed_on(message.headers) for message in acks] == [mine, mine]


def test_a_child_in_another_trace_has_that_ones_state_or_none(critic: Operator, crier: Operator, wire: Wire) -> None:
    turn = command("turn", {"metadata": {"workflow": "judge"}})
    ingest.take([Message(turn.subject, turn.data, SENT)])
    parent = Run.objects.get()
    other = headers.new_trace()
    asked = command("turn", {"parent_agent_turn_id": parent.turn_id}, agent="crier")
    ingest.take([Message(asked.subject, asked.data, {"traceparent": other, "CG-Recursion-Depth": "1"})])
    child = Run.objects.get(operator=crier)
    assert (child.parent, child.traceparent) == (parent, other)
    assert child.passed_on == {name: text for name, text in PASSED_ON.items() if name != "tracestate"}


@pytest.mark.usefixtures("memory", "registered")
def test_programs_hand_them_over_by_rest_and_by_webhook(alice: User, project: Project) -> None:
    calls, kind = caller(alice, project), {"content_type": "application/json", "headers": SENT}
    answers = [
        calls.post(
            "/v1/operators/company_intel/activate", {"trigger": "query", "input": {"company_name": "Acme"}}, **kind
        ),
        calls.post("/v1/sessions", {"graph": {"chunks": [{"id": "c1", "description": "Write it"}]}}, **kind),
        calls.post("/v1/webhooks/hubspot_new_lead/", {"id": 1, "contact_id": "7"}, **kind),
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 202], [answer.content for answer in answers]
    assert [(run.traceparent, run.passed_on) for run in Run.objects.all()] == [(TRACE, PASSED_ON)] * 3
    assert {run.depth for run in Run.objects.all()} == {0}


@pytest.mark.usefixtures("memory", "registered")
def test_what_people_and_programs_start_stands_at_depth_zero(alice: User, project: Project) -> None:
    # What a program says of depth by HTTP says nothing: no run of ours has started it.
    headers = SENT | {"CG-Recursion-Depth": "7"}
    acme = {"company_name": "Acme"}
    body = {"trigger": "query", "input": acme}
    calls = caller(alice, project)
    calls.post("/v1/operators/company_intel/activate", body, content_type="application/json", headers=headers)
    calls.force_login(alice)
    calls.post("/agents/operators/company_intel/research/runs/", acme)
    fields = {
        "agent_turn_id": "t-1",
        "profile_box_id": "research",
        "context_box_id": cards.keep("default", acme, orjson.dumps(acme))["card"],
    }
    ingest.take([command("turn", fields, agent="company_intel")])
    assert sorted(Run.objects.values_list("depth", "trigger")) == [(0, "api"), (0, "on_demand"), (0, "turn:t-1")]
