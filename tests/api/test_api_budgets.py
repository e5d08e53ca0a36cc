"""Budgets by REST: an operator tells its own, a run what it was allowed, and the question is answered like any gate."""

from __future__ import annotations

import pytest

from operators.services import execution, intake
from tests.domain.spender import spending

JSON = "application/json"


@pytest.fixture
def spender(project):
    with spending(project) as made:
        yield made


@pytest.fixture
def address(spender, alice):
    run = intake.request(spender.workflows.get(slug="write"), input={}, actor=alice)
    execution.perform(run.id)
    return f"/v1/operators/spender/runs/{run.id}"


def test_an_operator_tells_its_budget(spender, alice_calls):
    told = alice_calls.get("/v1/operators/spender").json()["budget"]
    assert told == {"run": 0.1, "day": None, "month": 100.0}


def test_the_question_is_answered_with_an_amount(address, bob_calls):
    [wait] = bob_calls.get(address).json()["waits"]
    assert (wait["decisions"], wait["payload"]["limit_usd"]) == (["raise", "stop"], 0.1)
    body = {"decision": "raise", "wait_id": wait["id"], "values": {"allowance_usd": 4}}
    told = bob_calls.post(f"{address}/resume", body, content_type=JSON).json()
    assert (told["status"], told["allowance_usd"]) == ("queued", 4.0)


def test_an_amount_that_allows_nothing_is_refused(address, bob_calls):
    [wait] = bob_calls.get(address).json()["waits"]
    body = {"decision": "raise", "wait_id": wait["id"], "values": {"allowance_usd": 0.1}}
    refused = bob_calls.post(f"{address}/resume", body, content_type=JSON)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "values.allowance_usd")


def test_a_viewer_raises_nothing(address, vera_calls):
    refused = vera_calls.post(f"{address}/resume", {"decision": "raise"}, content_type=JSON)
    assert refused.status_code in (403, 404)
