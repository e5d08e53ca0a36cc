"""A turn that is refused has no run that could tell of its end: a `task` tells it, once."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from openvibe.bus import Message
from openvibe.bus.memory import MemoryBus
from openvibe.protocol import headers
from operators import clock
from operators.bridge import ingest
from operators.link import link
from operators.models import DeadLetter, InboxItem, Notice, Operator, Run
from operators.services import announcements, inbox, notices
from tests.bridge.conftest import SOON, Bridge, eventually
from tests.bridge.test_commands import card, command, played

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]

numbers = itertools.count(1)
TRACE = headers.trace_of("a caller's")


def told(pattern: str = "cg.v1.*.*.evt.agent.*.task") -> list[Message]:
    """The `task` messages that the stream of events keeps, after all that was to be said has been said."""
    for notice in Notice.objects.filter(sent_at=None):
        assert notices.send(notice.pk)
    assert announcements.settle(SOON)

    async def read() -> list[Message]:
        bus: Any = await link.bus()
        pull = await bus.pull("cg_evt_v1", durable=f"tasks-{next(numbers)}", patterns=[pattern])
        return list(await pull.fetch(20, timeout=0.2))

    return link.submit(read()).result(10)


@pytest.mark.parametrize(
    ("fields", "more", "code"),
    [
        ({}, {"depth": "20"}, "recursion_depth_exceeded"),
        ({}, {"depth": None}, "protocol_violation"),
        ({}, {"depth": "-1"}, "protocol_violation"),
        ({"enqueue_mode": "transfer"}, {}, "protocol_violation"),
        ({"agent_id": "baker"}, {}, "protocol_violation"),
        ({"context_box_id": "nothing"}, {}, "protocol_violation"),
        ({}, {"agent": "nobody"}, "agent_not_found"),
        ({"profile_box_id": "whisper"}, {}, "not_found"),
        ({"context_box_id": "odd"}, {}, "invalid"),
    ],
)
def test_a_turn_that_is_refused_ends_in_one_task_that_says_why(
    crier: Operator, memory: MemoryBus, fields: dict[str, Any], more: dict[str, Any], code: str
) -> None:
    fields = {**fields, "context_box_id": card({"instruction": 7})} if fields.get("context_box_id") == "odd" else fields
    message = command("turn", {"agent_turn_id": "theirs-1", **fields}, **{"agent": "crier", "channel": "u_eve", **more})
    message.headers["traceparent"] = TRACE
    ingest.take([message, message])
    ingest.take([message])
    [task] = told()
    body = json.loads(task.data)
    agent = more.get("agent", "crier")
    assert task.subject == f"cg.v1.default.u_eve.evt.agent.{agent}.task"
    assert (body["agent_turn_id"], body["correlation_id"], body["agent_id"]) == ("theirs-1", "theirs-1", agent)
    assert (body["status"], body["error_code"], bool(body["error"])) == ("failed", code, True)
    assert {name: body[name] for name in body["payload"]} == body["payload"]
    assert (task.headers["CG-Sender"], task.headers["CG-Msg-Type"]) == ("openvibe", "agent.task")
    assert (task.headers["traceparent"], task.headers["CG-Recursion-Depth"]) == (
        TRACE,
        str(max(int(more.get("depth") or 0), 0)),
    )
    assert not Run.objects.exists()


def test_a_turn_of_an_operator_that_is_switched_off_has_failed(crier: Operator, memory: MemoryBus) -> None:
    Operator.objects.update(enabled=False)
    ingest.take([command("turn", {"context_box_id": card("hear ye")}, agent="crier", id="m-of-eve")])
    [task] = told()
    body = json.loads(task.data)
    assert (body["error_code"], body["agent_turn_id"]) == ("operator_disabled", "m-of-eve")


def test_a_turn_that_is_to_begin_at_once_has_failed_where_its_operator_is_busy(
    crier: Operator, memory: MemoryBus
) -> None:
    Operator.objects.update(max_running=1)
    given = {"context_box_id": card("hear ye"), "metadata": {"at_once": True}}
    for name in ("theirs-1", "theirs-2"):
        ingest.take([command("turn", {"agent_turn_id": name, **given}, agent="crier")])
    ingest.take([command("turn", {"agent_turn_id": "theirs-3", **given, "metadata": {}}, agent="crier")])
    [task] = told()
    body = json.loads(task.data)
    assert (body["agent_turn_id"], body["status"], body["error_code"]) == ("theirs-2", "failed", "agent_busy")
    assert [run.trigger for run in Run.objects.order_by("created_at")] == ["turn:theirs-1", "turn:theirs-3"]


def test_a_turn_that_is_no_json_has_failed_under_the_name_of_its_bytes(crier: Operator, memory: MemoryBus) -> None:
    ingest.take([Message("cg.v1.default.public.cmd.agent.crier.turn", b"{\xff", {})])
    [task] = told()
    assert json.loads(task.data)["error_code"] == "protocol_violation"


def test_a_turn_that_runs_is_not_told_to_have_failed_whatever_is_said_of_it_later(
    crier: Operator, memory: MemoryBus
) -> None:
    given = {"agent_turn_id": "theirs-1", "context_box_id": card("hear ye")}
    ingest.take([command("turn", given, agent="crier", depth="4")])
    ingest.take([command("turn", given, agent="crier", depth="5"), command("turn", given, agent="crier", depth="20")])
    assert DeadLetter.objects.count() == 2
    played(Run.objects.get())
    [task] = told()
    assert json.loads(task.data)["status"] == "success"


def test_nobody_can_have_it_said_that_a_run_of_ours_has_failed(crier: Operator, memory: MemoryBus) -> None:
    ingest.take([command("turn", {"agent_turn_id": "run_20260101_abc-0"}, agent="crier", depth="20")])
    [task] = told()
    body = json.loads(task.data)
    assert body["agent_turn_id"].startswith("refused:")
    assert body["correlation_id"] == "run_20260101_abc-0"


def test_other_commands_that_are_refused_end_no_turn(crier: Operator, memory: MemoryBus) -> None:
    ingest.take([command("wakeup", {}, agent="nobody"), command("stop", {"agent_turn_id": "x", "turn_epoch": 0})])
    ingest.take([command("turn", {}, agent="crier", project="nowhere")])
    assert DeadLetter.objects.count() == 3
    assert told() == []


def test_a_turn_at_which_we_fail_ten_times_has_failed(crier: Operator, memory: MemoryBus) -> None:
    message = command("turn", {"agent_turn_id": "theirs-1", "context_box_id": card("hear ye")}, agent="crier")
    Operator.objects.update(enabled=False)
    ingest.take([message])
    Notice.objects.all().delete()
    # As nine failures leave it; what a later version has written this one cannot read.
    item = InboxItem.objects.get()
    fields = item.body["fields"] | {"enqueue_mode": "shout"}
    InboxItem.objects.update(status="pending", attempts=9, body=item.body | {"fields": fields})
    inbox.apply(item.pk)
    assert InboxItem.objects.get().status == "error"
    [task] = told()
    assert json.loads(task.data)["error_code"] == "internal_error"


def test_what_the_bus_did_not_take_the_clock_says_later(crier: Operator, memory: MemoryBus) -> None:
    ingest.take([command("turn", {"agent_turn_id": "theirs-1"}, agent="crier", depth="20")])
    Notice.objects.update(written_at="2026-01-01T00:00Z")
    clock.tick()
    assert Notice.objects.get().sent_at is not None


def test_a_caller_hears_over_the_bus_that_its_turn_is_refused_and_we_do_not_take_it_for_news(
    crier: Operator, bridge: Bridge
) -> None:
    subject = "cg.v1.default.public.cmd.agent.nobody.turn"
    bridge.send((subject, {"agent_id": "nobody", "agent_turn_id": "theirs-1"}, {"CG-Recursion-Depth": "0"}))
    eventually(Notice.objects.exists)
    [task] = told()
    assert json.loads(task.data)["error_code"] == "agent_not_found"
    assert DeadLetter.objects.count() == 1
