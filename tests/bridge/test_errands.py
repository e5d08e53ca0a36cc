"""Tools of our own: agents delegate, launch, ask and fork, and each call has one answer."""

from __future__ import annotations

import itertools
import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from openvibe.bus import Message
from openvibe.bus.memory import MemoryBus
from openvibe.protocol import internal
from openvibe.protocol.headers import new_trace
from operators import clock
from operators.bridge import ingest
from operators.link import link
from operators.models import Card, DeadLetter, Errand, Event, InboxItem, Operator, Run, Wait
from operators.services import deliveries, errands, intake, recalls
from tests.bridge.test_commands import card, played, reasons

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]

numbers = itertools.count(1)


def call(tool: str, given: dict[str, Any], /, *, depth: str = "2", answer_to: str = "", **fields: Any) -> Message:
    """A call by an agent that is none of ours."""
    told = {
        "agent_id": "scout", "agent_turn_id": "theirs-1", "turn_epoch": 1, "tool_call_id": f"call-{next(numbers)}",
        "tool_call_card_id": card(given), **fields,
    }  # fmt: skip
    headers = {"CG-Recursion-Depth": depth, "CG-Sender": "scout"}
    headers |= {"OpenVibe-Answer-To": answer_to} if answer_to else {}
    return Message(f"cg.v1.default.public.cmd.sys.pmo.internal.{tool}", json.dumps(told).encode(), headers)


def stored(memory: MemoryBus, pattern: str) -> list[Message]:
    """What a new reader of the stream of commands finds."""

    async def read() -> list[Message]:
        pull = await memory.pull("cg_cmd_v1", durable=f"reader-{next(numbers)}", patterns=[pattern])
        return list(await pull.fetch(20, timeout=0.2))

    return link.submit(read()).result(10)


def answers(memory: MemoryBus) -> list[tuple[dict[str, Any], Any, Message]]:
    """What the agent elsewhere was answered: the message, the card, and the whole."""
    found = [(json.loads(item.data), item) for item in stored(memory, "cg.v1.*.*.cmd.agent.*.tool_result")]
    return [(body, Card.objects.get(sha256=body["tool_result_card_id"]).content, item) for body, item in found]


def tasks(*targets: str) -> list[dict[str, str]]:
    return [{"target_ref": target, "instruction": f"hear {number}"} for number, target in enumerate(targets)]


def look() -> None:
    for errand_id in Errand.objects.filter(told_at=None).values_list("id", flat=True):
        assert errands.look(errand_id)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("delegate_async", {"target_strategy": "new", "target_ref": "crier", "instruction": "hear ye"}),
        ("delegate_async", {"target_strategy": "reuse", "target_ref": "crier.cry", "instruction": "hear ye"}),
        ("launch", {"profile_name": "crier", "instruction": "hear ye"}),
        ("launch_principal", {"profile_name": "crier", "instruction": "hear ye"}),
    ],
)
def test_who_delegates_goes_on_with_the_turn_that_was_started(
    crier: Operator, memory: MemoryBus, tool: str, arguments: dict[str, Any]
) -> None:
    message = call(tool, arguments)
    ingest.take([message, message])
    look()
    run = Run.objects.get()
    assert (run.input, run.depth, run.trigger) == ({"instruction": "hear ye"}, 3, f"pmo:{tool}")
    [(body, content, item)] = answers(memory)
    told = json.loads(message.data)
    quoted = ("agent_id", "agent_turn_id", "turn_epoch", "tool_call_id")
    assert {name: body[name] for name in quoted} == {name: told[name] for name in quoted}
    assert (body["status"], body["after_execution"], item.headers["CG-Recursion-Depth"]) == ("success", "suspend", "2")
    assert content["result"] == {
        "status": "accepted", "agent_id": "crier", "agent_turn_id": run.turn_id, "turn_epoch": 0
    }  # fmt: skip


def test_a_clone_begins_with_the_input_of_the_run_that_it_is_of(crier: Operator, memory: MemoryBus) -> None:
    first = intake.request(crier.workflows.get(), input={"instruction": "old"}, actor=None)
    ingest.take(
        [call("delegate_async", {"target_strategy": "clone", "target_ref": first.turn_id, "instruction": "new"})]
    )
    assert Run.objects.exclude(id=first.id).get().input == {"instruction": "new"}


