"""Operators registered over REST: played like any other, by every process; mistakes are told with their places."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django_celery_beat.models import PeriodicTask

from operators import definitions
from operators.models import Membership, Operator, OperatorSource, Project, Run, Workflow
from operators.services import compiled, deliveries, execution, registration, sources
from tests.api.conftest import caller

JSON, YAML = "application/json", "application/yaml"
GREETER = """\
operators:
  - id: greeter
    name: Greeter
    description: Greets people.
    fields:
      person: str
      greeting: {type: str, default: ""}
      mood: {type: str, default: ""}
    workflows:
      - id: greet
        inputs: [person]
        sample_input: {person: Ada}
        nodes:
          - id: judge
            type: logic
            set: {mood: "'kind'"}
          - id: write
            type: llm
            system: You greet.
            user: "Greet {{person}}."
            output_key: greeting
"""
PLACE = "/v1/operators/greeter"


@pytest.fixture(autouse=True)
def _forgotten(db: None):
    yield
    OperatorSource.objects.all().delete()
    sources.refresh()
    compiled.workflow.cache_clear()


def register(calls, text: str = GREETER, kind: str = YAML):
    return calls.post("/v1/operators", text, content_type=kind)


def problem(answer, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.content
    told: dict[str, Any] = answer.json()
    return told


def other_process() -> None:
    """Forget what this process has read, as one that was elsewhere."""
    for slug in list(definitions.from_database):
        definitions.registry.remove(slug)
    definitions.from_database.clear()
    compiled.workflow.cache_clear()


def start(calls, person: str = "Ada") -> Run:
    answer = calls.post(f"{PLACE}/activate", {"trigger": "greet", "input": {"person": person}}, content_type=JSON)
    return Run.objects.get(id=problem(answer, 201)["run_id"])


def played(run: Run) -> Run:
    execution.perform(run.id)
    run.refresh_from_db()
    return run


def test_an_operator_that_was_registered_runs(alice_calls, bob_calls):
    answer = register(alice_calls)

    told = problem(answer, 201)
    assert answer["Location"] == PLACE
    assert (told["id"], told["name"], told["description"]) == ("greeter", "Greeter", "Greets people.")
    assert [node["kind"] for node in told["workflows"][0]["nodes"]] == ["logic", "llm"]
    assert "greeter" in [item["id"] for item in bob_calls.get("/v1/operators").json()["operators"]]
    sample = bob_calls.get(PLACE).json()["workflows"][0]["sample_input"]
    run = played(start(bob_calls, sample["person"]))
    assert (run.status, run.output["mood"]) == ("completed", "kind")
    assert run.output["greeting"]


def test_a_process_that_was_elsewhere_reads_it_from_the_database(alice_calls):
    register(alice_calls)
    other_process()
    run = start(alice_calls)
    other_process()

    assert played(run).status == "completed"


@pytest.fixture
def asked(alice_calls) -> str:
    """The address of a run that stands at a gate of an operator that this process has forgotten."""
    gate = '          - {id: agreed, type: gate, prompt: "Greet her?", edits: [mood]}\n          - id: write\n'
    problem(register(alice_calls, GREETER.replace("          - id: write\n", gate)), 201)
    run = played(start(alice_calls))
    assert run.status == "waiting"
    other_process()
    return f"{PLACE}/runs/{run.id}"


def test_a_process_that_was_elsewhere_forks_its_runs(alice_calls, asked):
    step = alice_calls.get(f"{asked}/steps").json()["steps"][0]["step_id"]
    other_process()

    answer = alice_calls.post(
        f"{asked}/forks", {"step_id": step, "values": {"mood": "stern"}}, content_type=JSON
    )  # fmt: skip

    problem(answer, 201)


def test_a_process_that_was_elsewhere_overrides_at_its_gates(alice_calls, asked):
    Membership.objects.filter(user__username="alice").update(may_override=True)
    [wait] = alice_calls.get(asked).json()["waits"]
    body = {"wait_id": wait["id"], "version": 1, "values": {"mood": "stern"}, "reason": "She is"}

    problem(alice_calls.post(f"{asked}/overrides", body, content_type=JSON), 200)


def test_json_of_the_same_form_is_taken_too(alice_calls):
    body = {
        "operators": [
            {
                "id": "greeter",
                "fields": {"person": "str", "mood": {"type": "str", "default": ""}},
                "workflows": [{"id": "greet", "nodes": [{"id": "judge", "type": "logic", "set": {"mood": "'😀'"}}]}],
            }
        ]
    }

    problem(register(alice_calls, json.dumps(body, indent="\t"), JSON), 201)

    assert played(start(alice_calls)).output["mood"] == "😀"


def test_the_same_text_again_changes_nothing_and_another_one_is_refused(alice_calls):
    problem(register(alice_calls), 201)

    problem(register(alice_calls), 200)
    refused = problem(register(alice_calls, GREETER.replace("Greets people", "Insults people")), 409)

    assert refused["title"] == "operator_exists"
    assert PLACE in refused["detail"]
    assert alice_calls.get(PLACE).json()["description"] == "Greets people."


def test_an_id_that_code_defines_is_taken(alice_calls):
    refused = problem(register(alice_calls, GREETER.replace("id: greeter", "id: company_intel")), 409)

    assert refused["title"] == "operator_exists"
    assert not OperatorSource.objects.exists()


def test_an_id_of_another_project_is_taken(alice_calls, charlie_calls):
    register(alice_calls)

    assert problem(register(charlie_calls), 409)["title"] == "operator_exists"
    assert Operator.objects.get(slug="greeter").project_id == "default"


def test_a_changed_text_is_played_from_then_on_everywhere(alice_calls):
    register(alice_calls)
    assert played(start(alice_calls)).output["mood"] == "kind"
    stale = dict(definitions.from_database), definitions.registry.operator("greeter")

    changed = GREETER.replace("'kind'", "'stern'").replace("Greets people", "Commands people")
    told = problem(alice_calls.put(PLACE, changed, content_type=YAML), 200)
    # Another process still has what it read before.
    definitions.from_database.clear()
    definitions.from_database.update(stale[0])
    definitions.registry.remove("greeter")
    definitions.registry.add(stale[1])

    assert told["id"] == "greeter"
    assert played(start(alice_calls)).output["mood"] == "stern"


def test_a_text_with_another_id_replaces_nothing(alice_calls):
    register(alice_calls)

    refused = problem(alice_calls.put(PLACE, GREETER.replace("id: greeter", "id: other"), content_type=YAML), 422)

    assert refused["errors"][0]["field"] == "operators[0].id"


@pytest.mark.parametrize(
    ("wrong", "right", "line", "path"),
    [
        ("type: llm", "type: magic", 18, "operators[0].workflows[0].nodes[1].type"),
        ("output_key: greeting", "output_kee: greeting", 21, "operators[0].workflows[0].nodes[1].output_kee"),
        ("set: {mood: \"'kind'\"}", "next: write", 14, "operators[0].workflows[0].nodes[0]"),
        ("system: You greet.", "prompt_file: /etc/passwd", 19, "operators[0].workflows[0].nodes[1].prompt_file"),
        ("inputs: [person]", "inputs: [nobody]", 11, "operators[0].workflows[0].inputs[0]"),
    ],
)
def test_a_mistake_is_told_with_line_and_path(alice_calls, wrong, right, line, path):
    assert wrong in GREETER

    refused = problem(register(alice_calls, GREETER.replace(wrong, right)), 422)

    (error,) = refused["errors"]
    assert (error["line"], error["field"]) == (line, path)
    assert error["column"] > 0
    assert error["message"]
    assert "brings no code" in refused["hint"]
    assert not OperatorSource.objects.exists()
    assert not Operator.objects.filter(slug="greeter").exists()


@pytest.mark.parametrize(
    ("text", "status"),
    [("", 400), (b"\xff\xfe", 400), ("a\0b", 400), ("operators: [", 422), ("[]", 422), ("7", 422),
     ("operators: []", 422), ("&a [*a]", 422), ("[" * 5000, 422),
     ("!!python/object/apply:os.system [echo]", 422), ("x" * 300_000, 413),
     (GREETER + GREETER.partition("\n")[2].replace("greeter", "second"), 422)],
    ids=["empty", "not UTF-8", "NUL", "broken", "a list", "a number", "none", "a loop", "deep", "code", "long", "two"],
)  # fmt: skip
def test_what_is_no_operator_is_refused(alice_calls, text, status):
    assert register(alice_calls, text).status_code == status
    assert not OperatorSource.objects.exists()


@pytest.mark.parametrize("text", ['"greeter"', "[]", "7", "null"])
def test_a_text_that_is_no_mapping_is_told_how_it_begins(alice_calls, text):
    refused = register(alice_calls, text)
    assert refused.status_code == 422
    assert "'operators'" in refused.json()["detail"]
    assert [(item["line"], item["column"]) for item in refused.json()["errors"]] == [(1, 1)]


def test_an_operator_without_runs_is_removed_for_good(alice_calls):
    register(alice_calls)

    assert alice_calls.delete(PLACE).status_code == 204

    problem(alice_calls.get(PLACE), 404)
    assert not Operator.objects.filter(slug="greeter").exists()
    problem(register(alice_calls), 201)


def test_an_operator_with_runs_goes_and_its_runs_stay(alice_calls):
    register(alice_calls)
    run = start(alice_calls)

    refused = problem(alice_calls.delete(PLACE), 409)
    assert (refused["title"], refused["active_runs"]) == ("operator_in_use", 1)
    played(run)
    assert alice_calls.delete(PLACE).status_code == 204

    problem(alice_calls.get(PLACE), 404)
    problem(alice_calls.post(f"{PLACE}/activate", {"trigger": "greet"}, content_type=JSON), 404)
    assert "greeter" not in [item["id"] for item in alice_calls.get("/v1/operators").json()["operators"]]
    assert alice_calls.get(f"{PLACE}/runs/{run.id}").json()["status"] == "completed"
    problem(register(alice_calls), 201)
    assert played(start(alice_calls)).status == "completed"


def test_what_comes_from_code_is_changed_there_only(alice_calls):
    for answer in (
        alice_calls.delete("/v1/operators/company_intel"),
        alice_calls.put("/v1/operators/company_intel", GREETER.replace("greeter", "company_intel"), content_type=YAML),
    ):
        assert problem(answer, 409)["title"] == "defined_in_code"
    assert alice_calls.get("/v1/operators/company_intel").json()["workflows"]


def test_a_start_of_the_server_leaves_registered_operators_alone(alice_calls, other_project: Project, project: Project):
    register(alice_calls)

    registration.register_all(project)
    registration.register_all(other_project)

    assert Operator.objects.get(slug="greeter").source
    assert not Operator.objects.filter(slug="greeter", project=other_project).exists()
    assert played(start(alice_calls)).status == "completed"


def test_its_triggers_wake_it(alice_calls, project: Project):
    timed = GREETER.replace("inputs: [person]", "trigger: cron:0 6 * * *").replace(
        "person: str", "person: {type: str, default: Ada}"
    )
    heard = GREETER.replace("greeter", "listener").replace(
        "inputs: [person]", "trigger: event:baker.bread_ready\n        inputs: [person]"
    )
    problem(register(alice_calls, timed), 201)
    problem(register(alice_calls, heard), 201)
    other_process()

    deliveries.start_listeners("default", "baker.bread_ready", {"person": "Bea"}, message_id="m1")

    assert Run.objects.get().input == {"person": "Bea"}
    assert Workflow.objects.get(operator__slug="greeter").trigger == "cron:0 6 * * *"
    assert PeriodicTask.objects.filter(name="cron:default:greeter.greet").exists()
    alice_calls.delete(PLACE)
    assert not PeriodicTask.objects.filter(name="cron:default:greeter.greet").exists()


def test_only_owners_register_change_and_remove(alice_calls, bob_calls, vera_calls, charlie_calls):
    for calls in (bob_calls, vera_calls):
        problem(register(calls), 404)
    register(alice_calls)
    for calls in (bob_calls, vera_calls, charlie_calls):
        problem(calls.put(PLACE, GREETER, content_type=YAML), 404)
        problem(calls.delete(PLACE), 404)
    problem(charlie_calls.get(PLACE), 404)
    assert alice_calls.get(PLACE).status_code == 200


def test_an_owner_registers_in_the_tokens_project_only(alice, alice_calls, other_project):
    problem(register(caller(alice, other_project)), 404)
    assert not OperatorSource.objects.exists()
