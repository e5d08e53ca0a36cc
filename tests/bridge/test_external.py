"""Runs of foreign workflow runtimes: known from messages only, each once, in order, and never played here."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.db import connection
from django.test import Client

from openvibe.bus import Message
from openvibe.protocol import headers, workflow
from operators import clock
from operators.bridge import ingest
from operators.errors import DomainError, NotRetryable
from operators.models import Event, Operator, Project, Run
from operators.models.operator import EXTERNAL
from operators.services import announcements, intake, limits
from tests.bridge.conftest import Bridge, eventually, letters, said

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]

UID = "0b6c1f7e-54ab-4dd4-9a51-1c3b3f5f3e10"
RUN = workflow.run_id("default", UID)


def told(kind: str, body: dict[str, Any], *, uid: str = UID, prefix: str = "workflow", **stamps: str) -> Message:
    subject = f"{prefix}.lab.fix-issue.{uid}.agent.coder.{kind}"
    return Message(subject, json.dumps(body).encode(), stamps)


def general(kind: str, body: dict[str, Any]) -> Message:
    return Message(f"workflow.general.{kind}", json.dumps(body).encode())


@pytest.mark.usefixtures("memory")
def test_the_first_message_of_an_unknown_run_makes_it_known() -> None:
    trace = headers.new_trace()
    ingest.take([told("message", {"id": "m1", "content": "I begin"}, traceparent=trace)])
    run = Run.objects.get()
    assert (run.id, run.status, run.lease_until, run.traceparent) == (RUN, "running", None, trace)
    assert (run.operator.slug, run.workflow.slug) == ("external_agents", "external")
    assert run.input == {"workflow_uid": UID, "workflow_name": "fix-issue", "workflow_namespace": "lab"}
    events = Event.objects.filter(channel=f"t_{RUN}").order_by("seq")
    assert [(event.seq, event.kind, event.run_id) for event in events] == [
        (1, "run.started", RUN),
        (2, "agent.message", RUN),
    ]
    assert (events[1].actor, events[1].data["content"], events[1].data["role"]) == ("coder", "I begin", "assistant")


@pytest.mark.usefixtures("memory")
def test_its_messages_stand_on_its_thread_in_order_and_once() -> None:
    batch = [told("log", {"message_id": f"m{number}", "text": f"line {number}"}) for number in range(20)]
    ingest.take(batch)
    ingest.take([*batch, told("log", {"message_id": "m20", "text": "line 20"})])
    assert said(f"t_{RUN}") == [f"line {number}" for number in range(21)]
    assert list(Event.objects.filter(run_id=RUN, channel=f"t_{RUN}").order_by("seq").values_list("seq", flat=True)) == [
        *range(1, 23)
    ]
    assert letters() == []


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"content": "All done"}, "completed"),
        ({"status": "succeeded", "exit_code": 0}, "completed"),
        ({"status": "failed"}, "failed"),
        ({"content": "The tests are red", "exitCode": 2}, "failed"),
        ({"status": "cancelled"}, "cancelled"),
    ],
)
def test_a_run_ends_as_its_runtime_says(body: dict[str, Any], status: str) -> None:
    ingest.take([told("message", {"id": "m1", "content": "I begin"}), told("run-complete", {"id": "m2", **body})])
    ingest.take([told("run-complete", {"id": "m3", "status": "failed"}), told("log", {"id": "m4", "text": "late"})])
    run = Run.objects.get()
    assert run.status == status
    kinds = list(Event.objects.filter(channel=f"t_{RUN}").order_by("seq").values_list("kind", flat=True))
    assert kinds[2:4] == ["agent.run_complete", f"run.{status}"]
    assert kinds[4:] == ["agent.run_complete", "agent.log"]


@pytest.mark.usefixtures("memory")
def test_a_failed_external_run_cannot_be_retried_nor_its_workflow_started(admin_user: AbstractUser) -> None:
    ingest.take([told("run-failed", {"id": "m1", "content": "out of memory"})])
    run = Run.objects.get()
    assert run.error is not None
    assert run.error["message"] == "out of memory"
    with pytest.raises(NotRetryable):
        intake.retry(run, actor=admin_user)
    with pytest.raises(DomainError):
        intake.request(run.workflow, input={}, actor=admin_user)
    assert not Operator.objects.visible_to(admin_user).filter(slug=EXTERNAL).exists()


@pytest.mark.usefixtures("memory")
def test_the_clock_lets_an_external_run_be() -> None:
    ingest.take([told("message", {"id": "m1", "content": "I begin"})])
    before = Run.objects.values("status", "epoch", "losses", "last_seq").get()
    clock.tick()
    assert Run.objects.values("status", "epoch", "losses", "last_seq").get() == before


@pytest.mark.usefixtures("memory")
def test_an_external_run_takes_no_slot_of_its_project(run: Run) -> None:
    Project.objects.update(max_running=1)
    ingest.take([told("message", {"id": "m1", "content": "I begin"})])
    Run.objects.filter(id=run.id).update(status="queued")
    queue = limits.queue(Operator.objects.select_related("project").get(slug="scout"))
    assert queue is not None
    assert [found.id for found in queue.turns()] == [run.id]


@pytest.mark.usefixtures("memory")
def test_bridges_that_meet_a_run_at_the_same_time_make_one_row() -> None:
    def take(number: int) -> None:
        try:
            ingest.take([told("log", {"id": f"m{number}", "text": f"line {number}"})])
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(take, range(8)))
    assert Run.objects.get().id == RUN
    events = Event.objects.filter(channel=f"t_{RUN}").order_by("seq")
    assert [event.seq for event in events] == list(range(1, 10))
    assert [event.kind for event in events].count("run.started") == 1
    assert sorted(said(f"t_{RUN}")) == [f"line {number}" for number in range(8)]


@pytest.mark.usefixtures("memory")
def test_projects_and_uids_have_runs_of_their_own() -> None:
    ingest.take([told("log", {"id": "m1", "text": "a"}), told("log", {"id": "m1", "text": "b"}, uid="another")])
    assert Run.objects.count() == 2
    assert workflow.run_id("default", UID) != workflow.run_id("acme", UID)


@pytest.mark.usefixtures("memory")
def test_a_general_message_that_names_a_known_run_points_at_it() -> None:
    ingest.take(
        [
            general("status", {"id": "g1", "workflow_uid": UID, "content": "in general"}),
            told("log", {"id": "m1", "text": "in its thread"}),
            general("status", {"id": "g2", "workflow_uid": "unknown", "content": "about nobody"}),
        ]
    )
    pairs = Event.objects.filter(channel="public", kind="agent.status").order_by("seq").values_list("run_id", flat=True)
    assert list(pairs) == [RUN, None]
    assert said(f"t_{RUN}") == ["in its thread"]


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize(
    ("subject", "body", "reason"),
    [
        ("workflow.lab.fix-issue.u1.agent.coder.log", {"id": "m1"}, "content: "),
        ("workflow.lab.fix-issue.u1.agent.coder.log", {"workflow_uid": "u2", "text": "x"}, "workflow_uid: "),
        ("workflow.lab.fix-issue.u1.coder.log", {"text": "x"}, "is neither"),
        ("workflow.lab", {"text": "x"}, "is neither"),
        ("workflow.general", {"text": "x"}, "is neither"),
    ],
)
def test_what_the_dialect_does_not_know_is_a_dead_letter(subject: str, body: dict[str, Any], reason: str) -> None:
    ingest.take([Message(subject, json.dumps(body).encode())])
    assert reason in letters()[0][2]
    assert not Run.objects.exists()


@pytest.mark.usefixtures("memory")
def test_the_older_prefix_is_read_where_the_setting_names_it(settings: Any) -> None:
    message = told("log", {"id": "m1", "text": "from argo", "runtime": "argo"}, prefix="argo.workflow")
    ingest.take([message])
    assert not Run.objects.exists()
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, workflow_prefix=("workflow", "argo.workflow"))
    ingest.take([message])
    assert said(f"t_{RUN}") == ["from argo"]
    assert Event.objects.get(kind="agent.log").data["attrs"] == {
        "runtime": "argo",
        "nats_subject": f"argo.workflow.lab.fix-issue.{UID}.agent.coder.log",
    }


@pytest.mark.usefixtures("memory")
def test_attributes_bear_the_names_of_the_runtime() -> None:
    body = {"id": "m1", "text": "x", "attrs": {"nats_subject": "forged", "n": 1}, "repo": "lab/x", "issue_number": 7}
    ingest.take([told("log", body)])
    assert Event.objects.get(kind="agent.log").data["attrs"] == {
        "nats_subject": f"workflow.lab.fix-issue.{UID}.agent.coder.log",
        "n": 1,
        "repository": "lab/x",
        "issueNumber": 7,
    }


@pytest.mark.usefixtures("memory")
def test_a_status_and_an_end_need_no_text() -> None:
    ingest.take([told("status", {"id": "m1", "stage": "plan"}), told("run-complete", {"id": "m2"})])
    assert (said(f"t_{RUN}"), letters()) == (["status", "run complete"], [])
    assert Run.objects.get().status == "completed"


@pytest.mark.usefixtures("memory")
def test_its_page_shows_what_its_agents_say(admin_client: Client) -> None:
    ingest.take([told("message", {"id": "m1", "content": "I begin with the parser"})])
    announcements.settle(10)
    page = admin_client.get(f"/agents/{RUN}/")
    assert page.status_code == 200
    assert "I begin with the parser" in page.content.decode()
    # Where it was said concerns no reader.
    assert "nats_subject" not in page.content.decode()
    assert admin_client.get(f"/v1/operators/external_agents/runs/{RUN}").json()["status"] == "running"
    ended = told("run-complete", {"id": "m2", "content": "done"})
    ingest.take([ended])
    assert admin_client.get(f"/agents/{RUN}/").status_code == 200


def test_charlie_sees_nothing_of_an_external_run(memory: object, client: Client, django_user_model: Any) -> None:
    ingest.take([told("message", {"id": "m1", "content": "secret plans"})])
    client.force_login(django_user_model.objects.create_user("charlie"))
    assert client.get(f"/agents/{RUN}/").status_code == 404


def test_an_external_run_arrives_over_a_real_server(bridge: Bridge) -> None:
    subject = f"workflow.lab.fix-issue.{UID}.agent.coder"
    bridge.send(
        (f"{subject}.message", {"data": {"messageId": "m1", "workflowUid": UID, "text": "I begin"}}),
        (f"{subject}.run-complete", {"message_id": "m2", "status": "completed"}),
        ("workflow.general.message", {"message_id": "g1", "workflow_uid": UID, "content": "All may know"}),
    )
    eventually(lambda: Run.objects.filter(id=RUN, status="completed").exists())
    eventually(lambda: "All may know" in said())
    assert said(f"t_{RUN}") == ["I begin", "completed"]