def test_a_context_of_a_task_is_part_of_its_input(critic: Operator, memory: MemoryBus) -> None:
    arguments = {"target_ref": "critic", "instruction": "7", "context_box_id": card({"loaves": 5})}
    ingest.take([call("delegate_async", arguments)])
    assert Run.objects.get().input == {"loaves": 7}


def test_who_asks_an_expert_is_answered_when_the_run_has_ended(crier: Operator, memory: MemoryBus) -> None:
    ingest.take([call("ask_expert", {"expert_profile": "crier", "question": "what news"})])
    look()
    assert answers(memory) == []
    played(Run.objects.get())
    look()
    [(body, content, _)] = answers(memory)
    assert (body["status"], "WHAT NEWS" in content["result"]["answer"]) == ("success", True)
    output = Card.objects.get(sha256=content["result"]["output_card_id"]).content
    assert output["cried"] == "WHAT NEWS"


def test_an_expert_who_fails_is_an_error(crier: Operator, memory: MemoryBus, alice) -> None:
    ingest.take([call("ask_expert", {"expert_profile": "crier", "question": "what news"})])
    intake.cancel(Run.objects.get(), actor=alice)
    look()
    [(body, content, _)] = answers(memory)
    assert (body["status"], content["error"]["code"]) == ("canceled", "canceled")


def test_forks_are_joined_once_when_all_have_ended(crier: Operator, memory: MemoryBus) -> None:
    ingest.take([call("fork_join", {"tasks": tasks("crier", "nobody", "crier")})])
    first, second = Run.objects.order_by("created_at")
    played(first)
    look()
    assert answers(memory) == []
    played(second)
    look()
    look()
    [(body, content, _)] = answers(memory)
    assert (body["status"], content["result"]["status"]) == ("partial", "partial")
    results = content["result"]["results"]
    assert [(end["task_index"], end["status"]) for end in results] == [(0, "success"), (1, "failed"), (2, "success")]
    assert (results[0]["agent_turn_id"], "HEAR 0" in results[0]["summary"]) == (first.turn_id, True)
    assert "no agent 'nobody'" in results[1]["error"]


def test_forks_and_their_join_stay_in_the_callers_trace_and_at_its_depth(crier: Operator, memory: MemoryBus) -> None:
    trace, asked = new_trace(), call("fork_join", {"tasks": tasks("crier", "crier")})
    ingest.take([Message(asked.subject, asked.data, {**asked.headers, "traceparent": trace})])
    runs = list(Run.objects.all())
    assert [(run.traceparent, run.depth) for run in runs] == [(trace, 3)] * 2
    for run in runs:
        played(run)
    look()
    [(_, _, item)] = answers(memory)
    assert (item.headers["traceparent"], item.headers["CG-Recursion-Depth"]) == (trace, "2")


def test_forks_that_fail_fast_cancel_the_others(crier: Operator, memory: MemoryBus, alice) -> None:
    ingest.take([call("fork_join", {"tasks": tasks("crier", "crier", "crier"), "fail_fast": True})])
    intake.cancel(Run.objects.order_by("created_at")[1], actor=alice)
    look()
    [(_, content, _)] = answers(memory)
    assert [end["status"] for end in content["result"]["results"]] == ["canceled"] * 3
    assert set(Run.objects.values_list("status", flat=True)) == {"cancelled"}


def test_forks_that_are_late_are_cancelled_at_their_deadline(crier: Operator, memory: MemoryBus) -> None:
    ingest.take([call("fork_join", {"tasks": tasks("crier", "crier"), "deadline_seconds": 60})])
    played(Run.objects.order_by("created_at")[0])
    clock.tick()
    assert Errand.objects.get().status == "running"
    early = timezone.now() - timedelta(seconds=1)
    Errand.objects.update(deadline=early, look_at=early)
    clock.tick()
    [(body, content, _)] = answers(memory)
    assert [end["status"] for end in content["result"]["results"]] == ["success", "timeout"]
    assert body["status"] == "partial"


