"""Sessions and agents over REST: create, list, read, stop; the log of events; and who may see and do what."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from openvibe.bus import Message
from openvibe.protocol import sessions as protocol
from operators.bridge import health, ingest
from operators.models import Agent, Event, Notice, Run, Stint, Wait
from operators.services import execution, session_logging, session_records, timeline, waits
from tests.api.test_api_operators import problem

pytestmark = pytest.mark.django_db(transaction=True)
JSON = "application/json"
GRAPH = {
    "session": {"name": "Sign-in", "repo": "/src"},
    "chunks": [
        {"id": "page", "description": "Build the page", "depends_on": ["auth"], "phases": ["coding"]},
        {"id": "auth", "description": "Check passwords", "phases": ["coding"]},
    ],
}


def create(client: Client, graph: Any = None, **more: Any) -> Any:
    return client.post("/v1/sessions", {"graph": GRAPH if graph is None else graph}, content_type=JSON, headers=more)


@pytest.fixture
def session(alice_calls: Client) -> str:
    """A session that has been played up to where it waits for an agent."""
    answer = create(alice_calls)
    assert answer.status_code == 201, answer.content
    name: str = answer.json()["id"]
    execution.perform(name)
    return name


def agent_says(session: str, word: str, agent: str = "ada", place: str = "events", **payload: Any) -> None:
    now = datetime.now(UTC)
    body = protocol.message(word, {"agent_id": agent, **payload}, id=f"{now}", run_id=session, now=now)
    ingest.take([Message(f"sessions.{session}.{place}", json.dumps(body).encode())])


def go_on(session: str, decision: str = "") -> None:
    """Let the agent's work be done, or the gate decided, and play on."""
    wait = Wait.objects.pending().get(run_id=session)
    if wait.kind == Wait.Kind.WORK:
        assert waits.settle(wait, result={"summary": "done", "files_changed": ["a.py"]}, by="ada")
    else:
        waits.answer(wait, waits.Answer(decision or "approve"), actor=None, decider="Eve")
    execution.perform(session)


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_session_is_created_worked_off_and_told_of_on_the_way(alice_calls: Client, session: str) -> None:
    def told() -> tuple[Any, ...]:
        found = alice_calls.get(f"/v1/sessions/{session}").json()
        return tuple(found[name] for name in ("status", "current_chunk", "chunks_completed", "chunks_total"))

    assert told() == ("active", "auth", 0, 2)
    go_on(session)
    assert told() == ("paused", "auth", 0, 2)
    go_on(session)
    assert told() == ("active", "page", 1, 2)
    go_on(session)
    go_on(session)
    assert told() == ("completed", None, 2, 2)
    found = alice_calls.get(f"/v1/sessions/{session}").json()
    assert (found["name"], found["operator_id"], found["workflow_id"]) == ("Sign-in", "coders", "code_session")


def test_a_session_that_nobody_has_begun_is_created_and_one_that_is_stopped_says_so(alice_calls: Client) -> None:
    place = create(alice_calls)["Location"]
    assert alice_calls.get(place).json()["status"] == "created"
    assert alice_calls.delete(place).status_code == 204
    assert alice_calls.get(place).json()["status"] == "stopped"
    assert problem(alice_calls.delete(place), 409)["title"] == "run_ended"


