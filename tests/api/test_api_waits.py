"""Answers of agents and tools by REST: once, the same again is the same, another one is refused."""

from __future__ import annotations

import pytest
from django.utils import timezone

from openvibe.registry import define
from operators import definitions
from operators.models import Run, Wait
from operators.services import compiled, execution, intake, registration, waits
from tests.domain.lab import kinds, thread
from tests.domain.village import Baker

JSON = "application/json"


@pytest.fixture
def baker(project):
    definitions.registry.add(define(Baker))
    yield registration.register(project, definitions.registry.operator("baker"))
    definitions.registry.remove("baker")
    compiled.workflow.cache_clear()


def paused(operator, alice, workflow="remote", **input):
    """A run that waits, its open wait, and the address of the answer."""
    run = intake.request(operator.workflows.get(slug=workflow), input={"loaves": 3, **input}, actor=alice)
    execution.perform(run.id)
    wait = Wait.objects.pending().get(run=run)
    return run, wait, f"/v1/operators/baker/runs/{run.id}/waits/{wait.id}/result"


def answer(calls, address, **body):
    return calls.post(address, body, content_type=JSON)


def problem(told, status):
    assert told.status_code == status, told.content
    return told.json()


def test_an_agents_result_goes_into_the_run(baker, alice, bob_calls):
    run, wait, address = paused(baker, alice)

    told = problem(answer(bob_calls, address, result="crisp"), 200)

    assert (told["id"], told["status"], told["result"], told["decider"]) == (wait.id, "resolved", "crisp", "bob")
    execution.perform(run.id)
    run.refresh_from_db()
    assert (run.status, run.output["verdict"]) == ("completed", "crisp")


def test_a_tools_result_goes_into_the_run_too(baker, alice, bob_calls):
    _, wait, _ = paused(baker, alice)
    Wait.objects.filter(id=wait.id).update(kind=Wait.Kind.TOOL)

    assert answer(bob_calls, _address(wait), result={"a": [1]}).json()["result"] == {"a": [1]}


def test_an_agents_error_fails_its_step(baker, alice, bob_calls):
    run, _, address = paused(baker, alice)

    assert problem(answer(bob_calls, address, error="burnt"), 200)["error"] == "burnt"

    execution.perform(run.id)
    run.refresh_from_db()
    assert run.status == "failed"
    assert "burnt" in run.error["message"]


def test_the_same_answer_again_changes_nothing(baker, alice, bob_calls):
    run, _, address = paused(baker, alice)
    first = answer(bob_calls, address, result={"x": 1, "y": 2}).json()
    before = Run.objects.get(id=run.id).last_seq

    assert problem(answer(bob_calls, address, result={"y": 2, "x": 1}), 200) == first
    assert Run.objects.get(id=run.id).last_seq == before
    for other in ({"result": "stale"}, {"error": "burnt"}):
        refused = problem(answer(bob_calls, address, **other), 409)
        assert (refused["title"], refused["decided_by"]) == ("already_decided", "bob")


def test_an_answer_after_the_end_is_refused_and_told(baker, alice, bob_calls):
    run, wait, address = paused(baker, alice)
    intake.cancel(run, actor=alice)

    refused = problem(answer(bob_calls, address, result="crisp"), 409)

    assert (refused["title"], refused["run_status"]) == ("not_waiting", "cancelled")
    told = thread(run).last()
    assert (told.kind, told.actor, told.data) == (
        "answer.refused", "bob", {"wait_id": wait.id, "by": "bob", "reason": "not_waiting"},
    )  # fmt: skip


def test_another_answer_after_the_end_is_told_and_the_same_one_is_not(baker, alice, bob_calls):
    run, _, address = paused(baker, alice)
    answer(bob_calls, address, result="crisp")
    execution.perform(run.id)

    problem(answer(bob_calls, address, result="crisp"), 200)
    assert kinds(run)[-1] == "run.completed"
    problem(answer(bob_calls, address, result="stale"), 409)
    assert thread(run).last().data["reason"] == "already_decided"


def test_an_answer_after_the_deadline_is_refused(baker, alice, bob_calls):
    _, wait, address = paused(baker, alice)
    Wait.objects.filter(id=wait.id).update(deadline=timezone.now())
    waits.expire(Wait.objects.select_related("run").get(id=wait.id))

    assert problem(answer(bob_calls, address, result="crisp"), 409)["title"] == "already_decided"


def test_a_gate_is_decided_elsewhere(baker, alice, bob_calls):
    run, wait, address = paused(baker, alice, workflow="judged")

    refused = problem(answer(bob_calls, address, result="crisp"), 409)

    assert refused["title"] == "not_waiting"
    assert refused["resume"] == f"/v1/operators/baker/runs/{run.id}/resume"
    assert Wait.objects.get(id=wait.id).pending


def test_nobody_outside_answers_a_timer(baker, alice, bob_calls):
    _, wait, address = _resting(baker, alice)

    assert problem(answer(bob_calls, address, result=1), 409)["kind"] == "timer"
    assert Wait.objects.get(id=wait.id).pending


@pytest.mark.parametrize(
    "body", [{}, {"result": 1, "error": "x"}, {"error": ""}, {"error": 5 * ["x"]}, {"result": 2**60}]
)
def test_what_is_no_answer_does_not_fit(baker, alice, bob_calls, body):
    _, wait, address = paused(baker, alice)

    assert problem(answer(bob_calls, address, **body), 422)["errors"]
    assert Wait.objects.get(id=wait.id).pending


def test_charlie_and_a_viewer_answer_nothing(baker, alice, vera_calls, charlie_calls, bob_calls):
    _, wait, address = paused(baker, alice)

    for calls in (vera_calls, charlie_calls):
        problem(answer(calls, address, result="mine"), 404)
    problem(answer(bob_calls, address.replace(wait.id, "wait_none"), result=1), 404)
    assert Wait.objects.get(id=wait.id).pending


def _resting(operator, alice):
    run = intake.request(operator.workflows.get(slug="rest"), input={"flour": 1}, actor=alice)
    execution.perform(run.id)
    wait = Wait.objects.pending().get(run=run)
    return run, wait, _address(wait)


def _address(wait):
    return f"/v1/operators/baker/runs/{wait.run_id}/waits/{wait.id}/result"
