from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest
from django.conf import settings
from django.db import connection, transaction

from operators import definitions
from operators.errors import (
    KeyReused,
    Misfit,
    NotWaiting,
    OperatorDisabled,
    RecursionTooDeep,
    RunAlreadyEnded,
    Unknown,
)
from operators.models import Card, Operator, Run, Wait
from operators.services import intake, registration, waits
from tests.domain.lab import kinds, started


def test_a_request_becomes_a_queued_run_with_its_first_event(registered, alice):
    workflow = registered["company_intel"].workflows.get(slug="research")

    run = intake.request(workflow, input={"company_name": "Stripe"}, actor=alice, trigger="api")

    run.refresh_from_db()
    assert (run.status, run.started_by, run.input) == ("queued", alice, {"company_name": "Stripe"})
    assert run.id.startswith("run_")
    event = run.events.get()
    assert (event.seq, event.kind, event.actor) == (1, "run.queued", "alice")
    assert run.traceparent.startswith("00-")


def test_a_large_input_is_kept_as_a_card_with_its_run_once(lab):
    for _ in range(2):
        run = started(lab, "four", text="x" * 40_000)
        card = Card.objects.get(content="x" * 40_000)
        assert run.events.get().data["input"]["text"] == {"card": card.sha256, "size": card.size}


def test_a_run_goes_on_in_its_callers_trace(registered):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    workflow = registered["company_intel"].workflows.get(slug="research")

    assert intake.request(workflow, input={"company_name": "A"}, actor=None, traceparent=trace).traceparent == trace


@pytest.mark.django_db(transaction=True)
def test_the_bell_rings_once_the_run_is_stored(registered):
    queue = settings.OPENVIBE.home / "queue"
    before = set(queue.glob("*/*.msg"))
    started(registered["company_intel"], "research", company_name="Stripe")

    assert len(set(queue.glob("*/*.msg")) - before) == 1


def test_an_unknown_trigger_names_what_there_is(registered):
    with pytest.raises(Unknown, match=r"no trigger or workflow 'nope'; it has: query, research"):
        intake.workflow_of(registered["company_intel"], "nope")


def test_a_workflow_is_found_by_its_trigger_and_by_its_own_id(registered):
    operator = registered["revenue_ops"]

    assert intake.workflow_of(operator, "lead_qualified").slug == "engagement"
    assert intake.workflow_of(operator, "engagement").slug == "engagement"


def test_a_triggers_id_wins_over_a_workflows_id(registered):
    operator = registered["revenue_ops"]
    other = operator.workflows.create(slug="other", name="Other", trigger_id="engagement", trigger="on_demand")

    assert intake.workflow_of(operator, "engagement") == other


def test_a_retired_workflow_cannot_be_started(registered):
    operator = registered["company_intel"]
    operator.workflows.update(retired=True)

    with pytest.raises(Unknown):
        intake.workflow_of(operator, "research")


def test_a_disabled_operator_starts_nothing(registered):
    operator = registered["company_intel"]
    operator.enabled = False
    operator.save()

    with pytest.raises(OperatorDisabled, match="'company_intel' is disabled"):
        started(operator, "research", company_name="Stripe")
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("input", "field", "type"),
    [
        ({}, "company_name", "str"),
        ({"company_name": 7}, "company_name", "str"),
        ({"company_name": ""}, "company_name", "str"),
        ({"company_name": "Stripe", "colour": "red"}, "colour", ""),
    ],
)
def test_a_misfit_names_field_and_type(registered, input, field, type):
    with pytest.raises(Misfit) as caught:
        started(registered["company_intel"], "research", **input)

    problem = caught.value.detail["errors"][0]
    assert (problem["field"], problem["type"]) == (field, type)
    assert field in str(caught.value)
    assert not Run.objects.exists()


@pytest.mark.parametrize("text", ["\ud800", "a\x00b"], ids=["half a character", "NUL"])
def test_text_that_no_database_keeps_is_a_misfit(registered, text):
    with pytest.raises(Misfit) as caught:
        started(registered["company_intel"], "research", company_name=text)

    assert caught.value.detail["errors"][0]["field"] == "company_name"


def test_a_number_beyond_64_bits_is_a_misfit(lab):
    with pytest.raises(Misfit) as caught:
        started(lab, "four", number=10**30)

    assert caught.value.detail["errors"][0]["field"] == "number"


def test_cancelling_a_queued_run_ends_it(engagement, bob):
    run = intake.cancel(engagement, actor=bob, reason="wrong lead")

    assert run.status == "cancelled"
    assert run.ended_at is not None
    event = run.events.last()
    assert (event.kind, event.actor, event.data) == ("run.cancelled", "bob", {"reason": "wrong lead"})


def test_cancelling_a_waiting_run_closes_its_gate(gate, bob):
    run = intake.cancel(gate.run, actor=bob)

    gate.refresh_from_db()
    assert (run.status, gate.status) == ("cancelled", Wait.Status.CANCELLED)
    assert gate.closed_at is not None


def test_an_ended_run_cannot_be_cancelled(gate, alice, bob):
    intake.cancel(gate.run, actor=bob)
    before = kinds(gate.run)

    with pytest.raises(RunAlreadyEnded, match="has ended already: cancelled"):
        intake.cancel(gate.run, actor=alice)
    assert kinds(gate.run) == before


