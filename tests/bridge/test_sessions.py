"""The dialect `sessions` as it comes in: results answer waits, decisions reach gates, words stand on the timeline."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from openvibe.bus import Message
from operators.bridge import ingest
from operators.models import Event, InboxItem, Run, Wait
from operators.services import inbox, intake
from tests.bridge.conftest import letters
from tests.domain.lab import kinds, thread

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project", "memory")]


def session(run: Run, kind: str, type: str, payload: dict[str, Any], *, id: str = "m1") -> Message:
    body = {
        "version": "1",
        "id": id,
        "timestamp": "2026-02-16T10:00:00Z",
        "session_id": run.id,
        "type": type,
        "payload": payload,
    }
    return Message(f"sessions.{run.id}.{kind}", json.dumps(body).encode())


@pytest.fixture
def waiting(run: Run) -> Run:
    """The run, at a gate and at work that others do."""
    Run.objects.filter(id=run.id).update(status=Run.Status.WAITING)
    for kind, payload in (("approval", {}), ("work", {"role": "coding", "task": {"chunk_id": "c1"}})):
        schema = {"properties": {"decision": {"enum": ["approve", "reject"]}}}
        Wait.objects.create(
            id=f"wait_{kind}", run=run, kind=kind, node=kind, step_id=kind, interrupt_id=kind, payload_sha256="0" * 64,
            prompt="?", payload=payload, schema=schema, decisions=["approve", "reject"], opened_at=timezone.now(),
        )  # fmt: skip
    return run


def test_an_external_agents_result_answers_the_work_it_fits(waiting: Run) -> None:
    done = {"chunk_id": "c1", "work_type": "coding", "summary": "done", "context": {"agent_id": "ada"}}
    told = session(waiting, "results", "result.success", done)
    ingest.take([told, told])
    ingest.take([told])
    wait = Wait.objects.get(id="wait_work")
    assert (wait.status, wait.result["summary"], wait.decider) == ("resolved", "done", "ada")
    assert InboxItem.objects.get().status == "consumed"
    waiting.refresh_from_db()
    assert waiting.status == "queued"


def test_an_external_agents_failure_is_the_waits_error(waiting: Run) -> None:
    failed = {"chunk_id": "c1", "work_type": "coding", "error": "Compilation failed", "details": "line 42"}
    ingest.take([session(waiting, "results.coding", "result.failure", failed)])
    assert Wait.objects.get(id="wait_work").error == "Compilation failed — line 42"


def test_a_result_that_fits_nothing_open_is_skipped_and_says_why(waiting: Run) -> None:
    ingest.take([session(waiting, "results", "result.success", {"chunk_id": "c2", "work_type": "coding"})])
    item = InboxItem.objects.get()
    assert (item.status, "0 of the run's 1 open waits" in item.reason) == ("skipped", True)
    assert Wait.objects.get(id="wait_work").status == "pending"


@pytest.mark.parametrize("quote", [{}, {"work_id": "wait_work"}])
def test_a_result_that_comes_after_the_runs_end_changes_nothing_and_is_told(waiting: Run, bob: User, quote) -> None:
    intake.cancel(waiting, actor=bob)
    done = {"chunk_id": "c1", "work_type": "coding", "context": {"agent_id": "ada"}, **quote}
    ingest.take([session(waiting, "results", "result.success", done)] * 2)
    assert InboxItem.objects.get().status == "skipped"
    last = thread(waiting).last()
    assert (last.kind, last.actor, last.data) == (
        "answer.refused", "ada", {"wait_id": "wait_work", "by": "ada", "reason": "not_waiting"},
    )  # fmt: skip
    assert kinds(waiting).count("answer.refused") == 1
    assert Wait.objects.get(id="wait_work").status == "cancelled"


@pytest.mark.parametrize(
    ("type", "payload", "decision"),
    [
        ("approval.granted", {"approved_by": "ann@example.com", "notes": "fine"}, "approve"),
        ("approval.rejected", {"rejected_by": "ann@example.com", "reason": "fine"}, "reject"),
    ],
)
def test_a_gate_is_decided_over_the_bus(waiting: Run, type: str, payload: dict[str, Any], decision: str) -> None:
    ingest.take([session(waiting, "approvals", type, {"gate_id": "wait_approval", **payload})])
    gate = Wait.objects.get(id="wait_approval")
    assert (gate.decision, gate.notes, gate.decider) == (decision, "fine", "ann@example.com")


def test_a_decision_about_something_else_than_what_is_open_changes_nothing(waiting: Run) -> None:
    stale = {"gate_id": "wait_approval", "approved_by": "ann", "version": 7}
    ingest.take([session(waiting, "approvals", "approval.granted", stale)])
    assert Wait.objects.get(id="wait_approval").status == "pending"
    assert InboxItem.objects.get().status == "skipped"


@pytest.mark.parametrize(
    ("kind", "type", "payload", "reason"),
    [
        ("results", "result.failure", {}, "error"),
        ("results", "work.coding", {}, "none of result.success"),
        ("approvals", "approval.granted", {"gate_id": "g"}, "approved_by"),
    ],
)
def test_a_malformed_session_message_is_buried(
    waiting: Run, kind: str, type: str, payload: dict[str, Any], reason: str
) -> None:
    ingest.take([session(waiting, kind, type, payload)])
    assert reason in letters()[0][2]
    assert not InboxItem.objects.exists()


def test_a_message_for_a_session_that_nobody_knows_is_buried() -> None:
    stranger = Run(id="run_stranger")
    ingest.take([session(stranger, "results", "result.success", {})])
    assert "Nobody knows the session" in letters()[0][2]


def test_what_a_sessions_agent_says_stands_on_the_runs_timeline(waiting: Run) -> None:
    ingest.take([session(waiting, "events", "event.agent.started", {"agent_id": "ada", "role": "coding"})])
    event = Event.objects.get()
    assert (event.kind, event.actor, event.run_id) == ("agent.agent_started", "ada", waiting.id)


def test_an_inbox_item_that_got_stuck_is_applied_again(waiting: Run) -> None:
    done = {"chunk_id": "c1", "work_type": "coding"}
    ingest.take([session(waiting, "results", "result.success", done)])
    long_ago = timezone.now() - timedelta(minutes=5)
    Wait.objects.filter(id="wait_work").update(status="pending")
    Run.objects.update(status="waiting")
    InboxItem.objects.update(status="processing", changed_at=long_ago)
    for item_id in inbox.stuck(10):
        inbox.apply(item_id)
    assert Wait.objects.get(id="wait_work").status == "resolved"