def test_the_answer_goes_to_the_subject_that_the_caller_names(crier: Operator, memory: MemoryBus) -> None:
    named = "cg.v1.default.public.cmd.sys.reply.mine"
    ingest.take([call("launch", {"profile_name": "crier", "instruction": "x"}, answer_to=named)])
    look()
    assert [json.loads(item.data)["status"] for item in stored(memory, named)] == ["success"]
    assert answers(memory) == []


def test_an_answer_goes_to_no_other_project(crier: Operator, memory: MemoryBus) -> None:
    arguments = {"profile_name": "crier", "instruction": "x"}
    ingest.take([call("launch", arguments, answer_to="cg.v1.other.public.cmd.sys.reply.mine")])
    assert "cg.v1.default.*.cmd.sys.reply.* is needed" in DeadLetter.objects.get().reason
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("launch", {"profile_name": "crier"}, "bad_request"),
        ("launch", {"profile_name": "crier", "instruction": "x", "speed": 1}, "bad_request"),
        ("launch", {"profile_name": "nobody", "instruction": "x"}, "invalid"),
        ("launch", {"profile_name": "crier.whisper", "instruction": "x"}, "not_found"),
        ("delegate_async", {"target_ref": "crier", "instruction": "x", "target_strategy": "steal"}, "bad_request"),
        ("delegate_async", {"target_ref": "run_none", "instruction": "x", "target_strategy": "clone"}, "invalid"),
        ("delegate_async", {"target_ref": "crier", "instruction": "x", "context_box_id": "none"}, "invalid"),
        ("fork_join", {"tasks": []}, "bad_request"),
        ("fork_join", {"tasks": tasks(*["crier"] * 9)}, "bad_request"),
        ("fork_join", {"tasks": tasks("crier"), "deadline_seconds": 0}, "bad_request"),
    ],
)
def test_a_call_that_cannot_be_obeyed_is_answered_with_the_reason(
    crier: Operator, memory: MemoryBus, tool: str, arguments: dict[str, Any], code: str
) -> None:
    ingest.take([call(tool, arguments)])
    look()
    [(body, content, _)] = answers(memory)
    assert (body["status"], content["error"]["code"]) == ("failed", code)
    assert not Run.objects.exists()


def test_a_chain_that_is_too_long_is_answered_with_the_reason(crier: Operator, memory: MemoryBus) -> None:
    ingest.take([call("launch", {"profile_name": "crier", "instruction": "x"}, depth="19")])
    look()
    [(_, content, _)] = answers(memory)
    assert content["error"]["code"] == "recursion_depth_exceeded"


@pytest.mark.parametrize(
    ("tool", "fields", "depth", "reason"),
    [
        ("launch", {"arguments": {}}, "0", "arguments: it belongs into a card"),
        ("launch", {"tool_call_card_id": None}, "0", "tool_call_card_id"),
        ("launch", {"tool_call_card_id": "none"}, "0", "there is no card"),
        ("launch", {"turn_epoch": None}, "0", "turn_epoch"),
        ("launch", {}, "-1", "no natural number"),
        ("steal", {}, "0", "'steal' is no tool of ours"),
    ],
)
def test_a_call_that_breaks_the_protocol_is_buried(
    memory: MemoryBus, tool: str, fields: dict[str, Any], depth: str, reason: str
) -> None:
    ingest.take([call(tool, {}, depth=depth, **fields)])
    assert reason in DeadLetter.objects.get().reason
    assert not Errand.objects.exists()


def test_arguments_of_a_call_may_not_lie_beside_its_payload(memory: MemoryBus) -> None:
    right = call("launch", {})
    body = {"id": "m1", "payload": json.loads(right.data), "args": {}}
    ingest.take([Message(right.subject, json.dumps(body).encode(), right.headers)])
    assert "args: it belongs into a card" in DeadLetter.objects.get().reason


def asked(chief: Operator, memory: MemoryBus) -> tuple[Run, Message]:
    """A run of ours that has called, and its call as it is on the bus."""
    run = played(intake.request(chief.workflows.get(), input={}, actor=None))
    assert deliveries.ask(run.waits.get().id)
    [message] = stored(memory, internal.PATTERN)
    return run, message


