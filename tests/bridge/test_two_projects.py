"""Two projects on one nats-server: requests, heartbeats, health, faults and context, each on its own subjects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from openvibe.bus import Message
from openvibe.bus.nats import NatsBus
from openvibe.errors import NoResponders
from openvibe.protocol import requests
from operators import definitions
from operators.bridge import health
from operators.models import (
    Agent,
    ApiToken,
    ContextEntry,
    DeadLetter,
    Event,
    Inquiry,
    Membership,
    Notice,
    Operator,
    Project,
    Run,
)
from operators.services import compiled, context, registration, servers
from tests.bridge.conftest import SOON, Bridge, eventually
from tests.bridge.test_requests import ask, asked, asking, refused, settled, with_client, worker
from tests.bridge.test_session_faults import body, kept, pass_by
from tests.bridge.village import Baker, Grocer

__all__ = ["worker"]
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project", "other_project")]

OURS, THEIRS = "operators.grocer.request.price", "tenant.other.operators.grocer.request.price"


@pytest.fixture
def grocers(project: Project, other_project: Project) -> Iterator[dict[str, Operator]]:
    """The grocer of each project."""
    yield from _registered(Grocer, project, other_project)


@pytest.fixture
def their_grocer(other_project: Project) -> Iterator[dict[str, Operator]]:
    """A grocer that the project `other` alone has."""
    yield from _registered(Grocer, other_project)


def _registered(cls: type, *projects: Project) -> Iterator[dict[str, Operator]]:
    definition = definitions.registry.register(cls)
    yield {project.id: registration.register(project, definition) for project in projects}
    definitions.registry.remove(definition.spec.id)
    compiled.workflow.cache_clear()


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_projects_operator_answers_on_its_projects_subject(grocers, bridge: Bridge, worker) -> None:
    for project, subject, loaves in (("default", OURS, 3), ("other", THEIRS, 4)):
        told = json.loads(ask(bridge, subject, {"loaves": loaves}).data)
        assert told["result"]["price"] == f"{2 * loaves} coins"
        assert Run.objects.get(id=told["run_id"]).project_id == project


def test_the_same_name_of_a_request_is_another_one_in_another_project(grocers, bridge: Bridge, worker) -> None:
    first, second = (json.loads(ask(bridge, place, {"loaves": 3}, Nats_Msg_Id="o").data) for place in (OURS, THEIRS))
    assert first["run_id"] != second["run_id"]


def test_nobody_reaches_an_operator_of_another_project_by_the_subjects_of_his_own(
    their_grocer, bridge: Bridge, worker
) -> None:
    assert json.loads(ask(bridge, THEIRS, {"loaves": 1}).data)["status"] == "completed"
    with pytest.raises(NoResponders):
        with_client(bridge, lambda bus: bus.request(OURS, b"{}", timeout=2))
    assert refused(ask(bridge, "tenant.other.operators.grocer.request.shoes", {})).code == "404"
    assert set(Run.objects.values_list("project_id", flat=True)) == {"other"}


def test_no_answer_is_kept_on_a_subject_of_another_project(grocers, bridge: Bridge) -> None:
    for place, stranger in ((OURS, "other"), (THEIRS, "default")):
        answer_to = f"cg.v1.{stranger}.t_run_1.cmd.sys.reply.wait_1"
        error = refused(ask(bridge, place, {"loaves": 1}, OpenVibe_Answer_To=answer_to))
        assert (error.code, "OpenVibe-Answer-To" in error.description) == ("422", True)
    assert not Inquiry.objects.exists()


def test_a_run_of_another_project_asks_on_its_own_subject(other_project: Project, bridge: Bridge) -> None:
    for found in _registered(Baker, other_project):
        wait = asking(found["other"])
        heard: list[Message] = []

        async def answering(bus: NatsBus, wait: Any = wait, heard: list[Message] = heard) -> None:
            async def price(message: Message) -> bytes:
                heard.append(message)
                return b'{"price": "five"}'

            await bus.serve(THEIRS, price)
            await asyncio.to_thread(asked, wait)

        with_client(bridge, answering)
        assert settled(wait).result == {"price": "five"}
        assert heard[0].headers[requests.ANSWER_TO].startswith("cg.v1.other.")


# ── heartbeats and the registry ──────────────────────────────────────────────────────────────────────────────────────


def test_a_server_tells_each_project_of_that_projects_operators_only(their_grocer, bridge: Bridge) -> None:
    async def act(bus: NatsBus) -> tuple[Message, Message, Any, Any]:
        beats: asyncio.Queue[Message] = asyncio.Queue()
        words: asyncio.Queue[Message] = asyncio.Queue()
        await bus.subscribe("tenant.other.operators.grocer.heartbeat", beats.put)
        await bus.subscribe("operators.>", beats.put)
        await bus.subscribe("tenant.other.system.health", words.put)
        async with asyncio.timeout(2 * SOON):
            beat, word = await beats.get(), await words.get()
        entries = [await bus.get_kv(name, "servers/openvibe") for name in ("tenant-other-registry", "registry")]
        assert beats.empty()
        return beat, word, *(json.loads(entry or b"{}") for entry in entries)

    beat, word, theirs, ours = with_client(bridge, act)
    assert beat.subject == "tenant.other.operators.grocer.heartbeat"
    assert json.loads(beat.data)["capabilities"] == ["advice", "price"]
    assert json.loads(word.data)["payload"]["agent_id"] == "openvibe:openvibe"
    assert (theirs["operators"], ours["operators"]) == (["grocer"], [])


def heard(project: str, slug: str) -> None:
    """Let a server tell a project of its operator there."""
    told = {"operators": [slug], "capabilities": {slug: ["price"]}, "last_heartbeat": timezone.now().isoformat()}
    servers.heard(project, [{"server": "north", **told}])


def test_what_a_server_tells_another_project_offers_nothing_here() -> None:
    heard("other", "grocer")
    assert servers.offered("other", "grocer", "price")
    assert not servers.offered("default", "grocer", "price")


def listed(user: User, project: Project) -> list[str]:
    key = ApiToken.new_key()
    ApiToken.objects.create(key_sha256=ApiToken.fingerprint(key), name="test", project=project, user=user)
    answer = Client(headers={"Authorization": f"Bearer {key}"}).get("/v1/servers")
    assert answer.status_code == 200
    return [f"{item['id']}: {', '.join(item['operators'])}" for item in answer.json()["servers"]]


def test_charlie_sees_what_servers_tell_his_project_and_nothing_of_ours(
    vera: User, charlie: User, project: Project, other_project: Project
) -> None:
    heard("default", "desk")
    heard("other", "grocer")
    assert listed(vera, project) == ["north: desk"]
    assert listed(charlie, other_project) == ["north: grocer"]
    browser = Client()
    browser.force_login(charlie)
    page = browser.get("/agents/servers/").content.decode()
    assert ("grocer" in page, "desk" in page) == (True, False)
    assert browser.get("/agents/servers/?project=default").status_code == 404
    Membership.objects.create(user=charlie, project=project, role=Membership.Role.VIEWER)
    page = browser.get("/agents/servers/?project=default").content.decode()
    assert ("grocer" in page, "desk" in page, 'href="?project=other"' in page) == (False, True, True)


# ── health and faults ────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_agents_health_is_that_of_its_own_project(bridge: Bridge) -> None:
    word = json.dumps(body("", "system.health", {"agent_id": "ada", "status": "ok"})).encode()
    eventually(lambda: (pass_by(bridge, "tenant.other.system.health", word), Agent.objects.exists())[1])
    assert Agent.objects.get().project_id == "other"
    pass_by(bridge, "system.health", word)
    eventually(lambda: Agent.objects.count() == 2)
    assert set(Agent.objects.values_list("name", "project_id")) == {("ada", "default"), ("ada", "other")}


def test_the_health_of_a_project_that_does_not_exist_harms_nobody() -> None:
    word = json.dumps(body("", "system.health", {"agent_id": "ada"})).encode()
    health.take([Message("tenant.nobody.system.health", word), Message("tenant.other.system.health", word)])
    assert Agent.objects.get().project_id == "other"
    letter = DeadLetter.objects.get()
    assert (letter.subject, "no project 'nobody'" in letter.reason) == ("tenant.nobody.system.health", True)
    assert not Notice.objects.exists()


def test_what_an_agent_says_wrongly_is_told_in_its_own_project_only(bridge: Bridge) -> None:
    bridge.send(("tenant.other.sessions.run_99.results", b"{"), ("cg.v1.other.public.evt.agent.scout.message", b"{"))
    eventually(lambda: (pass_by(bridge, "tenant.other.system.health", b"{"), DeadLetter.objects.count() == 3)[1])
    assert set(Event.objects.filter(kind="error").values_list("project_id", flat=True)) == {"other"}
    eventually(lambda: Notice.objects.filter(sent_at__isnull=False).count() == 2)
    [fault] = kept(bridge, "tenant.other.sessions.system.events")
    assert (fault["type"], fault["payload"]["subject"]) == ("event.error", "tenant.other.system.health")
    assert len(kept(bridge, "tenant.other.sessions.run_99.events")) == 1
    assert kept(bridge, "sessions.>") == []


# ── shared context ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_project_has_buckets_of_its_own_both_ways(bridge: Bridge) -> None:
    for project, value in (("default", 1), ("other", 2)):
        context.put(project, "leads", "acme", value, author="alice")
    for name, value in (("context-leads", b"1"), ("tenant-other-context-leads", b"2")):
        eventually(lambda name=name, value=value: with_client(bridge, lambda bus: bus.get_kv(name, "acme")) == value)
    with_client(bridge, lambda bus: bus.put_kv("tenant-other-context-leads", "theirs", b"3"))
    eventually(lambda: ContextEntry.objects.filter(key="theirs").exists())
    assert ContextEntry.objects.get(key="theirs").project_id == "other"


def test_a_project_that_is_new_gets_its_buckets(bridge: Bridge) -> None:
    eventually(lambda: with_client(bridge, lambda bus: bus.keys_kv("tenant-other-context-leads")) == [])
    Project.objects.create(id="new", name="New")
    eventually(lambda: _puts(bridge, "tenant-new-context-leads"))
    eventually(lambda: context.value("new", "leads", "a") == 1)


def _puts(bridge: Bridge, bucket: str) -> bool:
    """Put a value as whoever does not make buckets does."""

    async def act(bus: NatsBus) -> bool:
        found = await bus.request(f"$KV.{bucket}.a", b"1", timeout=SOON)
        return b'"seq"' in found.data

    try:
        return bool(with_client(bridge, act))
    except NoResponders:
        return False


def test_a_value_that_cannot_be_read_is_told_in_the_project_of_its_bucket(bridge: Bridge) -> None:
    with_client(bridge, lambda bus: bus.put_kv("tenant-other-context-leads", "odd", b"{"))
    eventually(DeadLetter.objects.exists)
    eventually(lambda: Event.objects.filter(kind="error").exists())
    assert Event.objects.get(kind="error").project_id == "other"