def test_the_same_key_creates_one_session(alice_calls: Client) -> None:
    first, again = (create(alice_calls, **{"Idempotency-Key": "k1"}) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    other = {**GRAPH, "session": {}}
    assert problem(create(alice_calls, other, **{"Idempotency-Key": "k1"}), 422)["title"] == "key_reused"


@pytest.mark.parametrize(
    ("graph", "field"),
    [
        ({"chunks": [{"id": "a", "description": "x", "depends_on": ["b"]}]}, "graph.chunks.0.depends_on"),
        ({"chunks": []}, "graph.chunks"),
        ({}, "graph.chunks"),
        ([], "graph"),
        ({"chunks": [{"id": "a"}]}, "graph.chunks.0.description"),
        ({"chunks": "a"}, "graph.chunks"),
        ({"chunks": [{"id": "a", "description": "x"}], "session": 7}, "graph.session"),
        ({"chunks": [{"id": "a", "description": "x"}], "session": {"name": ["a"]}}, "name"),
    ],
)
def test_a_graph_that_cannot_be_worked_off_is_refused_with_its_field(
    alice_calls: Client, graph: Any, field: str
) -> None:
    told = problem(create(alice_calls, graph), 422)
    assert told["errors"][0]["field"].startswith(field)
    assert not Run.objects.exists()


def test_sessions_are_listed_a_page_at_a_time_and_by_status(alice_calls: Client, session: str) -> None:
    newer = create(alice_calls).json()["id"]
    listed = alice_calls.get("/v1/sessions?limit=1").json()
    assert ([item["id"] for item in listed["results"]], listed["previous"]) == ([newer], None)
    assert [item["id"] for item in alice_calls.get(listed["next"]).json()["results"]] == [session]
    for status, names in (("active", [session]), ("created", [newer]), ("paused", []), ("completed", [])):
        found = alice_calls.get(f"/v1/sessions?status={status}").json()["results"]
        assert [item["id"] for item in found] == names
    assert "paused" in problem(alice_calls.get("/v1/sessions?status=merry"), 422)["detail"]


def test_a_run_that_hands_no_work_to_agents_is_no_session(alice_calls: Client, activate: Any) -> None:
    run = activate()
    assert alice_calls.get("/v1/sessions").json()["results"] == []
    problem(alice_calls.get(f"/v1/sessions/{run}"), 404)


def test_a_list_of_sessions_asks_the_database_as_often_however_many_there_are(
    alice_calls: Client, session: str, django_assert_max_num_queries: Any
) -> None:
    for _ in range(4):
        create(alice_calls)
    with django_assert_max_num_queries(6):
        assert len(alice_calls.get("/v1/sessions").json()["results"]) == 5


def test_vera_looks_on_bob_may_act_and_charlie_sees_nothing(
    session: str, vera_calls: Client, bob_calls: Client, charlie_calls: Client
) -> None:
    agent_says(session, "event.agent.started", "ada lovelace/1")
    places = [f"/v1/sessions/{session}", "/v1/agents/ada lovelace/1", f"/v1/events?session={session}"]
    for place in places:
        assert vera_calls.get(place).status_code == 200
        problem(charlie_calls.get(place), 404)
        assert Client().get(place).status_code == 401
    for place in places[:2]:
        problem(vera_calls.delete(place), 404)
        problem(charlie_calls.delete(place), 404)
    assert [charlie_calls.get(f"/v1/{name}").json()["results"] for name in ("sessions", "agents")] == [[], []]
    problem(create(vera_calls), 404)
    problem(create(charlie_calls), 404)
    started = {"session_id": session, "agent_id": "eve"}
    for client in (vera_calls, charlie_calls):
        problem(client.post("/v1/agents", started, content_type=JSON), 404)
    assert bob_calls.delete(places[1]).status_code == 204
    assert bob_calls.delete(places[0]).status_code == 204


# ── agents ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_agents_are_known_by_their_own_words(alice_calls: Client, session: str) -> None:
    agent_says(session, "event.agent.started", role="coding", container_id="docker_abc")
    [found] = alice_calls.get(f"/v1/agents?session={session}").json()["results"]
    assert (found["id"], found["status"], found["role"], found["session_id"]) == ("ada", "running", "coding", session)
    assert found["sessions"][0]["container_id"] == "docker_abc"
    assert alice_calls.get(f"/v1/sessions/{session}").json()["agents"] == ["ada"]
    agent_says(session, "event.agent.stopped")
    found = alice_calls.get("/v1/agents/ada").json()
    assert (found["status"], found["sessions"], found["session_id"]) == ("stopped", [], None)
    assert alice_calls.get(f"/v1/agents?session={session}").json()["results"] == []


@pytest.mark.parametrize("name", ["session", "role"])
def test_no_agent_is_known_by_what_the_database_cannot_keep(alice_calls: Client, session: str, name: str) -> None:
    assert alice_calls.get(f"/v1/agents?{name}=a%00b").json()["results"] == []


def test_an_agent_is_started_and_stopped_in_its_place_and_those_who_hear_the_session_are_told(
    alice_calls: Client, session: str
) -> None:
    body = {"session_id": session, "agent_id": "eve", "role": "testing"}
    answer = alice_calls.post("/v1/agents", body, content_type=JSON)
    assert (answer.status_code, answer["Location"]) == (201, "/v1/agents/eve")
    assert answer.json()["status"] == "running"
    assert alice_calls.post("/v1/agents", body, content_type=JSON).status_code == 200
    for _ in range(2):
        assert alice_calls.delete("/v1/agents/eve").status_code == 204
    assert alice_calls.get("/v1/agents/eve").json()["status"] == "stopped"
    told = list(Notice.objects.order_by("pk").values_list("type", "subject"))
    assert told == [(word, f"sessions.{session}.events") for word in ("event.agent.started", "event.agent.stopped")]
    for notice in Notice.objects.all():
        protocol.read(notice.body)
    kinds = Event.objects.filter(run_id=session, kind__startswith="agent.").order_by("seq")
    assert list(kinds.values_list("kind", "actor")) == [("agent.agent_started", "eve"), ("agent.agent_stopped", "eve")]


def test_no_agent_is_started_for_a_session_that_has_ended(alice_calls: Client, session: str) -> None:
    alice_calls.delete(f"/v1/sessions/{session}")
    body = {"session_id": session, "agent_id": "eve"}
    assert problem(alice_calls.post("/v1/agents", body, content_type=JSON), 409)["title"] == "run_ended"
    assert not Agent.objects.exists()


def test_a_list_of_agents_asks_the_database_as_often_however_many_there_are(
    alice_calls: Client, session: str, django_assert_max_num_queries: Any
) -> None:
    for number in range(5):
        agent_says(session, "event.agent.started", f"agent-{number}")
    with django_assert_max_num_queries(6):
        assert len(alice_calls.get("/v1/agents").json()["results"]) == 5
    assert Stint.objects.open().count() == 5


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_log_tells_a_session_in_the_words_of_the_dialect(alice_calls: Client, session: str) -> None:
    agent_says(session, "event.agent.started", role="coding")
    go_on(session)
    go_on(session, "reject")
    found = alice_calls.get(f"/v1/events?session={session}").json()["events"]
    types = [item["type"] for item in found]
    words = ["work.coding", "event.agent.started", "result.success", "approval.request", "approval.rejected"]
    assert [word for word in types if word in words] == [*words, "work.coding"]
    assert [item["seq"] for item in found] == list(range(1, len(found) + 1))
    assert {item["session_id"] for item in found} == {session}
    for item in found:
        if item["type"] in protocol.TYPES:
            protocol.check(item["type"], item["payload"])
            assert item["topic"] == f"sessions.{session}.{protocol.TYPES[item['type']].place}"


def test_the_log_answers_since_a_number_or_a_time(alice_calls: Client, session: str) -> None:
    place = f"/v1/events?session={session}"
    whole = alice_calls.get(place).json()
    first = alice_calls.get(f"{place}&limit=2").json()
    assert (len(first["events"]), first["next"], whole["next"]) == (2, 2, None)
    rest = alice_calls.get(f"{place}&since={first['next']}").json()["events"]
    assert first["events"] + rest == whole["events"]
    late = alice_calls.get(place, {"since": whole["events"][1]["timestamp"]}).json()["events"]
    assert [item["timestamp"] > whole["events"][1]["timestamp"] for item in late] == [True] * len(late)
    assert len(late) < len(whole["events"])
    assert problem(alice_calls.get(f"{place}&since=yesterday"), 422)["errors"][0]["field"] == "since"
    assert problem(alice_calls.get(f"{place}&since=2026-01-01T00:00:00"), 422)["errors"][0]["field"] == "since"
    # A time for which UTC has no name.
    for since in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        assert problem(alice_calls.get(place, {"since": since}), 422)["errors"][0]["field"] == "since"


def test_what_retention_took_is_read_from_the_disk(
    alice_calls: Client, session: str, settings: Any, tmp_path: Path
) -> None:
    # A folder that no bridge of another test keeps.
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, session_log=tmp_path / "sessions")
    place = f"/v1/events?session={session}"
    whole = alice_calls.get(place).json()["events"]
    keeper = session_logging.Keeper(settings.OPENVIBE.session_log)
    keeper.look()
    keeper.close()
    Run.objects.filter(id=session).update(archived_at=datetime.now(UTC))
    Event.objects.filter(run_id=session).delete()
    assert [item["id"] for item in alice_calls.get(place).json()["events"]] == [item["id"] for item in whole]


def test_without_a_session_the_log_is_the_general_channels(alice_calls: Client) -> None:
    health.take([Message("system.health", b"{")])
    [found] = alice_calls.get("/v1/events").json()["events"]
    assert (found["type"], found["session_id"]) == ("error", "")


def test_records_are_made_of_what_the_timeline_has(session: str) -> None:
    run = Run.objects.get(id=session)
    for event in timeline.read(run.project_id, f"t_{session}"):
        record = session_records.of(event.wire())
        assert (record["seq"], record["kind"]) == (event.seq, event.kind)


def test_the_logs_lie_in_the_home(settings: Any) -> None:
    assert settings.OPENVIBE.session_log == Path(settings.OPENVIBE.home) / "sessions"
    assert timedelta(days=settings.OPENVIBE.session_log_days) == timedelta(days=30)
