"""Projects beside `default`: their agents' subjects begin with whose they are, coming in and going out."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from django.utils import timezone

from openvibe.bus import Message
from openvibe.bus.memory import MemoryBus
from openvibe.protocol import accounts, tenancy
from openvibe.protocol.streams import CONSUMERS, STREAMS
from operators.bridge import ingest
from operators.models import DeadLetter, Emission, Event, InboxItem, Project, Run
from operators.services import deliveries
from tests.bridge.conftest import make_run, said

pytestmark = pytest.mark.django_db


def taken(subject: str, **body: Any) -> None:
    headers = {"CG-Recursion-Depth": "0"}
    assert not ingest.take([Message(subject, json.dumps(body).encode(), headers)])


@pytest.fixture
def theirs(other_project: Project) -> Run:
    return make_run(other_project, "run_theirs")


def test_what_an_agent_of_another_project_says_is_heard_in_that_project(project: Project, theirs: Run) -> None:
    taken("tenant.other.operators.scout.events.found", id="1", content="found it")
    taken("tenant.other.workflow.general.note", id="2", content="a note")
    started = {"version": "1", "id": "3", "timestamp": "2026-01-01T00:00:00Z", "session_id": theirs.id}
    taken(f"tenant.other.sessions.{theirs.id}.events", **started, type="event.agent.started",
          payload={"agent_id": "coder", "content": "I begin"})  # fmt: skip
    assert not DeadLetter.objects.exists()
    assert sorted(said(project="other")) == ["a note", "found it"]
    assert said(f"t_{theirs.id}", "other") == ["I begin"]
    assert set(InboxItem.objects.values_list("project_id", flat=True)) <= {"other"}
    assert not Event.objects.filter(project_id="default", kind__startswith="agent.").exists()


def test_an_agent_of_default_reaches_no_run_of_another_project(project: Project, theirs: Run) -> None:
    body = {"version": "1", "id": "3", "timestamp": "2026-01-01T00:00:00Z", "session_id": theirs.id}
    taken(f"sessions.{theirs.id}.events", **body, type="event.agent.started", payload={"agent_id": "coder"})
    assert DeadLetter.objects.count() == 1
    assert not Event.objects.filter(project_id="other").exists()


@pytest.mark.django_db(transaction=True)
def test_a_project_that_does_not_exist_is_a_dead_letter(project: Project) -> None:
    taken("tenant.nobody.operators.scout.events.found", id="1")
    assert DeadLetter.objects.get().subject == "tenant.nobody.operators.scout.events.found"


def test_what_a_run_of_another_project_emits_goes_out_on_its_own_subject(theirs: Run, memory: MemoryBus) -> None:
    heard: list[str] = []

    async def hear(message: Message) -> None:
        heard.append(message.subject)

    asyncio.run(memory.subscribe(">", hear))
    emission = Emission.objects.create(
        id="emission_1", project_id="other", run=theirs, name="scout.found", payload={}, emitted_at=timezone.now()
    )
    assert deliveries.deliver(emission.id)
    assert "tenant.other.operators.scout.events.found" in heard
    assert not any(subject.startswith("operators.") for subject in heard)


@pytest.mark.parametrize("subject", ["operators.a.events.b", "sessions.run_1.work", "workflow.general.note"])
def test_a_subject_comes_back_as_whose_and_which_it_was(subject: str) -> None:
    assert tenancy.inward(tenancy.outward("acme", subject)) == ("acme", subject)
    assert tenancy.inward(tenancy.outward("default", subject)) == ("default", subject)
    assert tenancy.outward("acme", "cg.v1.acme.public.evt.sys.a.b") == "cg.v1.acme.public.evt.sys.a.b"


def test_no_two_projects_share_a_subject_that_their_agents_say_or_hear() -> None:
    ours, theirs = ({*accounts.said(name), *accounts.heard(name)} for name in ("default", "acme"))
    assert not ours & theirs
    assert all("acme" in re.split(r"[.-]", subject) for subject in theirs)


def test_streams_keep_and_readers_read_what_every_project_says() -> None:
    for kept in (*[row.subjects for row in STREAMS], *[row.patterns for row in CONSUMERS]):
        plain = {item for item in kept if not item.startswith(("cg.", "tenant."))}
        assert {f"tenant.*.{item}" for item in plain} == {item for item in kept if item.startswith("tenant.")}
