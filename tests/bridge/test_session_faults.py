"""Sessions on a real nats-server: garbage, duplicates, older versions and strangers, and what the others hear of it."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import pytest

from openvibe.bus import Message
from openvibe.bus.memory import MemoryBus
from openvibe.protocol import sessions
from operators import clock
from operators.bridge import health, ingest
from operators.models import Agent, DeadLetter, Event, InboxItem, Notice, Project, Run, Stint, Wait
from operators.services import notices
from tests.bridge.conftest import Bridge, eventually, letters, make_run
from tests.bridge.test_sessions import session, waiting

__all__ = ["waiting"]
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]
JANUARY = datetime(2026, 1, 1, tzinfo=UTC)


def body(run_id: str, type: str, payload: Any, **changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    made = {"version": "1", "id": str(uuid.uuid4()), "timestamp": now, "session_id": run_id, "type": type}
    return made | {"payload": payload} | changes


def kept(bridge: Bridge, subject: str) -> list[dict[str, Any]]:
    """What the stream keeps on a subject, as an agent that comes late reads it."""

    async def read() -> list[dict[str, Any]]:
        client = await nats.connect(bridge.server.url)
        found = await client.jetstream().subscribe(subject, ordered_consumer=True)
        told = []
        while True:
            try:
                told.append(json.loads((await found.next_msg(timeout=0.5)).data))
            except nats.errors.TimeoutError:
                await client.close()
                return told

    return asyncio.run(read())


def pass_by(bridge: Bridge, subject: str, *bodies: bytes) -> None:
    """Publish messages that no stream keeps."""

    async def publish() -> None:
        client = await nats.connect(bridge.server.url)
        for data in bodies:
            await client.publish(subject, data)
        await client.drain()

    asyncio.run(publish())


def test_garbage_is_told_as_an_error_kept_as_a_dead_letter_and_stops_nobody(bridge: Bridge, waiting: Run) -> None:
    place = f"sessions.{waiting.id}"
    done = {"chunk_id": "c1", "work_type": "coding", "summary": "done", "context": {"agent_id": "ada"}}
    wrong = body(waiting.id, "result.failure", {"work_id": "w"}, id="no-reason")
    bad: list[tuple[str, object]] = [
        (f"{place}.results", b"{not json"),
        (f"{place}.results", wrong),
        (f"{place}.results", body(waiting.id, "result.success.v7", done)),
        (f"{place}.results", body(waiting.id, "work.coding", {})),
        (f"{place}.results", body("run_99", "result.success", done)),
        (f"{place}.approvals", body(waiting.id, "approval.granted", {"gate_id": "wait_approval"})),
        (f"{place}.events", body(waiting.id, "event.agent.started", {"role": "coding"})),
        (f"{place}.events", {"type": "event.agent.started"}),
    ]
    bridge.send(*bad, (f"{place}.results", body(waiting.id, "result.success", done)))
    eventually(lambda: Wait.objects.get(id="wait_work").status == "resolved")
    assert len(letters()) == len(bad)
    recorded = Event.objects.filter(channel=f"t_{waiting.id}", kind="agent.error", actor="openvibe")
    assert recorded.count() == len(bad)
    assert Event.objects.filter(channel="public", kind="error").count() == len(bad)
    eventually(lambda: not Notice.objects.filter(sent_at=None).exists())
    told = [item for item in kept(bridge, f"{place}.events") if item["type"] == "event.error"]
    assert len(told) == len(bad)
    [one] = [item["payload"] for item in told if item["payload"].get("message_id") == "no-reason"]
    letter = DeadLetter.objects.get(pk=one["dead_letter"])
    assert (json.loads(bytes(letter.body)), one["message_type"]) == (wrong, "result.failure")
    assert "payload.error" in one["error"]
    for item in told:
        sessions.read(item)
    # What we said ourselves does not come back as somebody else's word.
    assert recorded.count() == len(bad)


def test_the_same_garbage_again_is_told_once(bridge: Bridge, run: Run) -> None:
    place = f"sessions.{run.id}.results"
    bridge.send((place, b"{"), (place, b"{"))
    bridge.send((place, b"{"), (f"sessions.{run.id}.events", body(run.id, "event.note", {"content": "after"})))
    eventually(lambda: Event.objects.filter(kind="agent.note").exists())
    eventually(lambda: Notice.objects.filter(sent_at__isnull=False).exists())
    assert (len(letters()), Notice.objects.count()) == (1, 1)
    assert Event.objects.filter(kind="agent.error").count() == 1


def test_a_type_with_and_without_the_suffix_of_its_version_is_the_same(bridge: Bridge, waiting: Run) -> None:
    done = {"chunk_id": "c1", "work_type": "coding", "summary": "done", "unheard_of": {"x": 1}}
    bridge.send((f"sessions.{waiting.id}.results.coding", body(waiting.id, "result.success.v1", done, extra=1)))
    eventually(lambda: Wait.objects.get(id="wait_work").status == "resolved")
    assert Wait.objects.get(id="wait_work").result["unheard_of"] == {"x": 1}


def test_a_message_twice_counts_once(bridge: Bridge, waiting: Run) -> None:
    done = body(waiting.id, "result.success", {"chunk_id": "c1", "work_type": "coding"})
    started = body(waiting.id, "event.agent.started", {"agent_id": "ada", "role": "coding"})
    place = f"sessions.{waiting.id}"
    bridge.send(*[(f"{place}.events", started)] * 2, *[(f"{place}.results", done)] * 3)
    eventually(lambda: InboxItem.objects.filter(status="consumed").count() == 1)
    bridge.send((f"{place}.events", started), (f"{place}.events", body(waiting.id, "event.note", {"content": "x"})))
    eventually(lambda: Event.objects.filter(kind="agent.note").exists())
    assert Event.objects.filter(kind="agent.agent_started").count() == 1
    assert InboxItem.objects.count() == 1


def test_a_stranger_who_speaks_of_a_session_that_nobody_knows_changes_nothing(bridge: Bridge, waiting: Run) -> None:
    stranger = "run_of_somebody_else"
    bridge.send(
        (f"sessions.{stranger}.results", body(stranger, "result.success", {"work_id": "wait_work"})),
        (f"sessions.{stranger}.approvals", body(stranger, "approval.granted",
                                               {"gate_id": "wait_approval", "approved_by": "mallory"})),
        (f"sessions.{stranger}.events", body(stranger, "event.agent.started", {"agent_id": "mallory"})),
    )  # fmt: skip
    eventually(lambda: len(letters()) == 3)
    assert set(Wait.objects.values_list("status", flat=True)) == {"pending"}
    assert not Agent.objects.exists()
    # It is no malformed message: another server's session is none of our business.
    assert not Notice.objects.exists()


def test_an_agents_health_is_heard_and_a_malformed_word_is_told(bridge: Bridge) -> None:
    say = [json.dumps(body("", "system.health", {"agent_id": name, "status": word})).encode()
           for name, word in (("ada", "ok"), ("ben", "error"))]  # fmt: skip
    eventually(lambda: (pass_by(bridge, "system.health", b"{", *say), Agent.objects.count() == 2)[1])
    assert {agent.name: agent.state() for agent in Agent.objects.all()} == {"ada": "idle", "ben": "error"}
    assert [item[0] for item in letters()] == ["system.health"]
    eventually(lambda: Notice.objects.filter(sent_at__isnull=False).exists())
    assert kept(bridge, "sessions.system.events")[0]["payload"]["subject"] == "system.health"


def test_openvibe_says_that_it_lives_too(bridge: Bridge) -> None:
    async def hear() -> dict[str, Any]:
        client = await nats.connect(bridge.server.url)
        heard = await client.subscribe("system.health")
        found: dict[str, Any] = json.loads((await heard.next_msg(timeout=25)).data)
        await client.close()
        return found

    told = asyncio.run(hear())
    assert sessions.read(told).payload["agent_id"] == "openvibe:openvibe"
    assert not Agent.objects.exists()


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("turned", [False, True])
def test_an_agents_comings_and_goings_count_in_whatever_order_they_arrive(waiting: Run, turned: bool) -> None:
    words = [("started", 1), ("stopped", 2), ("started", 3)]
    said = []
    for number, (word, minutes) in enumerate(words):
        at = (JANUARY + timedelta(minutes=minutes)).isoformat()
        told = body(waiting.id, f"event.agent.{word}", {"agent_id": "ada"}, id=f"m{number}", timestamp=at)
        said.append(Message(f"sessions.{waiting.id}.events", json.dumps(told).encode()))
    for message in reversed(said) if turned else said:
        ingest.take([message])
    assert Stint.objects.open().exists()
    assert Agent.objects.get().state() == "running"


@pytest.mark.usefixtures("memory")
def test_an_agent_whose_clock_is_years_ahead_can_still_say_goodbye(waiting: Run) -> None:
    ahead = body(waiting.id, "event.agent.started", {"agent_id": "ada"}, timestamp="2999-01-01T00:00:00Z")
    ingest.take([Message(f"sessions.{waiting.id}.events", json.dumps(ahead).encode())])
    ingest.take([session(waiting, "events", "event.agent.stopped", {"agent_id": "ada"}, id="m2")])
    later = body(waiting.id, "event.agent.stopped", {"agent_id": "ada"})
    ingest.take([Message(f"sessions.{waiting.id}.events", json.dumps(later).encode())])
    assert not Stint.objects.open().exists()


@pytest.mark.usefixtures("memory")
def test_an_agent_that_told_of_its_health_and_is_silent_counts_as_silent(waiting: Run) -> None:
    ingest.take([session(waiting, "events", "event.agent.started", {"agent_id": "ada"})])
    health.take([Message("system.health", json.dumps(body("", "system.health", {"agent_id": "ada"})).encode())])
    agent = Agent.objects.get()
    assert agent.state() == "running"
    assert agent.state(agent.heard_at + timedelta(seconds=31)) == "silent"


@pytest.mark.usefixtures("memory")
def test_an_agent_in_two_sessions_works_until_it_has_left_both(project: Project, run: Run) -> None:
    def says(place: Run, word: str) -> None:
        told = body(place.id, f"event.agent.{word}", {"agent_id": "ada"})
        ingest.take([Message(f"sessions.{place.id}.events", json.dumps(told).encode())])

    other = make_run(project, "run_02")
    Run.objects.update(status=Run.Status.WAITING)
    for place, word, state in (
        (run, "started", "running"),
        (other, "started", "running"),
        (run, "stopped", "running"),
        (other, "stopped", "stopped"),
    ):
        says(place, word)
        assert Agent.objects.get().state() == state
    says(run, "started")
    Run.objects.update(status=Run.Status.COMPLETED)
    assert Agent.objects.get().state() == "stopped"


def test_a_notice_waits_for_the_bus(run: Run, memory: MemoryBus) -> None:
    notices.write("event.error", {"error": "x"}, project_id="default", session_id=run.id, id="n1", run=run)
    notices.write("event.error", {"error": "x"}, project_id="default", session_id=run.id, id="n1", run=run)
    notice = Notice.objects.get()
    asyncio.run(memory.close())
    assert not notices.send(notice.pk)
    notice.refresh_from_db()
    assert notice.sent_at is None


def test_the_clock_hands_over_what_was_left_behind(run: Run, memory: MemoryBus) -> None:
    notices.write("event.error", {"error": "x"}, project_id="default", session_id=run.id, id="n1", run=run)
    Notice.objects.update(written_at=JANUARY)
    clock.tick()
    assert Notice.objects.get().sent_at is not None
