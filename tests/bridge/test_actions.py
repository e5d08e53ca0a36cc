"""Actions of user interfaces over NATS: done once, with the rights of the user, and only where a project lets them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.contrib.auth.models import User

from openvibe.bus import Message
from openvibe.bus.memory import MemoryBus
from openvibe.bus.nats import NatsBus
from openvibe.protocol import actions as wire
from operators.bridge import ingest
from operators.link import link
from operators.models import Card, InboxItem, Operator, Project, Run
from operators.services import actions, execution, inbox, intake
from tests.bridge.conftest import SOON, Bridge, eventually, letters

pytestmark = pytest.mark.django_db(transaction=True)

TRACE = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
ACTION = "cg.v1.default.public.cmd.sys.ui.action"
ACKS = "cg.v1.default.public.evt.sys.ui.action_ack"


class Heard(list[dict[str, Any]]):
    """What was acknowledged, in order."""

    async def hear(self, message: Message) -> None:
        self.append(json.loads(message.data))

    @property
    def statuses(self) -> list[str]:
        return [ack["status"] for ack in self]

    @property
    def codes(self) -> list[str]:
        return [ack.get("error_code", "") for ack in self if ack["status"] != "accepted"]


@pytest.fixture
def acks(memory: MemoryBus) -> Heard:
    heard = Heard()
    link.submit(memory.subscribe(ACKS, heard.hear)).result(SOON)
    return heard


@pytest.fixture(autouse=True)
def allowed(project: Project) -> Project:
    project.ui_allowed = "start cancel retry approve answer"
    project.save()
    return project


def act(
    tool: str, args: object, *, user: str = "alice", id: str = "a1", subject: str = ACTION, depth: str | None = None,
    **more: Any,
) -> None:  # fmt: skip
    body = {"action_id": id, "agent_id": f"ui_{user}_s1", "tool_name": tool, "args": args, **more}
    sent({name: value for name, value in body.items() if value is not None}, user=user, subject=subject, depth=depth)


def sent(body: dict[str, Any], *, user: str = "alice", subject: str = ACTION, depth: str | None = None) -> None:
    stamps = {"traceparent": TRACE, **({"CG-User-ID": user} if user else {})}
    stamps |= {} if depth is None else {"CG-Recursion-Depth": depth}
    ingest.take([Message(subject, json.dumps(body).encode(), stamps)])


def start(**more: Any) -> None:
    act("start", {"operator": "company_intel", "trigger": "query", "input": {"company_name": "Acme"}}, **more)


@pytest.fixture
def gate_of(registered: dict[str, Operator], alice: User) -> Run:
    flow = registered["revenue_ops"].workflows.get(slug="engagement")
    run = intake.request(flow, input=flow.sample_input, actor=alice)
    execution.perform(run.id)
    return run


@pytest.mark.parametrize(("depth", "stands"), [(None, 0), ("0", 1), ("18", 19)])
def test_a_run_that_an_action_starts_stands_one_deeper_than_the_action_says(
    acks: Heard, registered: object, alice: User, depth: str | None, stands: int
) -> None:
    start(depth=depth)
    assert (acks.statuses, Run.objects.get().depth) == (["accepted", "done"], stands)


@pytest.mark.parametrize(
    ("depth", "code"),
    [
        *((depth, "recursion_depth_exceeded") for depth in ("19", "20", "25", "99999")),
        *((depth, "protocol_violation") for depth in ("", "-1", "deep", "9" * 5000)),
    ],
)
def test_an_action_that_is_too_deep_or_says_it_wrongly_is_refused_in_its_acknowledgement(
    acks: Heard, registered: object, alice: User, depth: str, code: str
) -> None:
    start(depth=depth)
    assert (acks.statuses, acks.codes) == (["accepted", "rejected"], [code])
    assert (Run.objects.exists(), letters()) == (False, [])


def test_an_action_is_accepted_done_and_points_at_its_result(acks: Heard, registered: object, alice: User) -> None:
    start(message_id="m1")

    run = Run.objects.get()
    assert (run.started_by, run.operator.slug, run.traceparent) == (alice, "company_intel", TRACE)
    assert acks.statuses == ["accepted", "done"]
    assert all(ack["agent_id"] == "ui_alice_s1" and ack["message_id"] == "m1" for ack in acks)
    assert Card.objects.get(sha256=acks[1]["tool_result_card_id"]).content == {"run_id": run.id, "status": "queued"}


def test_a_repeated_action_is_done_once_and_acknowledged_again(acks: Heard, registered: object, alice: User) -> None:
    start()
    start()
    start(id="a2", message_id="m1")
    start(id="a3", message_id="m1")

    assert Run.objects.count() == 2
    assert acks.statuses == ["accepted", "done", "done", "accepted", "done", "accepted", "done"]
    first, again = acks[4], acks[6]
    assert first["tool_result_card_id"] == again["tool_result_card_id"]


def test_an_action_that_is_being_done_is_busy(acks: Heard, registered: object, alice: User) -> None:
    start()
    InboxItem.objects.filter(type=inbox.ACTION).update(status="processing", body={
        name: value for name, value in InboxItem.objects.get(type=inbox.ACTION).body.items() if name != "ack"
    })  # fmt: skip
    start()
    assert (acks[-1]["status"], acks[-1]["error_code"]) == ("busy", "idempotency_inflight")
    InboxItem.objects.filter(type=inbox.ACTION).update(status="error")
    start()
    assert (acks[-1]["status"], acks[-1]["error_code"]) == ("rejected", "internal_error")


def test_what_got_stuck_is_done_by_the_clock(acks: Heard, registered: object, alice: User) -> None:
    start()
    Run.objects.all().delete()
    InboxItem.objects.update(status="pending", changed_at="2020-01-01T00:00:00Z")
    for item in inbox.stuck(10):
        inbox.apply(item)
    assert Run.objects.count() == 1


def test_nothing_is_allowed_unless_the_project_says_so(
    acks: Heard, registered: object, alice: User, allowed: Project
) -> None:
    allowed.ui_allowed = "cancel"
    allowed.save()
    start()
    allowed.ui_allowed = ""
    allowed.save()
    act("cancel", {"run_id": "run_1"}, id="a2")
    assert not Run.objects.exists()
    assert acks.codes == ["ui_not_allowed", "ui_not_allowed"]


def test_a_gate_is_approved_once_by_the_user_who_acts(acks: Heard, gate_of: Run) -> None:
    gate = gate_of.waits.get()
    args = {"wait_id": gate.id, "version": gate.version, "payload_sha256": gate.payload_sha256, "notes": "Good"}
    act("approve", args)
    act("answer", {**args, "decision": "reject"}, id="a2")

    gate.refresh_from_db()
    assert (gate.decision, gate.notes, gate.decider) == ("approve", "Good", "alice")
    assert acks.statuses == ["accepted", "done", "accepted", "rejected"]
    assert acks.codes[1] == "already_decided"


def test_a_stale_quote_is_rejected(acks: Heard, gate_of: Run) -> None:
    act("approve", {"wait_id": gate_of.waits.get().id, "version": 7})
    assert acks.codes == ["quote_mismatch"]


def test_a_run_is_cancelled_and_cannot_be_retried(acks: Heard, gate_of: Run) -> None:
    act("cancel", {"run_id": gate_of.id, "reason": "enough"})
    act("retry", {"run_id": gate_of.id}, id="a2")
    gate_of.refresh_from_db()
    assert gate_of.status == "cancelled"
    assert acks.codes == ["", "not_retryable"]


@pytest.mark.parametrize(("stood", "depth", "stands"), [(3, None, 3), (3, "1", 3), (3, "3", 4), (18, "18", 19)])
def test_a_run_that_an_action_lets_try_again_stands_deeper_than_the_action_says(
    acks: Heard, gate_of: Run, stood: int, depth: str | None, stands: int
) -> None:
    Run.objects.update(status=Run.Status.FAILED, depth=stood)
    act("retry", {"run_id": gate_of.id}, depth=depth)
    gate_of.refresh_from_db()
    assert (acks.statuses, gate_of.status, gate_of.depth) == (["accepted", "done"], Run.Status.QUEUED, stands)


def test_a_run_and_what_lets_it_try_again_do_not_go_round_for_ever(acks: Heard, gate_of: Run) -> None:
    for number in range(30):
        Run.objects.update(status=Run.Status.FAILED)
        gate_of.refresh_from_db()
        # As a run that starts when this one fails, and does not want to leave it at that.
        act("retry", {"run_id": gate_of.id}, id=f"again-{number}", depth=str(gate_of.depth + 1))
    assert (acks.statuses[-1], acks.codes[-1]) == ("rejected", "recursion_depth_exceeded")
    assert acks.statuses.count("done") == 9


@pytest.mark.parametrize("user", ["vera", "charlie"])
def test_whoever_may_not_on_pages_may_not_here(acks: Heard, gate_of: Run, vera: User, charlie: User, user: str) -> None:
    act("cancel", {"run_id": gate_of.id}, user=user)
    act("approve", {"wait_id": gate_of.waits.get().id}, user=user, id="a2")
    start(user=user, id="a3")
    assert acks.codes == ["not_found"] * 3
    assert Run.objects.get().status == "waiting"


def test_the_channel_of_a_user_names_him_too(memory: MemoryBus, registered: object, alice: User) -> None:
    body = {"action_id": "a1", "agent_id": "ui_alice", "tool_name": "start",
            "args": {"operator": "company_intel", "trigger": "query", "input": {"company_name": "Acme"}}}  # fmt: skip
    sent(body, user="", subject="cg.v1.default.u_alice.cmd.sys.ui.action")
    assert Run.objects.get().started_by == alice


def test_on_a_users_channel_nobody_else_acts(memory: MemoryBus, gate_of: Run, bob: User) -> None:
    act("cancel", {"run_id": gate_of.id}, user="alice", subject="cg.v1.default.u_bob.cmd.sys.ui.action")
    assert InboxItem.objects.get().body["ack"]["error_code"] == "invalid_worker_target"
    assert Run.objects.get().status == "waiting"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tool_name": None}, "missing_required_fields"),
        ({"args": None}, "missing_required_fields"),
        ({"agent_id": None}, "missing_required_fields"),
        ({"args": "x"}, "invalid_args"),
        ({"metadata": "x"}, "invalid_metadata"),
        ({"args": {"operator": 1, "trigger": "query"}}, "invalid_args"),
        ({"agent_id": "ui_bob_s1"}, "invalid_worker_target"),
        ({"agent_id": "alice"}, "invalid_worker_target"),
        ({"tool_name": "format_disk"}, "tool_definition_missing"),
    ],
)
def test_what_is_wrong_with_an_action_is_told(
    acks: Heard, registered: object, alice: User, changes: dict[str, Any], code: str
) -> None:
    good = {"action_id": "a1", "agent_id": "ui_alice", "tool_name": "start",
            "args": {"operator": "company_intel", "trigger": "query"}}  # fmt: skip
    sent({name: value for name, value in {**good, **changes}.items() if value is not None})
    assert acks.codes == [code]
    assert not Run.objects.exists()


def test_a_user_that_there_is_not_is_nobody(acks: Heard, registered: object) -> None:
    start(user="nobody")
    assert acks.codes == ["agent_not_found"]


def test_an_action_without_an_id_is_a_dead_letter(acks: Heard) -> None:
    sent({"agent_id": "ui_alice", "tool_name": "start", "args": {}})
    assert letters()[0][2] == "protocol_violation: action_id: cmd.sys.ui.action needs it, a text"
    assert acks == []


def test_nobody_can_use_up_anothers_ids(acks: Heard, registered: object, alice: User, bob: User) -> None:
    start(user="bob")
    start(user="alice")
    assert sorted(run.started_by.username for run in Run.objects.all() if run.started_by) == ["alice", "bob"]


def test_an_acknowledgement_holds_what_it_must(acks: Heard, registered: object, alice: User) -> None:
    start()
    for ack in acks:
        assert all(ack[name] == ack["payload"][name] != "" for name in ("action_id", "agent_id", "status"))


def test_there_are_the_tools_that_the_protocol_names() -> None:
    assert tuple(actions.TOOLS) == wire.TOOLS


def test_twenty_copies_at_once_on_a_real_server_are_done_once(
    bridge: Bridge, registered: object, alice: User, allowed: Project
) -> None:
    body = {"action_id": "a1", "agent_id": "ui_alice", "tool_name": "start",
            "args": {"operator": "company_intel", "trigger": "query", "input": {"company_name": "Acme"}}}  # fmt: skip
    subject = "cg.v1.default.u_alice.cmd.sys.ui.action"
    bridge.send(*[(subject, {**body, "noise": number}) for number in range(20)])
    eventually(lambda: InboxItem.objects.filter(type=inbox.ACTION, status="consumed").exists())
    acks = asyncio.run(kept(bridge.server.url, "cg.v1.default.u_alice.evt.sys.ui.action_ack"))

    assert Run.objects.get().started_by == alice
    assert acks[0]["status"] == "accepted"
    assert {ack["status"] for ack in acks} == {"accepted", "done"}
    assert len({ack["tool_result_card_id"] for ack in acks if ack["status"] == "done"}) == 1


async def kept(url: str, subject: str) -> list[dict[str, Any]]:
    """Return what the stream keeps on a subject, as soon as something is done."""
    bus = NatsBus(url, name="ui")
    await bus.connect()
    pull = await bus.pull("cg_evt_v1", durable="ui", patterns=[subject])
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(SOON):
        while not any(ack["status"] == "done" for ack in found):
            found += [json.loads(message.data) for message in await pull.fetch(100, timeout=1)]
    await bus.close()
    return found


def test_an_operator_that_may_not_begin_at_once_is_busy(
    acks: Heard, registered: dict[str, Operator], alice: User
) -> None:
    Operator.objects.filter(slug="company_intel").update(max_running=1)
    args = {"operator": "company_intel", "trigger": "query", "input": {"company_name": "Acme"}, "at_once": True}
    act("start", args)
    act("start", args, id="a2")
    act("start", args, id="a2")
    act("start", {**args, "at_once": False}, id="a3")
    act("start", {**args, "at_once": "yes"}, id="a4")

    assert acks.statuses == ["accepted", "done", "accepted", "busy", "busy", "accepted", "done", "accepted", "rejected"]
    assert acks.codes == ["", "agent_busy", "agent_busy", "", "invalid_args"]
    assert "plays as many runs as it may" in acks[3]["error"]
    assert Run.objects.count() == 2
