"""Commands of the dialect `cg`: they start runs, answer the calls of tools, and stop runs, each once."""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

import orjson
import pytest

from openvibe.bus import Message
from operators.bridge import ingest
from operators.models import Box, DeadLetter, Emission, Event, InboxItem, Operator, Project, Run, Server, Wait
from operators.services import announcements, boxes, cards, execution, intake
from tests.bridge.conftest import SOON, letters

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project", "memory")]

numbers = itertools.count(1)


@pytest.fixture
def calling(critic: Operator) -> Run:
    """A run whose agent waits for a remote tool."""
    return played(intake.request(critic.workflows.get(), input={"loaves": 3}, actor=None))


def played(run: Run) -> Run:
    execution.perform(run.id)
    run.refresh_from_db()
    return run


def card(content: Any) -> str:
    return str(cards.keep("default", content, orjson.dumps(content))["card"])


def command(
    kind: str, fields: dict[str, Any], *, agent: str = "critic", channel: str = "public", project: str = "default",
    depth: str | None = "0", id: str = "", sender: str = "taster",
) -> Message:  # fmt: skip
    headers = {"CG-Sender": sender} | ({"CG-Recursion-Depth": depth} if depth is not None else {})
    body = {"id": id or f"m{next(numbers)}", "agent_id": agent, **fields}
    return Message(f"cg.v1.{project}.{channel}.cmd.agent.{agent}.{kind}", json.dumps(body).encode(), headers)


def result(run: Run, content: Any = "nutty", **fields: Any) -> Message:
    wait = run.waits.get(kind="tool")
    told = {
        "tool_call_id": wait.payload["tool_call_id"],
        "agent_turn_id": run.turn_id,
        "turn_epoch": run.epoch,
        "after_execution": "suspend",
        "status": "success",
        "tool_result_card_id": card(content),
    }
    extras = {name: fields.pop(name) for name in ("channel", "depth", "agent", "project") if name in fields}
    return command("tool_result", {**told, **fields}, **{"channel": f"t_{run.id}", **extras})


def kinds(run: Run) -> list[str]:
    return list(
        Event.objects.filter(run_id=run.id, channel=f"t_{run.id}").order_by("seq").values_list("kind", flat=True)
    )


def reasons() -> list[tuple[str, str]]:
    return list(InboxItem.objects.order_by("id").values_list("status", "reason"))


def test_a_tools_result_goes_to_the_model_and_the_run_goes_on(calling: Run) -> None:
    ingest.take([result(calling, {"result": {"taste": "nutty"}})])
    wait = calling.waits.get()
    assert (wait.status, wait.result, wait.decider) == ("resolved", {"taste": "nutty"}, "taster")
    assert played(calling).status == "completed"
    assert calling.output["after"] == "went on"


def test_the_fields_of_a_command_may_also_lie_in_an_envelopes_payload(calling: Run) -> None:
    message = result(calling)
    fields = json.loads(message.data)
    body = {"version": "1", "id": "e1", "type": "tool_result", "payload": fields}
    ingest.take([Message(message.subject, json.dumps(body).encode(), message.headers)])
    assert calling.waits.get().result == "nutty"


def test_the_same_result_under_many_message_ids_is_one_result(calling: Run) -> None:
    message = result(calling)
    copies = [
        Message(
            message.subject, json.dumps(json.loads(message.data) | {"id": f"copy {number}"}).encode(), message.headers
        )
        for number in range(20)
    ]
    ingest.take(copies)
    ingest.take(copies[3:7])
    assert reasons() == [("consumed", "")]
    assert kinds(calling).count("tool.answered") == 1


def test_a_second_result_of_another_content_is_refused_and_told(calling: Run) -> None:
    ingest.take([result(calling), result(calling, "sour")])
    assert calling.waits.get().result == "nutty"
    assert [status for status, _ in reasons()] == ["consumed", "skipped"]
    refused = Event.objects.get(kind="answer.refused")
    assert (refused.data["reason"], refused.actor) == ("already_answered", "taster")


@pytest.mark.parametrize("off", [-1, 1])
def test_a_result_that_quotes_another_epoch_changes_nothing_and_is_told(calling: Run, off: int) -> None:
    ingest.take([result(calling, turn_epoch=calling.epoch + off)])
    assert calling.waits.get().status == "pending"
    assert Event.objects.get(kind="answer.refused").data["reason"] == "stale_turn"
    # It has not used up the call: the right one still counts.
    ingest.take([result(calling)])
    assert calling.waits.get().result == "nutty"


def test_a_result_for_the_turn_before_a_retry_is_stale(calling: Run) -> None:
    early = result(calling)
    Run.objects.update(retries=1)
    ingest.take([early])
    assert calling.waits.get().status == "pending"
    assert Event.objects.get(kind="answer.refused").data["reason"] == "stale_turn"


