"""Gates of several people by REST: the group and its rule are told, and everybody answers in their own place."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group

from openvibe.registry import define
from operators import definitions
from operators.services import compiled, execution, intake, registration
from tests.domain.board import Board

JSON = "application/json"


@pytest.fixture
def board(project):
    definitions.registry.add(define(Board))
    yield registration.register(project, definitions.registry.operator("board"))
    definitions.registry.remove("board")
    compiled.workflow.cache_clear()


@pytest.fixture
def address(board, alice, bob):
    Group.objects.create(name="finance").user_set.add(alice, bob)
    run = intake.request(board.workflows.get(slug="all"), input={}, actor=alice)
    execution.perform(run.id)
    return f"/v1/operators/board/runs/{run.id}"


def decided(calls, address, **body):
    return calls.post(f"{address}/resume", {"decision": "approve", **body}, content_type=JSON)


def test_a_run_tells_the_group_and_the_rule_of_its_waits(address, alice_calls):
    first, second = alice_calls.get(address).json()["waits"]
    assert first["group"] == {"id": second["group"]["id"], "rule": "all", "needed": 2, "seat": 0}
    assert (second["group"]["seat"], second["approver"], second["assignee"]) == (1, "finance", "")


def test_without_a_wait_id_everybody_answers_in_their_own_place(address, alice_calls, bob_calls):
    for calls in (bob_calls, bob_calls):
        assert decided(calls, address).json()["status"] == "waiting"
    told = decided(alice_calls, address).json()
    assert (told["status"], [wait["decider"] for wait in told["waits"]]) == ("queued", ["alice", "bob"])


def test_an_answer_in_somebody_elses_place_is_forbidden(address, alice_calls, bob_calls):
    first, _ = alice_calls.get(address).json()["waits"]
    refused = decided(bob_calls, address, wait_id=first["id"])
    assert (refused.status_code, refused.json()["title"]) == (403, "not_asked")


def test_nobody_takes_two_places(address, alice_calls):
    first, second = alice_calls.get(address).json()["waits"]
    assert decided(alice_calls, address, wait_id=first["id"]).status_code == 200
    refused = decided(alice_calls, address, wait_id=second["id"])
    assert (refused.status_code, refused.json()["title"]) == (409, "counted_already")


def test_a_stranger_finds_no_group(address, charlie_calls):
    assert decided(charlie_calls, address).status_code == 404
