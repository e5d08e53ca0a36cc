"""Start, read, list: the shapes of the public contract."""

from __future__ import annotations

import re

from operators.models import Run
from operators.services import execution

JSON = "application/json"
RESEARCH = {"trigger": "query", "input": {"company_name": "Stripe"}}
METRICS = {
    "duration_seconds", "running_seconds", "tokens_in", "tokens_out", "cost_usd", "nodes_executed", "nodes_failed",
    "llm_calls",
}  # fmt: skip


def test_activating_answers_with_the_run(alice_calls):
    answer = alice_calls.post("/v1/operators/company_intel/activate", RESEARCH, content_type=JSON)

    assert answer.status_code == 201
    told = answer.json()
    assert told["run_id"].startswith("run_")
    assert (told["operator_id"], told["workflow_id"], told["status"]) == ("company_intel", "research", "queued")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", told["created_at"])
    assert answer["Location"] == f"/v1/operators/company_intel/runs/{told['run_id']}"
    assert Run.objects.get().started_by.username == "alice"


def test_a_workflows_id_starts_it_too(alice_calls):
    body = {**RESEARCH, "trigger": "research"}

    assert alice_calls.post("/v1/operators/company_intel/activate", body, content_type=JSON).status_code == 201


def test_a_callers_trace_goes_on(alice_calls):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    alice_calls.post(
        "/v1/operators/company_intel/activate", RESEARCH, content_type=JSON, headers={"traceparent": trace}
    )

    assert Run.objects.get().traceparent == trace


def test_a_completed_run_tells_output_and_metrics(alice_calls, activate):
    run_id = activate("company_intel", "query")

    told = alice_calls.get(f"/v1/operators/company_intel/runs/{run_id}").json()

    assert (told["run_id"], told["status"], told["workflow_id"]) == (run_id, "completed", "research")
    assert told["output"]["completed"] is True
    assert told["output"]["company_name"] == "Stripe"
    assert told["input"] == {"company_name": "Stripe"}
    assert set(told["metrics"]) == METRICS
    assert told["metrics"]["nodes_executed"] == 4
    assert told["metrics"]["llm_calls"] == 2
    assert told["metrics"]["tokens_in"] > 0
    assert told["metrics"]["cost_usd"] == 0.0
    assert told["created_at"] <= told["started_at"] <= told["completed_at"]
    assert (told["error"], told["waits"]) == (None, [])


def test_a_waiting_run_tells_what_it_waits_for(alice_calls, waiting):
    told = alice_calls.get(waiting).json()

    assert told["status"] == "waiting"
    (wait,) = told["waits"]
    assert {"id", "kind", "version", "payload_sha256", "prompt", "schema", "deadline"} <= set(wait)
    assert (wait["kind"], wait["status"], wait["version"]) == ("approval", "pending", 1)
    assert wait["prompt"] == "Send this outreach to the buyer?"
    assert wait["decisions"] == ["approve", "reject"]
    assert wait["payload"]["personalized_sequence"]


def test_a_failed_run_tells_why(alice_calls, waiting):
    alice_calls.post(f"{waiting}/resume", {"decision": "reject", "notes": "no"}, content_type=JSON)
    execution.perform(waiting.rsplit("/", 1)[-1])

    told = alice_calls.get(waiting).json()
    assert (told["status"], told["output"]) == ("failed", None)
    assert told["error"]["message"] == "Rejected at review_sequence: no"


def test_runs_are_listed_newest_first_a_page_at_a_time(alice_calls, activate):
    ids = [activate("company_intel", "query", play=False) for _ in range(3)]

    first = alice_calls.get("/v1/operators/company_intel/runs?limit=2").json()
    second = alice_calls.get(first["next"]).json()

    assert [run["run_id"] for run in first["results"] + second["results"]] == ids[::-1]
    assert second["next"] is None
    assert set(first["results"][0]["metrics"]) == METRICS


def test_the_list_can_be_narrowed_to_a_status(alice_calls, activate):
    ended = activate("company_intel", "query")
    activate("company_intel", "query", play=False)

    listed = alice_calls.get("/v1/operators/company_intel/runs?status=completed").json()["results"]

    assert [run["run_id"] for run in listed] == [ended]


def test_an_unknown_status_is_named_with_those_there_are(alice_calls):
    answer = alice_calls.get("/v1/operators/company_intel/runs?status=done")

    assert answer.status_code == 422
    assert "'done'" in answer.json()["detail"]
    assert "completed" in answer.json()["detail"]


def test_listing_asks_the_database_a_bounded_number_of_questions(alice_calls, activate, django_assert_max_num_queries):
    for _ in range(5):
        activate("company_intel", "query", play=False)

    with django_assert_max_num_queries(5):
        alice_calls.get("/v1/operators/company_intel/runs")


def test_a_runs_events_are_listed_in_order(alice_calls, waiting):
    told = alice_calls.get(f"{waiting}/events").json()

    numbers = [event["seq"] for event in told["events"]]
    assert numbers == list(range(1, told["last_seq"] + 1))
    assert told["events"][0]["type"] == "run.queued"
    assert told["events"][-1]["type"] == "gate.opened"
    assert set(told["events"][0]) == {"seq", "type", "node", "step_id", "actor", "data", "timestamp"}


def test_a_runs_events_can_be_read_from_where_one_stopped(alice_calls, waiting):
    told = alice_calls.get(f"{waiting}/events?after=2&limit=2").json()

    assert [event["seq"] for event in told["events"]] == [3, 4]


def test_a_number_that_is_none_or_too_large_is_no_fault(alice_calls, waiting):
    long = "9" * 5000
    for query in ("after=x", "after=-1", "after=99999999999999999999999", "limit=0", "limit=99999999999999999999999",
                  f"after={long}", f"limit={long}"):  # fmt: skip
        assert alice_calls.get(f"{waiting}/events?{query}").status_code == 200, query[:40]


def test_operators_are_listed(alice_calls):
    told = alice_calls.get("/v1/operators").json()["operators"]

    found = {item["id"]: item for item in told}
    assert "engagement" in found["revenue_ops"]["workflows"]
    assert found["company_intel"]["name"] == "Company Intelligence"
    assert found["company_intel"]["enabled"] is True


def test_an_operator_tells_what_a_start_needs(alice_calls):
    (workflow,) = alice_calls.get("/v1/operators/company_intel").json()["workflows"]

    assert (workflow["id"], workflow["trigger_id"], workflow["trigger"]) == ("research", "query", "on_demand")
    assert workflow["sample_input"] == {"company_name": "Stripe"}
    assert workflow["input_schema"]["properties"]["company_name"]["type"] == "string"
    assert [node["id"] for node in workflow["nodes"]] == ["research", "analyze", "decide", "report"]
    assert workflow["nodes"][0] == {"id": "research", "kind": "llm", "model": "haiku"}
