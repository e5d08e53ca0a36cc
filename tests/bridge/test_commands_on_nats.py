"""A tool in no language of ours: it hears its call over a real nats-server, reads the card, and answers, as it can."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from typing import Any

import nats
import orjson
import pytest
from django.contrib.auth.models import User
from django.db import connection
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from operators.bridge import ingest
from operators.models import Card, DeadLetter, Errand, Event, InboxItem, Operator, Run, Wait
from operators.services import cards, deliveries, errands, intake, recalls
from tests.bridge.conftest import SOON, Bridge, eventually
from tests.bridge.test_commands import result
from tests.bridge.test_requests import worker

__all__ = ["worker"]

pytestmark = pytest.mark.django_db(transaction=True)

CALLS = "cg.v1.*.*.cmd.tool.taste.call"


@pytest.fixture
def calling(critic: Operator, bridge: Bridge, worker: None) -> Run:
    """A run whose agent waits for a remote tool, and whose call is on the bus."""
    run = intake.request(critic.workflows.get(), input={"loaves": 3}, actor=None)
    eventually(lambda: Wait.objects.filter(run=run, kind="tool").exists())
    # The streams may still be in the making.
    eventually(lambda: deliveries.ask(run.waits.get().id))
    run.refresh_from_db()
    return run


def speak(bridge: Bridge, *messages: tuple[str, Any, dict[str, str]]) -> None:
    """Store messages all at once, as somebody who knows NATS and nothing of us."""

    async def main() -> None:
        client = await nats.connect(bridge.server.url)
        stream = client.jetstream()
        await kept(stream)
        encoded = [(subject, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)
                   for subject, body, headers in messages]  # fmt: skip
        await asyncio.gather(*[stream.publish(subject, body, headers=headers) for subject, body, headers in encoded])
        await client.close()

    asyncio.run(main())


async def kept(stream: JetStreamContext) -> None:
    """Return when the bridge has made the stream of commands."""
    async with asyncio.timeout(SOON):
        while True:
            with contextlib.suppress(NotFoundError):
                await stream.stream_info("cg_cmd_v1")
                return
            await asyncio.sleep(0.02)


def called(bridge: Bridge, pattern: str = CALLS) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the call that a tool hears, as its body and its headers."""

    async def main() -> tuple[dict[str, Any], dict[str, str]]:
        client = await nats.connect(bridge.server.url)
        heard = await client.jetstream().pull_subscribe(pattern, None, config=ConsumerConfig(ack_wait=30))
        [message] = await heard.fetch(1, timeout=SOON)
        await message.ack()
        await client.close()
        return json.loads(message.data), dict(message.headers or {})

    return asyncio.run(main())


def answer(
    call: dict[str, Any], headers: dict[str, str], content: Any, **fields: Any
) -> tuple[str, Any, dict[str, str]]:
    """Return the result of a call as the dialect wants it: all that was quoted, and a pointer at a card."""
    pointer = cards.keep("default", content, orjson.dumps(content))["card"]
    quoted = {
        name: call[name] for name in ("tool_call_id", "agent_turn_id", "turn_epoch", "agent_id", "after_execution")
    }
    body = {**quoted, "status": "success", "tool_result_card_id": pointer, **fields}
    stamps = {name: headers[name] for name in ("traceparent", "CG-Recursion-Depth")} | {"CG-Sender": "taster"}
    return f"cg.v1.{call['project']}.{call['channel']}.cmd.agent.{call['agent_id']}.tool_result", body, stamps


def test_a_stranger_hears_its_call_and_its_result_ends_the_wait(calling: Run, bridge: Bridge) -> None:
    call, headers = called(bridge)
    assert Card.objects.get(sha256=call["tool_call_card_id"]).content == calling.waits.get().payload["arguments"]
    assert "arguments" not in call
    speak(bridge, answer(call, headers, {"result": "nutty"}))
    eventually(lambda: Run.objects.get().status == "completed")
    assert (calling.waits.get().result, calling.waits.get().decider) == ("nutty", "taster")


def test_words_never_move_state_whatever_they_say(calling: Run, bridge: Bridge) -> None:
    call, headers = called(bridge)
    _, told, stamps = answer(call, headers, {"result": "nutty"})
    place = f"cg.v1.{call['project']}.{call['channel']}"
    stop = {name: call[name] for name in ("agent_id", "agent_turn_id", "turn_epoch")}
    frame = {**stop, "step_id": "s1", "chunk_type": "content", "content": "All is done"}
    before = Event.objects.filter(run_id=calling.id).count()

    async def pass_by() -> None:
        client = await nats.connect(bridge.server.url)
        for body in (frame, told, {**frame, "status": "success"}, stop, b"no JSON"):
            for suffix in ("chunk", "tool_result", "task", "state", "stop"):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                await client.publish(f"{place}.str.agent.critic.{suffix}", data, headers=stamps)
        await client.flush()
        await client.close()

    asyncio.run(pass_by())
    # What is kept by a stream is read, and came later.
    speak(bridge, (f"{place}.evt.agent.scout.message", {"id": "m1", "content": "I am here"}, {}))
    eventually(lambda: Event.objects.filter(run_id=calling.id, kind="agent.message").exists())
    calling.refresh_from_db()
    assert (calling.status, calling.waits.get().status) == ("waiting", "pending")
    assert Event.objects.filter(run_id=calling.id).count() == before + 1
    assert (InboxItem.objects.count(), DeadLetter.objects.count()) == (0, 0)