def test_an_agent_of_ours_asks_another_one_as_it_calls_any_tool(
    chief: Operator, crier: Operator, memory: MemoryBus
) -> None:
    run, message = asked(chief, memory)
    ingest.take([message, message])
    child = run.children.get()
    assert (child.depth, child.traceparent, child.input) == (1, run.traceparent, {"instruction": "what news"})
    played(child)
    look()
    wait = run.waits.get()
    assert (wait.status, wait.decider, "WHAT NEWS" in wait.result["answer"]) == ("resolved", "pmo.ask_expert", True)
    assert played(run).status == "completed"
    assert answers(memory) == []


def test_however_many_look_at_once_the_caller_is_answered_once(
    chief: Operator, crier: Operator, memory: MemoryBus
) -> None:
    run, message = asked(chief, memory)
    ingest.take([message])
    played(run.children.get())
    errand, together = Errand.objects.get(), threading.Barrier(8)

    def look_too() -> None:
        together.wait(10)
        errands.look(errand.id)
        connection.close()

    threads = [threading.Thread(target=look_too) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert Event.objects.filter(run_id=run.id, kind="tool.answered").count() == 1


def test_who_is_cancelled_takes_along_what_it_has_sent_out(
    chief: Operator, crier: Operator, memory: MemoryBus, alice
) -> None:
    run, message = asked(chief, memory)
    ingest.take([message])
    intake.cancel(run, actor=alice)
    recalls.recall_all(run.id)
    assert run.children.get().status == "cancelled"
    assert Errand.objects.get().outcome == "canceled"


def test_nobody_sends_out_runs_in_the_name_of_a_run_that_has_not_asked(
    chief: Operator, crier: Operator, memory: MemoryBus
) -> None:
    run, _ = asked(chief, memory)
    quoted = {"agent_id": "chief", "agent_turn_id": run.turn_id, "turn_epoch": run.epoch}
    forged = call("launch", {"profile_name": "crier", "instruction": "x"}, depth="0", **quoted)
    ingest.take([forged])
    assert reasons()[0][1].startswith("invalid_source_actor")
    quoted |= {"tool_call_id": run.waits.get().payload["tool_call_id"], "turn_epoch": run.epoch - 1}
    ingest.take([call("launch", {"profile_name": "crier", "instruction": "x"}, depth="0", **quoted)])
    assert [status for status, _ in reasons()] == ["skipped", "skipped"]
    assert not run.children.exists()


def test_a_call_of_another_servers_run_is_that_servers(crier: Operator, memory: MemoryBus) -> None:
    message = call("launch", {"profile_name": "crier", "instruction": "x"})
    headers = {**message.headers, "CG-Sender": "openvibe", "OpenVibe-Server": "east"}
    ingest.take([Message(message.subject, message.data, headers)])
    assert not InboxItem.objects.exists()


def test_a_tool_hears_that_its_run_was_cancelled(critic: Operator, memory: MemoryBus, alice) -> None:
    run = played(intake.request(critic.workflows.get(), input={"loaves": 3}, actor=None))
    assert deliveries.ask(run.waits.get().id)
    intake.cancel(run, actor=alice)
    recalls.recall_all(run.id)
    recalls.recall_all(run.id)
    [message] = stored(memory, "cg.v1.*.*.cmd.tool.taste.cancel")
    told = json.loads(message.data)
    assert (told["agent_turn_id"], told["tool_call_id"]) == (run.turn_id, run.waits.get().payload["tool_call_id"])
    assert "cancelled" in told["reason"]


def test_the_clock_tells_a_tool_whose_bell_was_lost(critic: Operator, memory: MemoryBus, alice) -> None:
    run = played(intake.request(critic.workflows.get(), input={"loaves": 3}, actor=None))
    assert deliveries.ask(run.waits.get().id)
    intake.cancel(run, actor=alice)
    Wait.objects.update(closed_at=timezone.now() - timedelta(minutes=1))
    clock.tick()
    assert len(stored(memory, "cg.v1.*.*.cmd.tool.taste.cancel")) == 1


def test_a_tool_that_was_never_called_is_not_called_back(critic: Operator, memory: MemoryBus, alice) -> None:
    run = played(intake.request(critic.workflows.get(), input={"loaves": 3}, actor=None))
    intake.cancel(run, actor=alice)
    recalls.recall_all(run.id)
    assert stored(memory, "cg.v1.*.*.cmd.tool.>") == []
