"""The messages of a session: the published schema and the reader agree, whatever somebody sends."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest

from openvibe.protocol import sessions
from openvibe.protocol.envelope import Malformed
from openvibe.protocol.session_payloads import Part
from openvibe.protocol.sessions import Type

CONTEXT = {"repo_path": "/workspace", "branch": "agent/chunk_1"}
#: As the protocol's own examples have them.
EXAMPLES: dict[str, dict[str, Any]] = {
    "work.coding": {
        "chunk_id": "chunk_1",
        "description": "Implement user authentication",
        "requirements": ["Use bcrypt for password hashing", "JWT tokens with 24h expiry"],
        "context": CONTEXT,
    },
    "work.testing": {
        "chunk_id": "chunk_1",
        "target_code": "src/auth.go",
        "test_requirements": ["Unit tests for password hashing"],
        "context": CONTEXT,
    },
    "work.review": {
        "chunk_id": "chunk_1",
        "files": ["src/auth.go"],
        "criteria": ["code quality", "security"],
        "context": CONTEXT,
    },
    "result.success": {
        "chunk_id": "chunk_1",
        "work_type": "coding",
        "files_changed": ["src/auth.go"],
        "summary": "Implemented bcrypt password hashing",
        "commit_sha": "abc123",
        "context": {"agent_id": "agent_xyz"},
    },
    "result.failure": {
        "chunk_id": "chunk_1",
        "work_type": "coding",
        "error": "Compilation failed",
        "details": "src/auth.go:42: undefined: bcrypt",
        "context": {"agent_id": "agent_xyz"},
    },
    "approval.request": {
        "gate_id": "gate_1",
        "chunk_id": "chunk_1",
        "phase": "post-coding",
        "summary": "Coding complete. Review changes before proceeding to testing?",
        "changes": {"files_added": ["src/auth.go"], "files_modified": [], "files_deleted": []},
    },
    "approval.granted": {
        "gate_id": "gate_1",
        "approved_by": "user@example.com",
        "approved_at": "2025-10-22T10:15:00Z",
        "notes": "Looks good",
    },
    "approval.rejected": {
        "gate_id": "gate_1",
        "rejected_by": "user@example.com",
        "rejected_at": "2025-10-22T10:15:00Z",
        "reason": "Missing error handling in auth.go:42",
    },
    "event.agent.started": {"agent_id": "agent_xyz", "role": "coding", "container_id": "docker_abc"},
    "event.agent.stopped": {"agent_id": "agent_xyz", "reason": "work_complete"},
    "event.work.cancelled": {"work_id": "wait_1", "role": "coding", "reason": "The run was cancelled"},
    "event.error": {"error": "no JSON", "subject": "sessions.s.results", "dead_letter": 3},
    "system.health": {"agent_id": "agent_xyz", "status": "ok", "interval_seconds": 10},
}
#: A type, what is wrong with its payload or its envelope, and the field that is to blame.
MALFORMED: list[tuple[str, dict[str, Any], str]] = [
    ("result.failure", {"payload": {"work_id": "w"}}, "payload.error"),
    ("result.failure", {"payload": {"error": ""}}, "payload.error"),
    ("result.success", {"payload": {"files_changed": "src/auth.go"}}, "payload.files_changed"),
    ("result.success", {"payload": {"chunk_id": 7}}, "payload.chunk_id"),
    ("result.success", {"payload": {"context": []}}, "payload.context"),
    ("result.success", {"payload": []}, "payload"),
    ("result.success", {"payload": None}, "payload"),
    ("result.success", {"id": ""}, "id"),
    ("result.success", {"id": 7}, "id"),
    ("result.success", {"timestamp": "yesterday"}, "timestamp"),
    ("result.success", {"timestamp": 1_700_000_000}, "timestamp"),
    ("result.success", {"timestamp": "2025-10-22T10:00:00"}, "timestamp"),
    ("result.success", {"version": 1}, "version"),
    ("result.success", {"version": "2"}, "version"),
    ("result.success", {"session_id": None}, "session_id"),
    ("approval.granted", {"payload": {"gate_id": "g"}}, "payload.approved_by"),
    ("approval.granted", {"payload": {"approved_by": "ann"}}, "payload.gate_id"),
    ("approval.granted", {"payload": {"gate_id": "g", "approved_by": "a", "version": "1"}}, "payload.version"),
    ("approval.rejected", {"payload": {"gate_id": "g", "rejected_by": "a", "rejected_at": "x"}}, "payload.rejected_at"),
    ("approval.request", {"payload": {"gate_id": "g", "phase": "p"}}, "payload.summary"),
    ("event.agent.started", {"payload": {"role": "coding"}}, "payload.agent_id"),
    ("event.agent.stopped", {"payload": {"agent_id": "x" * 201}}, "payload.agent_id"),
    ("event.work.cancelled", {"payload": {"chunk_id": "c1"}}, "payload.work_id"),
    ("event.error", {"payload": {"dead_letter": "three"}}, "payload.dead_letter"),
    ("system.health", {"payload": {"agent_id": "a", "interval_seconds": 0}}, "payload.interval_seconds"),
    ("work.coding", {"payload": {"requirements": "quick"}}, "payload.requirements"),
    ("work.testing", {"payload": {"target_code": ["a.go"]}}, "payload.target_code"),
    ("work.review", {"payload": {"context": {"branch": 1}}}, "payload.context.branch"),
    ("work.review", {"payload": {"files": {"card": "a.py", "size": 3}}}, "payload.files"),
    ("approval.request", {"payload": {"gate_id": "g", "phase": "p", "summary": 7}}, "payload.summary"),
]


def written(type: str, /, **changes: Any) -> dict[str, Any]:
    body = {
        "version": "1",
        "id": "msg_abc123",
        "timestamp": "2025-10-22T10:00:00Z",
        "session_id": "sess_123",
        "type": type,
        "payload": EXAMPLES.get(type, {}),
    }
    return body | changes


def schema(type: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(sessions.schemas()[type]())


@pytest.mark.parametrize("type", sorted(sessions.TYPES))
def test_the_protocols_own_examples_fit_their_schema_and_are_read(type: str) -> None:
    for name in (type, f"{type}.v1"):
        body = written(type, type=name, from_the_future={"x": 1})
        schema(type).validate(body)
        told = sessions.read(body)
        assert (told.type, told.payload, told.timestamp) == (
            type,
            EXAMPLES[type],
            datetime(2025, 10, 22, 10, tzinfo=UTC),
        )


@pytest.mark.parametrize("type", sorted(sessions.TYPES))
def test_fields_that_nobody_knows_are_taken_and_passed_on(type: str) -> None:
    body = written(type, payload=EXAMPLES[type] | {"mood": {"good": [1]}})
    schema(type).validate(body)
    assert sessions.read(body).payload["mood"] == {"good": [1]}


@pytest.mark.parametrize(("type", "changes", "field"), MALFORMED)
def test_what_the_reader_refuses_does_not_fit_the_schema_either(type: str, changes: dict[str, Any], field: str) -> None:
    body = written(type, **changes)
    with pytest.raises(Malformed, match=f"^{field}: "):
        sessions.read(body)
    assert not schema(type).is_valid(body)


@pytest.mark.parametrize("field", ["version", "id", "timestamp", "session_id", "type", "payload"])
def test_every_field_of_the_envelope_is_required(field: str) -> None:
    body = written("result.success")
    del body[field]
    with pytest.raises(Malformed, match=f"^{field}: "):
        sessions.read(body)
    assert not schema("result.success").is_valid(body)


def test_a_type_that_nobody_knows_needs_the_envelope_only() -> None:
    assert sessions.read(written("event.progress", payload={"percent": 40})).type == "event.progress"


@pytest.mark.parametrize("type", ["result.success.v2", "result.success.v0", "event.progress.v2"])
def test_a_type_of_a_version_that_is_not_known_is_malformed(type: str) -> None:
    with pytest.raises(Malformed, match=r"^type: .*not read"):
        sessions.read(written(type))


class Newer(Part):
    """A result that says more."""

    score: int


#: A catalogue in which a type has come to its third version: the second is read still, the first no more.
GROWN = sessions.TYPES | {
    "result.success": dataclasses.replace(
        sessions.TYPES["result.success"],
        payload=Newer,
        version=3,
        previous=sessions.TYPES["result.success"].payload,
        upgrade=lambda payload: {**payload, "score": 0},
    )
}


@pytest.mark.parametrize(("type", "score"), [("result.success.v3", 7), ("result.success.v2", 0)])
def test_the_current_version_of_a_type_and_the_one_before_it_are_read(type: str, score: int) -> None:
    payload = {"score": 7} if type.endswith("3") else {"summary": "done"}
    told = sessions.read(written(type, payload=payload), catalogue=GROWN)
    assert (told.type, told.payload["score"]) == ("result.success", score)


@pytest.mark.parametrize("type", ["result.success", "result.success.v1", "result.success.v4"])
def test_an_older_and_a_newer_version_of_a_type_are_not_read(type: str) -> None:
    with pytest.raises(Malformed, match=r"not read \(\.v3, \.v2\)"):
        sessions.read(written(type, payload={"score": 7}), catalogue=GROWN)


def test_each_version_that_is_read_has_a_schema_of_its_own() -> None:
    made = sessions.schemas(GROWN)
    assert made["result.success"]()["properties"]["type"]["const"] == "result.success.v3"
    assert made["result.success.v2"]()["properties"]["type"]["const"] == "result.success.v2"
    assert "score" in made["result.success"]()["$defs"]["Newer"]["properties"]


def test_what_is_written_is_of_the_current_version() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    body = sessions.message("result.success", {}, id="m", run_id="r", now=now, catalogue=GROWN)
    assert (body["type"], body["version"]) == ("result.success.v3", sessions.VERSION)
    assert sessions.message("result.success", {}, id="m", run_id="r", now=now)["type"] == "result.success"
    schema("result.success").validate(sessions.message("result.success", {}, id="m", run_id="r", now=now))


def test_a_task_of_a_known_role_must_fit_and_one_of_another_role_may_be_anything() -> None:
    with pytest.raises(Malformed, match="requirements"):
        sessions.check("work.coding", {"requirements": 7})
    sessions.check("work.coding", {"requirements": ["quick"], "more": 1})
    sessions.check("work.tasting", {"requirements": 7})


def test_a_pointer_may_stand_where_a_value_is_too_large_for_a_message() -> None:
    pointer = {"card": "0" * 64, "size": 2_000_000}
    for name, field in (("work.coding", "description"), ("work.testing", "target_code"), ("work.review", "files")):
        body = written(name, payload=EXAMPLES[name] | {field: pointer})
        schema(name).validate(body)
        assert sessions.read(body).payload[field] == pointer


def test_every_type_goes_to_a_subject_of_the_dialect() -> None:
    places = {wanted.place for wanted in sessions.TYPES.values()}
    assert places == {"work", "results", "approvals", "events", sessions.HEALTH}
    assert Type("work", Part).version == 1
