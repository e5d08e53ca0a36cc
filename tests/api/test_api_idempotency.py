"""A key makes an activation happen once, however often it is asked for."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from operators.models import Membership, Run, Workflow
from operators.services import execution
from tests.api.conftest import caller

JSON = "application/json"
ACTIVATE = "/v1/operators/company_intel/activate"
RESEARCH = {"trigger": "query", "input": {"company_name": "Stripe"}}


def _activate(client, body=RESEARCH, key="order-7", **headers):
    return client.post(ACTIVATE, body, content_type=JSON, headers={"Idempotency-Key": key, **headers})


def test_the_same_key_and_body_give_the_same_run(alice_calls):
    first, second = _activate(alice_calls), _activate(alice_calls)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["run_id"] == second.json()["run_id"]
    assert first["Location"] == second["Location"]
    assert Run.objects.count() == 1


def test_the_same_key_tells_what_has_become_of_its_run(alice_calls):
    run_id = _activate(alice_calls).json()["run_id"]
    execution.perform(run_id)

    assert _activate(alice_calls).json()["status"] == "completed"


def test_the_same_key_tells_its_run_also_when_its_trigger_is_there_no_more(alice_calls):
    first = _activate(alice_calls)
    Workflow.objects.filter(trigger_id="query").update(retired=True)

    again, other = _activate(alice_calls), _activate(alice_calls, key="order-8")

    assert (again.status_code, again.json()["run_id"]) == (200, first.json()["run_id"])
    assert "no trigger" in other.json()["detail"]


def test_a_body_that_says_the_same_in_other_words_is_the_same_body(alice_calls):
    first = _activate(alice_calls, '{"trigger": "query", "input": {"company_name": "Stripe"}}')
    second = _activate(alice_calls, '{ "input" : {"company_name":"Str\\u0069pe"}, "trigger":"query" }')

    assert second.status_code == 200
    assert first.json()["run_id"] == second.json()["run_id"]


@pytest.mark.parametrize(
    "body",
    [{**RESEARCH, "input": {"company_name": "Adyen"}}, {**RESEARCH, "trigger": "research"}, {"trigger": "query"}],
    ids=["input", "trigger", "no input"],
)
def test_the_same_key_with_another_body_is_refused_and_changes_nothing(alice_calls, body):
    run_id = _activate(alice_calls).json()["run_id"]

    answer = _activate(alice_calls, body)

    assert answer.status_code == 422
    problem = answer.json()
    assert (problem["title"], problem["run_id"]) == ("key_reused", run_id)
    assert "another body" in problem["detail"]
    assert Run.objects.count() == 1


def test_the_same_key_for_another_operator_is_refused(alice_calls):
    _activate(alice_calls)

    answer = alice_calls.post("/v1/operators/revenue_ops/activate", {"trigger": "engagement"}, content_type=JSON,
                              headers={"Idempotency-Key": "order-7"})  # fmt: skip

    assert answer.json()["title"] == "key_reused"


def test_another_key_and_no_key_start_runs_of_their_own(alice_calls):
    answers = [_activate(alice_calls), _activate(alice_calls, key="order-8")]
    answers += [alice_calls.post(ACTIVATE, RESEARCH, content_type=JSON) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201] * 4
    assert Run.objects.count() == 4


def test_two_people_use_the_same_key_without_meeting(alice_calls, bob_calls):
    first, second = _activate(alice_calls), _activate(bob_calls)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["run_id"] != second.json()["run_id"]


def test_two_tokens_of_one_person_share_their_keys(alice, alice_calls, project):
    assert _activate(alice_calls).json()["run_id"] == _activate(caller(alice, project)).json()["run_id"]


def test_charlie_learns_nothing_by_a_key(alice_calls, charlie_calls):
    _activate(alice_calls)

    assert _activate(charlie_calls).status_code == 404


def test_who_has_left_the_project_learns_nothing_by_a_key(alice, alice_calls):
    _activate(alice_calls)
    Membership.objects.filter(user=alice).delete()

    assert _activate(alice_calls).status_code == 404


def test_a_request_that_was_refused_leaves_its_key_free(alice_calls):
    refused = _activate(alice_calls, {**RESEARCH, "input": {}})

    assert refused.status_code == 422
    assert _activate(alice_calls).status_code == 201


def test_a_disabled_operator_still_tells_the_run_that_a_key_has_started(alice_calls, registered):
    _activate(alice_calls)
    registered["company_intel"].enabled = False
    registered["company_intel"].save()

    assert _activate(alice_calls).status_code == 200
    assert _activate(alice_calls, key="order-8").status_code == 409


@pytest.mark.parametrize("key", ["", "two words", "k" * 151, "schlüssel"], ids=["empty", "space", "long", "not ASCII"])
def test_a_key_that_cannot_be_one_is_refused(alice_calls, key):
    answer = _activate(alice_calls, key=key)

    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"field": "Idempotency-Key", "message": "takes 1 to 150 visible ASCII characters"}
    ]
    assert not Run.objects.exists()


def test_the_longest_key_is_taken(alice_calls):
    assert _activate(alice_calls, key="k" * 150).status_code == 201


@pytest.mark.django_db(transaction=True)
def test_callers_who_come_at_the_same_time_with_one_key_start_one_run(alice_calls):
    ready, answers = threading.Barrier(4), []

    def activate() -> None:
        ready.wait(10)
        answers.append(_activate(alice_calls))
        connection.close()

    threads = [threading.Thread(target=activate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert Run.objects.count() == 1


@pytest.mark.parametrize(("levels", "status"), [(150, 422), (480, 400), (900, 400)])
def test_a_body_with_too_many_levels_is_refused_before_anybody_reads_its_key(alice_calls, levels, status):
    deep = "[" * levels + "]" * levels

    answer = _activate(alice_calls, f'{{"trigger": "query", "input": {{"company_name": {deep}}}}}')

    assert answer.status_code == status
    assert "levels" in answer.json()["detail"]
    assert Run.objects.count() == 0
