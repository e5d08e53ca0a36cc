"""Answers that come after a run's end: refused, told on the run's thread, and nothing else."""

from __future__ import annotations

import pytest
from django.utils import timezone

from operators.errors import AlreadyDecided, NotWaiting, QuoteMismatch
from operators.models import InboxItem, Run, Wait
from operators.services import inbox, intake, waits
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
