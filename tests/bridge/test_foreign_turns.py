"""Turns of agents elsewhere: on the thread of a run of ours, on a run of their own, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openvibe.bus import Message
from openvibe.protocol import workflow
from operators.bridge import ingest
from operators.models import Event, Project, Run
from tests.bridge.conftest import letters, make_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project", "memory")]

JOB = workflow.run_id("default", "job-7")
STEP: dict[str, Any] = {"agent_turn_id": "turn-1", "step_id": "s1", "phase": "executing"}
TASK: dict[str, Any] = {"agent_turn_id": "turn-1", "status": "success", "deliverable_card_id": "c1"}
STATE: dict[str, Any] = {
    "agent_id": "ada",
    "agent_turn_id": "turn-1",
    "status": "running",
    "turn_epoch": 1,
    "updated_at": "2026-01-02T03:04:05Z",
}


def said(family: str, body: dict[str, Any], *, channel: str = "t_job-7", agent: str = "ada", **headers: str) -> Message:
    return Message(f"cg.v1.default.{channel}.evt.agent.{agent}.{family}", json.dumps(body).encode(), headers)


def told(channel: str) -> list[tuple[str, str]]:
    events = Event.objects.filter(channel=channel, kind__startswith="agent.").order_by("seq")
    return [(event.kind, event.data["content"]) for event in events]


def test_a_turn_on_a_thread_of_its_own_is_an_external_run_that_its_task_ends() -> None:
    ingest.take([said("state", STATE), said("step", STEP), said("task", TASK)])

    run = Run.objects.get(id=JOB)
    assert (run.status, run.operator.slug) == ("completed", "external_agents")
    assert told(f"t_{JOB}") == [
        ("agent.state", "turn-1: running"), ("agent.step", "s1: executing"), ("agent.task", "turn-1: success"),
    ]  # fmt: skip
    step = Event.objects.get(kind="agent.step")
    assert (step.actor, step.data["payload"], step.data["step_id"]) == ("ada", STEP, "s1")
    assert letters() == []


@pytest.mark.parametrize(
    ("status", "ending"),
    [("success", "completed"), ("partial", "completed"), ("failed", "failed"), ("timeout", "failed"),
     ("canceled", "cancelled")],
)  # fmt: skip
def test_a_tasks_status_says_how_the_external_run_ended(status: str, ending: str) -> None:
    ingest.take([said("step", STEP), said("task", {**TASK, "status": status, "error": "because"})])
    assert Run.objects.get(id=JOB).status == ending


def test_a_task_that_says_no_end_is_none_and_uses_up_no_turn() -> None:
    ingest.take([said("step", STEP), said("task", {**TASK, "status": "on its way"})])
    assert letters()[0][2].startswith("protocol_violation: status: 'on its way' is not how a task ends: success, ")
    assert Run.objects.get(id=JOB).status == "running"
    ingest.take([said("task", TASK)])
    assert Run.objects.get(id=JOB).status == "completed"


def test_a_turn_that_another_called_does_not_end_their_run() -> None:
    helper = {"agent_turn_id": "turn-2"}
    ingest.take([said("step", STEP), said("step", {**STEP, **helper}, agent="ben")])
    ingest.take([said("task", {**TASK, **helper}, agent="ben")])
    assert Run.objects.get(id=JOB).status == "running"
    ingest.take([said("task", TASK)])
    assert Run.objects.get(id=JOB).status == "completed"


def test_a_second_task_of_a_turn_is_none() -> None:
    ingest.take([said("step", STEP), said("task", TASK), said("task", {**TASK, "status": "failed"})])
    ingest.take([said("task", {**TASK, "id": "another", "status": "failed"}, agent="mallory")])
    assert [kind for kind, _ in told(f"t_{JOB}")] == ["agent.step", "agent.task"]
    assert Run.objects.get(id=JOB).status == "completed"


def test_the_same_step_told_twice_is_one_event() -> None:
    ingest.take([said("step", STEP), said("step", STEP), said("step", {**STEP, "phase": "completed"})])
    ingest.take([said("step", STEP)])
    assert told(f"t_{JOB}") == [("agent.step", "s1: executing"), ("agent.step", "s1: completed")]


def test_fields_may_lie_in_an_envelopes_payload() -> None:
    ingest.take([said("step", {"version": "1", "id": "m1", "content": "I begin", "payload": STEP})])
    assert told(f"t_{JOB}") == [("agent.step", "I begin")]
    assert Event.objects.get(kind="agent.step").data["payload"] == STEP


@pytest.mark.parametrize(
    ("family", "body", "field"),
    [
        *(("step", STEP, name) for name in ("agent_turn_id", "step_id", "phase")),
        *(("task", TASK, name) for name in ("agent_turn_id", "status")),
        *(("state", STATE, name) for name in ("agent_id", "agent_turn_id", "status", "turn_epoch", "updated_at")),
    ],
)
def test_a_required_field_that_is_missing_violates_the_protocol(family: str, body: dict[str, Any], field: str) -> None:
    ingest.take([said(family, {name: value for name, value in body.items() if name != field})])
    ((_, _, reason),) = letters()
    assert reason == f"protocol_violation: {field}: evt.agent.{family} needs it"
    assert not Run.objects.exists()


@pytest.mark.parametrize("epoch", [-1, "1", 1.5, True])
def test_an_epoch_is_a_natural_number(epoch: object) -> None:
    ingest.take([said("state", {**STATE, "turn_epoch": epoch})])
    assert "turn_epoch" in letters()[0][2]


def test_an_agent_may_tell_its_steps_on_the_thread_of_a_run_of_ours(project: Project) -> None:
    run = make_run(project, "run_01")
    ingest.take([said("step", {**STEP, "agent_turn_id": "run_01-0"}, channel="t_run_01")])
    ingest.take([said("task", TASK, channel="t_run_01")])
    assert told("t_run_01") == [("agent.step", "s1: executing"), ("agent.task", "turn-1: success")]
    run.refresh_from_db()
    assert run.status == "completed"
    assert not Run.objects.exclude(id="run_01").exists()


@pytest.mark.parametrize(("family", "body"), [("task", TASK), ("state", STATE)])
def test_nobody_else_says_how_a_turn_of_ours_goes(project: Project, family: str, body: dict[str, Any]) -> None:
    make_run(project, "run_01")
    ingest.take([said(family, {**body, "agent_turn_id": "run_01-0"}, channel="t_run_01")])
    assert "protocol_violation: agent_turn_id: 'run_01-0' is a turn of OpenVibe's own" in letters()[0][2]
    assert told("t_run_01") == []


def test_a_turn_in_public_stands_on_the_general_channel() -> None:
    ingest.take([said("step", STEP, channel="public"), said("task", TASK, channel="public")])
    assert told("public") == [("agent.step", "s1: executing"), ("agent.task", "turn-1: success")]
    assert not Run.objects.exists()


def test_a_run_of_ours_that_is_gone_is_no_external_run() -> None:
    ingest.take([said("step", STEP, channel="t_run_99")])
    assert letters()[0][2] == "Nobody knows the channel 't_run_99'"


def test_whatever_else_an_agent_says_on_its_thread_stands_there_too() -> None:
    ingest.take([said("step", STEP), said("message", {"id": "m1", "content": "hello"})])
    assert told(f"t_{JOB}") == [("agent.step", "s1: executing"), ("agent.message", "hello")]