def test_a_result_that_comes_after_the_end_changes_nothing_and_is_told(calling: Run, alice) -> None:
    late = result(calling)
    intake.cancel(calling, actor=alice)
    ingest.take([late, late])
    assert kinds(calling)[-2:] == ["run.cancelled", "answer.refused"]
    assert calling.waits.get().status == "cancelled"


@pytest.mark.parametrize(
    ("message", "control"), [("terminate", None), ("suspend", "terminate"), ("terminate", "nonsense")]
)
def test_a_result_that_terminates_is_the_runs_last_word(calling: Run, message: str, control: str | None) -> None:
    content = {"result": {"verdict": "nutty", **({"__cg_control": {"after_execution": control}} if control else {})}}
    ingest.take([result(calling, content, after_execution=message)])
    assert played(calling).status == "completed"
    assert calling.output == {"loaves": 3, "verdict": '{"verdict":"nutty"}'}
    assert Emission.objects.get().name == "critic.judged"
    assert calling.llm_calls == 1


def test_what_the_result_itself_says_counts_more_than_the_message(calling: Run) -> None:
    content = {"result": {"taste": "nutty", "__cg_control": {"after_execution": "suspend"}}}
    ingest.take([result(calling, content, after_execution="terminate")])
    assert played(calling).output["after"] == "went on"
    assert calling.waits.get().result == {"taste": "nutty"}


@pytest.mark.parametrize(
    ("status", "content", "error"),
    [
        ("failed", {"error": {"code": "burnt", "message": "It is black"}}, "burnt: It is black"),
        ("canceled", {}, "canceled"),
        ("timeout", "nobody was in", "nobody was in"),
        ("partial", "half of it", ""),
    ],
)
def test_each_status_of_a_result_is_told_to_the_model(calling: Run, status: str, content: Any, error: str) -> None:
    ingest.take([result(calling, content, status=status)])
    assert calling.waits.get().error == error
    assert played(calling).status == "completed"


def test_an_agents_box_holds_its_calls_their_results_and_then_what_it_delivered(calling: Run) -> None:
    ingest.take([result(calling, "nutty")])
    assert played(calling).status == "completed"
    assert announcements.settle(SOON)
    box = Box.objects.get(name=f"{calling.turn_id}-output")
    called, answered, *_, deliverable = [cards.content("default", sha256) for sha256 in box.cards]
    assert deliverable == calling.output
    assert [call["name"] for call in called["calls"]] == ["taste"]
    assert (answered["tool"], answered["result"]) == ("taste", "nutty")


def test_a_failure_that_terminates_fails_the_run(calling: Run) -> None:
    ingest.take([result(calling, {"error": {"message": "black"}}, status="failed", after_execution="terminate")])
    assert played(calling).status == "failed"
    assert calling.error["message"] == "black"


def test_a_timeout_of_a_tool_is_told_to_the_model(calling: Run) -> None:
    call = calling.waits.get().payload["tool_call_id"]
    told = {"tool_call_id": call, "agent_turn_id": calling.turn_id, "turn_epoch": calling.epoch}
    ingest.take([command("timeout", told, channel=f"t_{calling.id}")])
    assert calling.waits.get().error.startswith("tool_timeout")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"result": "inline"}, "result: it belongs into a card"),
        ({"arguments": {}}, "arguments: it belongs into a card"),
        ({"args": {}}, "args: it belongs into a card"),
        ({"status": "fine"}, "status"),
        ({"after_execution": "explode"}, "after_execution"),
        ({"turn_epoch": None}, "turn_epoch"),
        ({"turn_epoch": "soon"}, "turn_epoch"),
        ({"tool_call_id": ""}, "tool_call_id"),
        ({"tool_result_card_id": None}, "tool_result_card_id"),
        ({"agent_id": "baker"}, "not the agent of the subject"),
        ({"agent": "baker"}, "is one of 'critic'"),
        ({"channel": "t_run_other"}, "is not that of the channel"),
        ({"depth": None}, "CG-Recursion-Depth is missing"),
        ({"depth": "-1"}, "no natural number"),
        ({"depth": "1.5"}, "no natural number"),
        ({"depth": "3"}, "was sent with 0"),
    ],
)
def test_a_result_that_breaks_the_protocol_is_buried(calling: Run, fields: dict[str, Any], reason: str) -> None:
    ingest.take([result(calling, **fields)])
    letter = DeadLetter.objects.get()
    assert letter.reason.startswith("protocol_violation: ")
    assert reason in letter.reason
    assert not InboxItem.objects.exists()
    assert calling.waits.get().status == "pending"


