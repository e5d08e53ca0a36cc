"""Steps, forks and priority."""

from __future__ import annotations

import pytest

from operators.models import Operator, Run
from operators.services import execution

JSON = "application/json"


@pytest.fixture
def steps(bob_calls, waiting):
    return bob_calls.get(f"{waiting}/steps").json()["steps"]


def _fork(calls, address, *, key="", **body):
    headers = {"Idempotency-Key": key} if key else {}
    return calls.post(f"{address}/forks", body, content_type=JSON, headers=headers)


def _run_id(address: str) -> str:
    return address.rsplit("/", 1)[-1]


def test_the_steps_tell_where_a_run_can_be_forked(bob_calls, waiting, steps):
    *done, gate = steps
    assert [item["finished"] for item in done] == [True] * len(done)
    assert (gate["node"], gate["finished"]) == ("review_sequence", False)
    assert gate["state"]["personalized_sequence"]
    assert [item["seq"] for item in steps] == sorted(item["seq"] for item in steps)
    more = bob_calls.get(f"{waiting}/steps?after={steps[0]['seq']}&limit=1").json()["steps"]
    assert more == [steps[1]]


def test_a_fork_is_a_new_run_that_goes_on_with_edited_state(bob_calls, waiting, steps):
    sequence = [{**steps[-1]["state"]["personalized_sequence"][0], "subject": "Written by Bob"}]

    answer = _fork(
        bob_calls, waiting, step_id=steps[-1]["step_id"], before=True, values={"personalized_sequence": sequence}
    )

    assert answer.status_code == 201, answer.content
    told = answer.json()
    assert (told["status"], told["trigger"]) == ("queued", "fork")
    assert answer["Location"] == f"/v1/operators/revenue_ops/runs/{told['run_id']}"
    execution.perform(told["run_id"])
    [wait] = bob_calls.get(answer["Location"]).json()["waits"]
    assert wait["payload"]["personalized_sequence"] == sequence
    assert bob_calls.get(waiting).json()["status"] == "waiting"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "step_id"),
        ({"step_id": "nowhere"}, 422, "step_id"),
        ({"values": {"colour": "red"}}, 422, "values.colour"),
        ({"values": {"personalized_sequence": "none"}}, 422, "values.personalized_sequence"),
        ({"values": []}, 422, "values"),
    ],
)
def test_a_fork_that_does_not_fit_names_the_field_and_starts_nothing(bob_calls, waiting, steps, body, status, field):
    given = {"step_id": steps[0]["step_id"], **body} if body else {}

    answer = _fork(bob_calls, waiting, **given)

    assert answer.status_code == status
    assert [item["field"] for item in answer.json()["errors"]] == [field]
    assert Run.objects.count() == 1


def test_a_field_whose_name_nobody_can_say_is_refused_too(bob_calls, waiting, steps):
    body = f'{{"step_id": "{steps[0]["step_id"]}", "values": {{"\\ud800": 1}}}}'

    answer = bob_calls.post(f"{waiting}/forks", body, content_type=JSON)

    assert answer.status_code == 422
    assert [item["field"] for item in answer.json()["errors"]] == ["values.?"]


def test_a_step_that_has_not_finished_is_a_conflict(bob_calls, waiting, steps):
    answer = _fork(bob_calls, waiting, step_id=steps[-1]["step_id"])

    assert (answer.status_code, answer.json()["title"]) == (409, "not_forkable")


def test_the_same_key_forks_once(bob_calls, waiting, steps):
    first = _fork(bob_calls, waiting, key="k", step_id=steps[0]["step_id"])
    again = _fork(bob_calls, waiting, key="k", step_id=steps[0]["step_id"])
    other = _fork(bob_calls, waiting, key="k", step_id=steps[1]["step_id"])

    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 422)
    assert first.json()["run_id"] == again.json()["run_id"]


def test_who_only_looks_on_sees_the_steps_and_forks_nothing(vera_calls, waiting, steps):
    assert vera_calls.get(f"{waiting}/steps").status_code == 200
    assert _fork(vera_calls, waiting, step_id=steps[0]["step_id"]).status_code == 404
    assert Run.objects.count() == 1


def test_charlie_sees_neither_steps_nor_forks(charlie_calls, waiting, steps):
    assert charlie_calls.get(f"{waiting}/steps").status_code == 404
    assert _fork(charlie_calls, waiting, step_id=steps[0]["step_id"]).status_code == 404


def test_a_priority_is_taken_at_the_start(alice_calls):
    body = {"trigger": "query", "input": {"company_name": "Stripe"}, "priority": 7}
    answer = alice_calls.post("/v1/operators/company_intel/activate", body, content_type=JSON)

    assert answer.status_code == 201
    assert Run.objects.get().priority == 7


@pytest.mark.parametrize("priority", ["high", 1.5, 40_000])
def test_a_priority_that_makes_no_sense_is_refused(alice_calls, priority):
    body = {"trigger": "query", "input": {"company_name": "Stripe"}, "priority": priority}
    answer = alice_calls.post("/v1/operators/company_intel/activate", body, content_type=JSON)

    assert answer.status_code == 422
    assert [item["field"] for item in answer.json()["errors"]] == ["priority"]


def test_an_answer_after_the_end_is_a_conflict_and_an_event(alice_calls, bob_calls, waiting):
    assert alice_calls.delete(waiting).status_code == 200

    answer = bob_calls.post(f"{waiting}/resume", {"decision": "approve"}, content_type=JSON)

    assert answer.status_code == 409
    last = bob_calls.get(f"{waiting}/events").json()["events"][-1]
    assert (last["type"], last["actor"], last["data"]["decision"]) == ("answer.refused", "bob", "approve")


def test_a_run_that_waits_for_a_slot_says_that_it_is_queued(bob_calls, activate):
    Operator.objects.filter(slug="revenue_ops").update(max_running=0)

    run_id = activate()

    assert bob_calls.get(f"/v1/operators/revenue_ops/runs/{run_id}").json()["status"] == "queued"
