"""Answers that come after a run's end: refused, told on the run's thread, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from openvibe.ids import random_text
from operators.errors import AlreadyDecided, NotWaiting, QuoteMismatch
from operators.models import InboxItem, Run, Wait
from operators.services import inbox, intake, waits
from operators.services.inbox import Inbound
from tests.domain.lab import kinds, played, thread

APPROVE = waits.Answer("approve", notes="go", values={"personalized_sequence": []})


def without_thread(run: Run):
    row = Run.objects.filter(pk=run.pk).values().get()
    return {name: value for name, value in row.items() if name not in ("last_seq", "updated_at", "announced_seq")}


def test_an_answer_after_a_cancellation_is_told_with_who_and_what(gate, alice, bob):
    intake.cancel(gate.run, actor=alice)
    seen = without_thread(gate.run)

    with pytest.raises(NotWaiting):
        waits.answer(Wait.objects.get(pk=gate.pk), APPROVE, actor=bob)

    event = thread(gate.run).last()
    assert (event.kind, event.actor, event.node, event.step_id) == (
        "answer.refused", "bob", gate.node, gate.step_id,
    )  # fmt: skip
    assert event.data == {
        "wait_id": gate.id,
        "decision": "approve",
        "notes": "go",
        "values": {"personalized_sequence": []},
        "by": "bob",
        "reason": "not_waiting",
    }
    assert without_thread(gate.run) == seen
    assert Wait.objects.get(pk=gate.pk).status == "cancelled"
    gate.run.refresh_from_db()
    assert gate.run.last_seq == event.seq == thread(gate.run).count()


def test_another_decision_after_the_end_is_told_too(gate, alice, bob):
    waits.answer(gate, waits.Answer("approve"), actor=bob)
    run = played(gate.run)
    assert run.status == "completed"

    with pytest.raises(AlreadyDecided):
        waits.answer(Wait.objects.get(pk=gate.pk), waits.Answer("reject"), actor=alice)

    assert thread(run).last().data["reason"] == "already_decided"


def test_a_stale_quote_after_the_end_is_told_too(gate, alice, bob):
    intake.cancel(gate.run, actor=alice)

    with pytest.raises(QuoteMismatch):
        waits.answer(Wait.objects.get(pk=gate.pk), waits.Answer("approve", version=7), actor=bob)

    assert kinds(gate.run)[-1] == "answer.refused"


def test_the_same_decision_again_is_nothing_to_tell(gate, bob):
    waits.answer(gate, waits.Answer("approve"), actor=bob)
    run = played(gate.run)

    waits.answer(Wait.objects.get(pk=gate.pk), waits.Answer("approve"), actor=bob)

    assert "answer.refused" not in kinds(run)


def test_a_refusal_while_the_run_goes_on_is_nothing_to_tell(gate, alice, bob):
    waits.answer(gate, waits.Answer("approve"), actor=bob)

    with pytest.raises(AlreadyDecided):
        waits.answer(Wait.objects.get(pk=gate.pk), waits.Answer("reject"), actor=alice)

    assert "answer.refused" not in kinds(gate.run)


def test_a_late_approval_from_the_bus_is_told_and_skipped(gate, alice):
    intake.cancel(gate.run, actor=alice)
    now = timezone.now()
    body = {"type": "approval.granted", "payload": {"gate_id": gate.id, "approved_by": "ann@example.com"}}
    item = InboxItem.objects.create(
        project_id="default", type=inbox.APPROVAL, correlation_id="1", run_id=gate.run_id, body=body,
        received_at=now, changed_at=now,
    )  # fmt: skip

    inbox.apply(item.pk)

    item.refresh_from_db()
    assert item.status == "skipped"
    assert item.reason.startswith("not_waiting: ")
    event = thread(gate.run).last()
    assert (event.kind, event.actor) == ("answer.refused", "ann@example.com")


def asking(gate: Wait, kind: str, payload: dict[str, Any]) -> Wait:
    """Let the gate's run wait for somebody else's answer instead."""
    Wait.objects.filter(pk=gate.pk).update(kind=kind, payload=payload)
    return Wait.objects.get(pk=gate.pk)


def received(wait: Wait, type: str, body: dict[str, Any]) -> InboxItem:
    [item] = inbox.receive([Inbound("default", type, random_text(8), wait.run_id, body)])
    inbox.apply(item)
    return InboxItem.objects.get(pk=item)


def test_another_operators_late_answer_is_told_and_that_it_has_begun_is_not(gate, alice):
    wait = asking(gate, "reply", {"operator": "grocer", "capability": "price", "payload": {}})
    intake.cancel(gate.run, actor=alice)

    begun = {"run_id": "run_elsewhere", "status": "running"}
    assert received(wait, inbox.REPLY, {"wait_id": wait.id, "payload": begun}).status == "skipped"
    assert kinds(gate.run)[-1] == "run.cancelled"
    done = {"run_id": "run_elsewhere", "status": "completed", "result": {"price": 3}}
    assert received(wait, inbox.REPLY, {"wait_id": wait.id, "payload": done}).status == "skipped"

    event = thread(gate.run).last()
    assert (event.kind, event.actor) == ("answer.refused", "grocer.price")
    assert event.data == {"wait_id": wait.id, "by": "grocer.price", "reason": "not_waiting"}


@contextmanager
def overtaking(act: Callable[[], Any]) -> Iterator[None]:
    """Do something in the last moment before the next statement that changes a run."""
    done: list[bool] = []

    def run_first(execute, sql, params, many, context):
        if not done and 'UPDATE "operators_run"' in sql:
            done.append(True)
            act()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(run_first):
        yield


@pytest.mark.parametrize(
    ("kind", "payload", "type", "body"),
    [
        ("work", {"role": "coding", "task": {}}, inbox.RESULT, {"type": "result.success", "payload": {}}),
        ("tool", {"tool": "taste"}, inbox.REPLY, {"payload": {"result": "late"}}),
    ],
)
def test_an_answer_that_was_overtaken_in_the_last_moment_is_skipped(gate, alice, kind, payload, type, body):
    wait = asking(gate, kind, payload)
    body = {**body, "wait_id": wait.id}

    with overtaking(lambda: waits.settle(Wait.objects.get(pk=wait.pk), result="first", by="somebody")):
        item = received(wait, type, body)

    assert Wait.objects.get(pk=wait.pk).result == "first"
    assert (item.status, "was faster" in item.reason) == ("skipped", True)
    assert kinds(gate.run).count(f"{kind}.answered") == 1


def test_an_answer_that_the_runs_end_overtook_is_told(gate, alice):
    wait = asking(gate, "tool", {"tool": "taste"})

    with overtaking(lambda: intake.cancel(gate.run, actor=alice)):
        item = received(wait, inbox.REPLY, {"wait_id": wait.id, "payload": {"result": "late"}})

    assert item.status == "skipped"
    assert kinds(gate.run)[-2:] == ["run.cancelled", "answer.refused"]


def test_an_answer_at_which_processes_end_is_given_up(gate):
    wait = asking(gate, "tool", {"tool": "taste"})
    [item] = inbox.receive([Inbound("default", inbox.REPLY, "1", "", {"wait_id": wait.id, "payload": {"result": 1}})])
    long_ago = timezone.now() - 2 * inbox.PATIENCE
    InboxItem.objects.update(status="processing", attempts=inbox.MOST_ATTEMPTS, changed_at=long_ago)

    for stuck in inbox.stuck(10):
        inbox.apply(stuck)

    found = InboxItem.objects.get(pk=item)
    assert (found.status, "tries to apply it have come to no end" in found.reason) == ("error", True)
    assert Wait.objects.get(pk=wait.pk).status == "pending"
    assert not inbox.stuck(10)