@pytest.mark.parametrize("name", ["result", "args", "arguments"])
def test_what_belongs_into_a_card_may_lie_neither_in_a_payload_nor_beside_it(calling: Run, name: str) -> None:
    right = result(calling)
    told = json.loads(right.data)
    beside = {"id": "m1", "payload": told, name: {}}
    inside = {"id": "m2", "payload": {**told, name: {}}}
    ingest.take([Message(right.subject, json.dumps(body).encode(), right.headers) for body in (beside, inside)])
    assert [letter.reason.partition(":")[2] for letter in DeadLetter.objects.all()] == [
        f" {name}: it belongs into a card, at which the message points"
    ] * 2
    assert calling.waits.get().status == "pending"


def test_a_result_whose_card_nobody_has_is_buried_until_there_is_one(calling: Run) -> None:
    content = "nutty"
    pointer = hashlib.sha256(orjson.dumps(content)).hexdigest()
    ingest.take([result(calling, "sour", tool_result_card_id=pointer)])
    letter = DeadLetter.objects.get()
    assert f"there is no card '{pointer}'" in letter.reason
    card(content)
    assert not ingest.replay(letter)
    assert calling.waits.get().result == "nutty"


def test_garbage_and_strangers_are_buried_and_cost_no_other_message(calling: Run, other_project: Project) -> None:
    good = result(calling)
    garbage = Message(good.subject, b"\xff{", good.headers)
    stranger = result(calling, agent_turn_id="run_of_nobody", channel="public")
    elsewhere = result(calling, project="other", channel="public")
    nowhere = result(calling, project="nowhere")
    ingest.take([garbage, stranger, elsewhere, nowhere, good])
    assert [reason.split(":")[0] for _, _, reason in letters()] == [
        "The body is no JSON", "agent_turn_id", "agent_turn_id", "There is no project 'nowhere'",
    ]  # fmt: skip
    assert calling.waits.get().status == "resolved"


def test_a_result_for_a_call_that_was_never_made_is_skipped(calling: Run) -> None:
    ingest.take([result(calling, tool_call_id="call_of_nobody")])
    assert reasons() == [("skipped", f"Run {calling.id} has made no call 'call_of_nobody'")]


def test_what_we_say_ourselves_is_not_read(calling: Run) -> None:
    message = result(calling)
    ingest.take([Message(message.subject, message.data, {**message.headers, "CG-Sender": "openvibe"})])
    assert (letters(), reasons()) == ([], [])


def test_a_stop_cancels_the_run_and_says_who_and_why(calling: Run) -> None:
    told = {"agent_turn_id": calling.turn_id, "turn_epoch": calling.epoch, "reason": "Enough"}
    ingest.take([command("stop", told, sender="boss"), command("stop", told, sender="boss")])
    calling.refresh_from_db()
    assert (calling.status, calling.waits.get().status) == ("cancelled", "cancelled")
    event = Event.objects.get(kind="run.cancelled", channel=f"t_{calling.id}")
    assert (event.actor, event.data["reason"]) == ("boss", "Enough")
    assert reasons() == [("consumed", "")]


def test_a_stop_of_an_older_epoch_changes_nothing_and_is_told(calling: Run) -> None:
    ingest.take([command("stop", {"agent_turn_id": calling.turn_id, "turn_epoch": calling.epoch - 1}, sender="boss")])
    calling.refresh_from_db()
    assert calling.status == "waiting"
    assert Event.objects.get(kind="stop.refused").data == {"turn_epoch": 0, "by": "boss", "reason": "stale_turn"}


def test_a_turn_starts_one_run_with_what_its_card_says(crier: Operator) -> None:
    told = {"agent_turn_id": "theirs-1", "context_box_id": card("hear ye")}
    ingest.take([command("turn", told, agent="crier", depth="4"), command("turn", told, agent="crier", depth="4")])
    run = Run.objects.get()
    assert (run.input, run.depth, run.trigger) == ({"instruction": "hear ye"}, 4, "turn:theirs-1")
    assert played(run).output["cried"] == "HEAR YE"


@pytest.mark.parametrize(
    ("contents", "instruction"),
    [(["hear ye"], "hear ye"), (["hear", "ye"], "hear\n\nye"), (["hear", {"a": 1}], 'hear\n\n{"a":1}'),
     ([{"instruction": "old"}, {"instruction": "hear ye"}], "hear ye")],
)  # fmt: skip
def test_a_turns_context_may_be_a_box_of_cards(crier: Operator, contents: list[Any], instruction: str) -> None:
    box = boxes.make(crier.project, "box_1", [card(content) for content in contents])
    ingest.take([command("turn", {"agent_turn_id": "theirs-1", "context_box_id": box.name}, agent="crier", depth="0")])
    assert Run.objects.get().input == {"instruction": instruction}


