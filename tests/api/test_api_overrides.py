"""Changing the state of a run that stands at an open gate, by those who were granted the right."""

from __future__ import annotations

import pytest

from operators.models import Membership, Wait
from operators.services import execution

JSON = "application/json"


@pytest.fixture
def wait(alice_calls, waiting):
    Membership.objects.filter(user__username="alice").update(may_override=True)
    return alice_calls.get(waiting).json()["waits"][0]


def _override(calls, address, wait, **body):
    sequence = [{**wait["payload"]["personalized_sequence"][0], "subject": "Written by Alice"}]
    given = {"wait_id": wait["id"], "version": 1, "values": {"personalized_sequence": sequence}, "reason": "A typo"}
    return calls.post(f"{address}/overrides", {**given, **body}, content_type=JSON)


def _open(calls, address):
    [wait] = calls.get(address).json()["waits"]
    return wait


def test_an_override_queues_the_run_and_the_gate_comes_back_as_its_next_version(alice_calls, bob_calls, waiting, wait):
    answer = _override(alice_calls, waiting, wait)

    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    execution.perform(answer.json()["run_id"])
    now = _open(bob_calls, waiting)
    assert (now["id"], now["status"], now["version"]) == (wait["id"], "pending", 2)
    assert now["payload"]["personalized_sequence"][0]["subject"] == "Written by Alice"
    quote = {"wait_id": wait["id"], "version": 1, "payload_sha256": wait["payload_sha256"]}
    stale = bob_calls.post(f"{waiting}/resume", {"decision": "approve", **quote}, content_type=JSON)
    assert (stale.status_code, stale.json()["title"]) == (409, "quote_mismatch")
    quote |= {name: now[name] for name in ("version", "payload_sha256")}
    assert bob_calls.post(f"{waiting}/resume", {"decision": "approve", **quote}, content_type=JSON).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"reason": " "}, 422, "reason"),
        ({"values": {}}, 422, "values"),
        ({"values": {"colour": "red"}}, 422, "values.colour"),
        ({"version": "first"}, 422, "version"),
        ({"wait_id": "nowhere"}, 409, "not_waiting"),
        ({"version": 2}, 409, "quote_mismatch"),
    ],
)
def test_a_request_that_does_not_fit_changes_nothing(alice_calls, waiting, wait, body, status, said):
    answer = _override(alice_calls, waiting, wait, **body)

    problem = answer.json()
    assert answer.status_code == status
    assert said in [problem["title"], *(item["field"] for item in problem.get("errors", ()))]
    assert (Wait.objects.get().version, Wait.objects.get().status) == (1, "pending")


@pytest.mark.parametrize("left_out", ["wait_id", "version", "values", "reason"])
def test_nothing_may_be_left_out(alice_calls, waiting, wait, left_out):
    body = {"wait_id": wait["id"], "version": 1, "values": {"personalized_sequence": []}, "reason": "A typo"}
    del body[left_out]

    answer = alice_calls.post(f"{waiting}/overrides", body, content_type=JSON)

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, left_out)


def test_who_operates_without_the_right_is_told_so(bob_calls, waiting, wait):
    answer = _override(bob_calls, waiting, wait)

    assert (answer.status_code, answer.json()["title"]) == (403, "not_entitled")
    assert Wait.objects.get().status == "pending"


def test_who_only_looks_on_finds_no_such_door(vera_calls, waiting, wait):
    Membership.objects.filter(user__username="vera").update(may_override=True)

    assert _override(vera_calls, waiting, wait).status_code == 404


def test_charlie_finds_neither_run_nor_door(charlie_calls, waiting, wait):
    Membership.objects.filter(user__username="charlie").update(may_override=True)

    assert _override(charlie_calls, waiting, wait).status_code == 404
    assert Wait.objects.get().status == "pending"