def test_a_cancelled_runs_gate_takes_no_answer(gate, bob):
    intake.cancel(gate.run, actor=bob)
    gate.refresh_from_db()

    with pytest.raises(NotWaiting, match="cancelled"):
        waits.answer(gate, waits.Answer("approve"), actor=bob)


def test_a_key_starts_one_run_and_finds_it_again(registered, alice):
    workflow = registered["company_intel"].workflows.get(slug="research")
    first = intake.request(workflow, input={"company_name": "Stripe"}, actor=alice, key="k", body=[1])

    again = intake.request(workflow, input={"company_name": "Stripe"}, actor=alice, key="k", body=[1])

    assert (first.new, again.new, again.id) == (True, False, first.id)
    assert kinds(first) == ["run.queued"]
    assert Run.objects.count() == 1


def test_a_key_finds_its_run_whatever_has_become_of_it(registered, bob):
    workflow = registered["company_intel"].workflows.get(slug="research")
    run = intake.request(workflow, input={"company_name": "Stripe"}, actor=None, key="k")
    intake.cancel(run, actor=bob)
    Operator.objects.update(enabled=False)

    again = intake.request(workflow, input={}, actor=None, key="k")

    assert (again.id, again.status, again.new) == (run.id, "cancelled", False)


def test_a_key_with_another_body_is_refused(registered):
    workflow = registered["company_intel"].workflows.get(slug="research")
    run = intake.request(workflow, input={"company_name": "A"}, actor=None, key="k", body={"company_name": "A"})

    with pytest.raises(KeyReused, match=rf"has started {run.id} with another body; repeat the body .* or take a new"):
        intake.request(workflow, input={"company_name": "B"}, actor=None, key="k", body={"company_name": "B"})
    assert Run.objects.get() == run


def test_runs_without_a_key_are_all_their_own(registered):
    runs = [started(registered["company_intel"], "research", company_name="A") for _ in range(2)]

    assert all(run.new and run.key is None for run in runs)
    assert Run.objects.count() == 2


def test_two_projects_use_the_same_key_without_meeting(lab, other_project):
    elsewhere = registration.register(other_project, definitions.registry.operator("lab"))
    runs = [
        intake.request(operator.workflows.get(slug="four"), input={}, actor=None, key="k")
        for operator in (lab, elsewhere)
    ]

    assert [run.new for run in runs] == [True, True]


@pytest.mark.django_db(transaction=True)
def test_requests_at_the_same_time_with_one_key_start_one_run(lab):
    workflow = lab.workflows.select_related("operator").get(slug="four")
    ready, runs = threading.Barrier(2), []

    def ask() -> None:
        ready.wait(10)
        runs.append(intake.request(workflow, input={}, actor=None, key="k", body={}))
        connection.close()

    for _ in range(5):
        Run.objects.all().delete()
        runs.clear()
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert sorted(run.new for run in runs) == [False, True]
        assert len({run.id for run in runs}) == 1
        assert kinds(runs[0]) == ["run.queued"]


def test_a_request_that_loses_the_race_leaves_the_callers_transaction_usable(lab):
    workflow = lab.workflows.select_related("operator").get(slug="four")
    first = []

    class Late(Mapping):
        """An input that is read after the look for the key, when the other request comes."""

        def __iter__(self):
            if not first:
                first.append(intake.request(workflow, input={}, actor=None, key="k"))
            return iter(("number",))

        def __len__(self):
            return 1

        def __getitem__(self, name):
            return 1

    with transaction.atomic():
        second = intake.request(workflow, input=Late(), actor=None, key="k")
        assert Run.objects.count() == 1

    assert (first[0].new, second.new, second.id) == (True, False, first[0].id)


def test_a_run_that_a_run_starts_is_one_deeper_and_in_its_trace(lab):
    workflow = lab.workflows.select_related("operator").get(slug="four")
    parent = intake.request(workflow, input={}, actor=None)

    child = intake.request(workflow, input={}, actor=None, parent=parent)

    child.refresh_from_db()
    assert (parent.depth, child.depth, child.parent) == (0, 1, parent)
    assert child.traceparent == parent.traceparent
    assert list(parent.children.all()) == [child]


def test_a_parent_elsewhere_tells_the_depth(lab):
    workflow = lab.workflows.select_related("operator").get(slug="four")

    run = intake.request(workflow, input={}, actor=None, depth=7)

    assert (run.depth, run.parent) == (7, None)


def test_a_chain_of_runs_ends_at_twenty(lab):
    workflow = lab.workflows.select_related("operator").get(slug="four")
    run = None
    for _ in range(20):
        run = intake.request(workflow, input={}, actor=None, parent=run)

    with pytest.raises(
        RecursionTooDeep, match=r"lab\.four would be run number 21 of a chain .* Break the circle"
    ) as no:
        intake.request(workflow, input={}, actor=None, parent=run)
    assert (no.value.code, no.value.detail) == ("recursion_depth_exceeded", {"depth": 20})
    assert Run.objects.count() == 20