def test_the_same_turn_with_another_depth_breaks_the_protocol(crier: Operator) -> None:
    told = {"agent_turn_id": "theirs-1", "context_box_id": card("hear ye")}
    ingest.take([command("turn", told, agent="crier", depth="4")])
    ingest.take([command("turn", told, agent="crier", depth="5")])
    assert DeadLetter.objects.get().reason.startswith("protocol_violation: CG-Recursion-Depth is 5")
    assert Run.objects.count() == 1


def test_a_turn_of_a_runs_own_is_its_child(calling: Run, crier: Operator) -> None:
    told = {"context_box_id": card({"instruction": "hear ye", "noise": 1}), "parent_agent_turn_id": calling.id}
    ingest.take([command("turn", told, agent="crier", depth="1"), command("turn", told, agent="crier", depth="0")])
    child = calling.children.get()
    assert (child.depth, child.traceparent, child.input) == (1, calling.traceparent, {"instruction": "hear ye"})
    assert "is 1 deep" in DeadLetter.objects.get().reason


@pytest.mark.parametrize(
    ("fields", "depth", "code"),
    [
        ({}, None, "protocol_violation"),
        ({}, "many", "protocol_violation"),
        ({}, "20", "recursion_depth_exceeded"),
        ({"enqueue_mode": "transfer"}, "0", "protocol_violation"),
        ({"enqueue_mode": "notify"}, "0", "protocol_violation"),
        ({"args": {}}, "0", "protocol_violation"),
        ({"context_box_id": "nothing"}, "0", "context_box_id"),
    ],
)
def test_a_turn_that_breaks_a_rule_starts_nothing(
    crier: Operator, fields: dict[str, Any], depth: str | None, code: str
) -> None:
    ingest.take([command("turn", fields, agent="crier", depth=depth)])
    assert DeadLetter.objects.get().reason.startswith(f"{code}: ")
    assert not Run.objects.exists()


def test_a_wakeup_starts_a_run_once_for_each_message(crier: Operator) -> None:
    bell = command("wakeup", {"reason": "morning"}, agent="crier", id="bell-1")
    ingest.take([bell, bell, command("wakeup", {"metadata": {"workflow": "cry"}}, agent="crier", id="bell-2")])
    assert [run.trigger for run in Run.objects.all()] == ["wakeup", "wakeup"]


def test_a_wakeup_on_a_runs_channel_starts_nothing(calling: Run) -> None:
    ingest.take([command("wakeup", {}, channel=f"t_{calling.id}")])
    assert reasons() == [("skipped", f"Run {calling.id} is waiting; nothing is to be woken")]
    assert Run.objects.count() == 1


def test_a_wakeup_for_an_inbox_item_starts_nothing(crier: Operator) -> None:
    ingest.take([command("wakeup", {"inbox_id": "77"}, agent="crier")])
    assert not Run.objects.exists()


def test_an_agent_that_nobody_serves_is_told_apart_from_one_of_another_server(project: Project) -> None:
    ingest.take([command("wakeup", {}, agent="nobody")])
    assert "nobody knows the agent 'nobody'" in DeadLetter.objects.get().reason
    long_ago = "2026-01-01T00:00Z"
    Server.objects.create(project=project, name="east", operators=["cook"], beat_at=long_ago, heard_at=long_ago)
    ingest.take([command("wakeup", {}, agent="cook")])
    assert DeadLetter.objects.count() == 1
    assert not InboxItem.objects.exists()


def test_an_operator_of_several_workflows_is_asked_which(project: Project, crier: Operator) -> None:
    crier.workflows.create(slug="whisper", name="Whisper", trigger_id="whisper", spec={"inputs": []})
    ingest.take([command("wakeup", {}, agent="crier")])
    [(status, reason)] = reasons()
    assert (status, "name one: cry, whisper" in reason) == ("skipped", True)


def test_a_disabled_operator_starts_nothing(crier: Operator) -> None:
    Operator.objects.update(enabled=False)
    ingest.take([command("wakeup", {}, agent="crier")])
    assert reasons()[0][1].startswith("operator_disabled")


def test_the_waits_of_others_are_out_of_a_results_reach(calling: Run) -> None:
    """A gate, for one, is decided by those whom it asks."""
    Wait.objects.update(kind="approval")
    message = command("tool_result", {
        "tool_call_id": calling.waits.get().payload["tool_call_id"], "agent_turn_id": calling.turn_id,
        "turn_epoch": calling.epoch, "after_execution": "suspend", "status": "success",
        "tool_result_card_id": card("yes"),
    })  # fmt: skip
    ingest.take([message])
    assert calling.waits.get().status == "pending"
