"""Resume and cancel."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from openvibe import conditional, human_in_the_loop, node, operator, workflow
from operators import definitions
from operators.models import Run, Wait
from operators.services import compiled, execution, intake, registration

JSON = "application/json"


def _resume(calls, address, **body):
    return calls.post(f"{address}/resume", body, content_type=JSON)


def test_approving_resumes_the_run_and_it_ends_with_its_result(bob_calls, waiting):
    (wait,) = bob_calls.get(waiting).json()["waits"]
    quote = {"wait_id": wait["id"], "version": wait["version"], "payload_sha256": wait["payload_sha256"]}

    answer = _resume(bob_calls, waiting, decision="approve", notes="Good to send.", **quote)

    assert answer.status_code == 200
    assert answer.json()["status"] == "queued"
    (decided,) = answer.json()["waits"]
    assert (decided["decision"], decided["decider"], decided["notes"]) == ("approve", "bob", "Good to send.")
    execution.perform(waiting.rsplit("/", 1)[-1])
    told = bob_calls.get(waiting).json()
    assert told["status"] == "completed"
    assert told["output"]["final_plan"]["status"] == "ready"


def test_the_wait_may_be_left_out_where_there_is_a_single_gate(bob_calls, waiting):
    assert _resume(bob_calls, waiting, decision="approve").status_code == 200


def test_the_wait_must_be_quoted_where_there_are_several_gates(bob_calls, waiting, registered):
    workflow = registered["revenue_ops"].workflows.get(slug="engagement")
    workflow.spec["nodes"][0]["kind"] = "gate"
    workflow.save()

    answer = _resume(bob_calls, waiting, decision="approve")

    assert answer.status_code == 409
    assert "quote wait_id" in answer.json()["detail"]


class Answers(TypedDict, total=False):
    small: Any
    large: Any


def _graph() -> Any:
    graph = StateGraph(Answers)
    graph.add_node("small", lambda _: {"small": interrupt("Refund 5?")})
    graph.add_node("large", lambda _: {"large": interrupt("Wire 5000?")})
    graph.add_edge(START, "small")
    graph.add_edge("small", "large")
    graph.add_edge("large", END)
    return graph


@operator(id="asker")
class Asker:
    rounds: int = 0
    again: str = ""

    @workflow(id="graph", graph=_graph())
    class Graph: ...

    @workflow(id="loop", inputs=())
    class Loop:
        @human_in_the_loop(prompt="Once more?", decisions=("approve", "reject"))
        def again(self, state):
            return {"rounds": state["rounds"]}

        @conditional(routes={"again": lambda s: s["rounds"] < 3, "rest": lambda s: True})
        def count(self, state):
            return {"rounds": state["rounds"] + 1}

        @node
        def rest(self, state): ...


@pytest.mark.parametrize(
    ("slug", "given"),
    [("graph", {"decision": "answer", "values": {"answer": "yes"}}), ("loop", {"decision": "approve"})],
)
def test_the_wait_must_be_quoted_where_a_run_asks_again(bob_calls, project, slug, given):
    row = registration.register(project, definitions.registry.register(Asker))
    run = intake.request(row.workflows.get(slug=slug), input={}, actor=None)
    execution.perform(run.id)
    address = f"/v1/operators/asker/runs/{run.id}"
    try:
        assert _resume(bob_calls, address, **given).status_code == 200
        execution.perform(run.id)

        second_click = _resume(bob_calls, address, **given)

        assert second_click.status_code == 409
        assert "quote wait_id" in second_click.json()["detail"]
        gate = Wait.objects.pending().get(run=run)
        assert _resume(bob_calls, address, wait_id=gate.id, **given).status_code == 200
    finally:
        definitions.registry.remove("asker")
        compiled.workflow.cache_clear()


def test_values_can_be_edited(bob_calls, waiting):
    (wait,) = bob_calls.get(waiting).json()["waits"]
    sequence = [{**wait["payload"]["personalized_sequence"][0], "subject": "Written by Bob"}]

    assert _resume(
        bob_calls, waiting, decision="approve", values={"personalized_sequence": sequence}
    ).status_code == 200  # fmt: skip

    execution.perform(waiting.rsplit("/", 1)[-1])
    assert bob_calls.get(waiting).json()["output"]["final_plan"]["sequence"] == sequence


def test_the_same_decision_again_is_the_same_decision(bob_calls, waiting):
    _resume(bob_calls, waiting, decision="approve")

    assert _resume(bob_calls, waiting, decision="approve").status_code == 200
    types = [event["type"] for event in bob_calls.get(f"{waiting}/events").json()["events"]]
    assert types.count("gate.decided") == 1


def test_another_decision_is_told_who_decided_what_and_when(alice_calls, bob_calls, waiting):
    _resume(bob_calls, waiting, decision="approve")

    answer = _resume(alice_calls, waiting, decision="reject")

    assert answer.status_code == 409
    problem = answer.json()
    assert problem["type"] == "urn:openvibe:problem:already_decided"
    assert (problem["decision"], problem["decided_by"]) == ("approve", "bob")
    assert problem["decided_at"].startswith("20")
    assert "by bob at" in problem["detail"]


@pytest.mark.parametrize(
    ("quote", "changed"), [({"version": 7}, "version"), ({"payload_sha256": "0"}, "payload_sha256")]
)
def test_a_quote_that_does_not_match_says_what_changed(bob_calls, waiting, quote, changed):
    answer = _resume(bob_calls, waiting, decision="approve", **quote)

    assert answer.status_code == 409
    problem = answer.json()
    assert (problem["title"], problem["changed"]) == ("quote_mismatch", [changed])
    assert problem["payload_sha256"] == Wait.objects.get().payload_sha256
    assert bob_calls.get(waiting).json()["status"] == "waiting"


def test_a_gate_that_is_none_of_the_runs_is_refused(bob_calls, waiting):
    answer = _resume(bob_calls, waiting, decision="approve", wait_id="wait_nowhere")

    assert answer.status_code == 409
    assert "no gate 'wait_nowhere'" in answer.json()["detail"]


def test_a_run_that_does_not_wait_is_refused(alice_calls, activate):
    run_id = activate("company_intel", "query")

    answer = _resume(alice_calls, f"/v1/operators/company_intel/runs/{run_id}", decision="approve")

    assert answer.status_code == 409
    assert answer.json()["title"] == "not_waiting"
    assert answer.json()["run_status"] == "completed"


def test_a_decision_that_the_gate_does_not_know_names_the_field(bob_calls, waiting):
    answer = _resume(bob_calls, waiting, decision="perhaps")

    assert answer.status_code == 422
    assert [item["field"] for item in answer.json()["errors"]] == ["decision"]
    assert bob_calls.get(waiting).json()["status"] == "waiting"


def test_a_decision_without_a_decision_names_the_field(bob_calls, waiting):
    answer = _resume(bob_calls, waiting, notes="hm")

    assert answer.status_code == 422
    assert [item["field"] for item in answer.json()["errors"]] == ["decision"]


def test_cancelling_ends_the_run_and_closes_its_gate(bob_calls, waiting):
    answer = bob_calls.delete(waiting, {"reason": "wrong lead"}, content_type=JSON)

    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelled"
    assert answer.json()["waits"][0]["status"] == "cancelled"
    last = bob_calls.get(f"{waiting}/events").json()["events"][-1]
    assert (last["type"], last["actor"], last["data"]) == ("run.cancelled", "bob", {"reason": "wrong lead"})


def test_cancelling_needs_no_body(bob_calls, waiting):
    assert bob_calls.delete(waiting).status_code == 200


def test_an_ended_run_cannot_be_cancelled(bob_calls, waiting):
    bob_calls.delete(waiting)

    answer = bob_calls.delete(waiting)

    assert answer.status_code == 409
    assert (answer.json()["title"], answer.json()["run_status"]) == ("run_ended", "cancelled")


def test_a_cancelled_run_takes_no_decision(bob_calls, waiting):
    bob_calls.delete(waiting)

    answer = _resume(bob_calls, waiting, decision="approve")

    assert answer.status_code == 409
    assert answer.json()["title"] == "not_waiting"


def test_a_failed_run_is_let_try_again_once(bob_calls, waiting):
    Run.objects.update(status=Run.Status.FAILED, error={"message": "away", "kind": "OSError", "node": ""})
    answer = bob_calls.post(f"{waiting}/retries")
    assert (answer.status_code, answer.json()["status"], answer.json()["error"]) == (200, "queued", None)
    again = bob_calls.post(f"{waiting}/retries")
    assert (again.status_code, again.json()["title"]) == (409, "not_retryable")