def test_twenty_copies_of_a_result_at_once_are_one_result(calling: Run, bridge: Bridge) -> None:
    call, headers = called(bridge)
    speak(bridge, *[answer(call, headers, "nutty", id=f"copy {number}") for number in range(20)])
    eventually(lambda: Run.objects.get().status == "completed")
    told = Event.objects.filter(run_id=calling.id, channel=f"t_{calling.id}").values_list("kind", flat=True)
    assert (list(told).count("tool.answered"), list(told).count("run.completed")) == (1, 1)
    assert (InboxItem.objects.get().status, DeadLetter.objects.count()) == ("consumed", 0)


def test_of_twenty_results_that_differ_one_is_taken(calling: Run, bridge: Bridge) -> None:
    call, headers = called(bridge)
    speak(bridge, *[answer(call, headers, f"taste {number}") for number in range(20)])
    eventually(lambda: InboxItem.objects.filter(status__in=["consumed", "skipped"]).count() == 20)
    assert InboxItem.objects.filter(status="consumed").count() == 1
    assert Event.objects.filter(kind="tool.answered").count() == 1
    assert Event.objects.filter(kind="answer.refused").count() == 19


def test_twenty_bridges_that_take_the_same_result_at_once_take_it_once(calling: Run) -> None:
    copy, together = result(calling), threading.Barrier(20)

    def take() -> None:
        together.wait(SOON)
        ingest.take([copy])
        connection.close()

    threads = [threading.Thread(target=take) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert [item.status for item in InboxItem.objects.all()] == ["consumed"]
    assert Event.objects.filter(kind="tool.answered").count() == 1


def test_garbage_strangers_and_latecomers_harm_nothing(calling: Run, bridge: Bridge) -> None:
    call, headers = called(bridge)
    good = answer(call, headers, "nutty")
    speak(
        bridge,
        (good[0], b"\x00\xffno json", good[2]),
        (good[0], [1, 2], good[2]),
        answer(call, headers, "nutty", result="inline"),
        answer(call, headers, "nutty", agent_turn_id="run_of_nobody"),
        (good[0].replace(".default.", ".nowhere."), *good[1:]),
        (good[0], good[1], {}),
    )
    eventually(lambda: DeadLetter.objects.count() == 6)
    assert calling.waits.get().status == "pending"
    speak(bridge, good)
    eventually(lambda: Run.objects.get().status == "completed")
    speak(bridge, answer(call, headers, "too late"))
    eventually(lambda: Event.objects.filter(kind="answer.refused").exists())
    assert Event.objects.get(kind="answer.refused").data["reason"] == "run_ended"
    assert Run.objects.get().status == "completed"


def test_a_turn_from_elsewhere_is_played_once(crier: Operator, bridge: Bridge, worker: None) -> None:
    pointer = cards.keep("default", "hear ye", orjson.dumps("hear ye"))["card"]
    body = {"agent_id": "crier", "agent_turn_id": "theirs-1", "context_box_id": pointer}
    turn = ("cg.v1.default.public.cmd.agent.crier.turn", body, {"CG-Recursion-Depth": "0"})
    speak(bridge, turn, turn, turn)
    eventually(lambda: Run.objects.filter(status="completed").exists())
    assert Run.objects.get().output["cried"] == "HEAR YE"


def test_a_bell_that_rings_again_without_an_id_starts_a_run_again(crier: Operator, bridge: Bridge) -> None:
    bell = ("cg.v1.default.public.cmd.agent.crier.wakeup", {"agent_id": "crier"}, {"CG-Recursion-Depth": "0"})
    speak(bridge, bell, bell)
    eventually(lambda: Run.objects.count() == 2)


def test_a_stop_from_elsewhere_cancels_the_run(calling: Run, bridge: Bridge) -> None:
    body = {"agent_id": "critic", "agent_turn_id": calling.turn_id, "turn_epoch": calling.epoch, "reason": "Enough"}
    stop = (f"cg.v1.default.t_{calling.id}.cmd.agent.critic.stop", body, {"CG-Recursion-Depth": "0"})
    speak(bridge, stop, stop)
    eventually(lambda: Run.objects.get().status == "cancelled")
    assert InboxItem.objects.count() == 1


def test_an_operator_asks_another_one_over_the_bus(
    chief: Operator, crier: Operator, bridge: Bridge, worker: None
) -> None:
    run = intake.request(chief.workflows.get(), input={}, actor=None)
    eventually(lambda: Wait.objects.filter(run=run, kind="tool").exists())
    eventually(lambda: deliveries.ask(run.waits.get().id))
    eventually(lambda: run.children.filter(status="completed").exists())
    errands.look(Errand.objects.get().id)
    eventually(lambda: Run.objects.get(id=run.id).status == "completed")
    assert "WHAT NEWS" in run.waits.get().result["answer"]


def test_a_tool_hears_over_the_bus_that_nobody_waits_any_more(calling: Run, bridge: Bridge, alice: User) -> None:
    call, _ = called(bridge)
    intake.cancel(calling, actor=alice)
    recalls.recall_all(calling.id)
    told, headers = called(bridge, "cg.v1.*.*.cmd.tool.taste.cancel")
    assert (told["tool_call_id"], told["agent_turn_id"]) == (call["tool_call_id"], call["agent_turn_id"])
    assert headers["CG-Msg-Type"] == "tool.cancel"
