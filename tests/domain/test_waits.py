from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from operators.errors import AlreadyDecided, Misfit, NotWaiting, QuoteMismatch
from operators.models import Card, Run, Wait
from operators.services import intake, waits
from tests.domain.lab import kinds, played, thread

APPROVE = waits.Answer("approve")
REJECT = waits.Answer("reject")


def test_a_decision_wakes_the_run_and_is_told_with_its_quote(gate, bob):
    waits.answer(gate, waits.Answer("approve", notes="go"), actor=bob)

    gate.run.refresh_from_db()
    assert gate.run.status == "queued"
    event = thread(gate.run).last()
    assert (event.kind, event.actor, event.node, event.step_id) == (
        "gate.decided", "bob", "review_sequence", gate.step_id,
    )  # fmt: skip
    assert event.data == {
        "wait_id": gate.id,
        "version": 1,
        "payload_sha256": gate.payload_sha256,
        "decision": "approve",
        "notes": "go",
        "values": None,
        "by": "bob",
    }


def test_a_double_click_decides_once(gate, bob):
    first = waits.answer(gate, APPROVE, actor=bob)
    second = waits.answer(Wait.objects.get(pk=gate.pk), APPROVE, actor=bob)

    assert second.closed_at == first.closed_at
    assert kinds(gate.run).count("gate.decided") == 1


def test_a_click_on_a_page_that_went_stale_decides_nothing_anew(gate, bob):
    stale = Wait.objects.get(pk=gate.pk)
    waits.answer(gate, APPROVE, actor=bob)

    assert waits.answer(stale, APPROVE, actor=bob).decider == "bob"
    assert kinds(gate.run).count("gate.decided") == 1


def test_another_decision_is_told_who_was_first_and_when(gate, alice, bob):
    decided = waits.answer(gate, APPROVE, actor=bob)

    with pytest.raises(AlreadyDecided, match=r"decided already: 'approve' by bob at \d{4}-\d\d-\d\d .* UTC") as caught:
        waits.answer(Wait.objects.get(pk=gate.pk), REJECT, actor=alice)
    assert caught.value.detail == {
        "decision": "approve",
        "decided_by": "bob",
        "decided_at": decided.closed_at,
        "wait_id": gate.id,
    }


def test_the_same_decision_with_other_values_is_another_decision(gate, alice, bob):
    waits.answer(gate, APPROVE, actor=bob)
    edited = waits.Answer("approve", values={"personalized_sequence": gate.payload["personalized_sequence"]})

    with pytest.raises(AlreadyDecided):
        waits.answer(Wait.objects.get(pk=gate.pk), edited, actor=alice)


@pytest.mark.parametrize(
    ("quote", "changed"), [({"version": 2}, ["version"]), ({"payload_sha256": "0" * 64}, ["payload_sha256"])]
)
def test_a_quote_of_something_else_says_what_changed(gate, bob, quote, changed):
    with pytest.raises(QuoteMismatch, match=changed[0]) as caught:
        waits.answer(gate, waits.Answer("approve", **quote), actor=bob)

    assert caught.value.detail["changed"] == changed
    assert caught.value.detail["payload_sha256"] == gate.payload_sha256
    assert Wait.objects.get(pk=gate.pk).pending


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (waits.Answer("perhaps"), "decision"),
        (waits.Answer("approve", values={"segment": "all"}), "values"),
        (waits.Answer("approve", values={"personalized_sequence": "none"}), "values.personalized_sequence"),
        (waits.Answer("approve", values={"personalized_sequence": [{}]}), "values.personalized_sequence.0"),
    ],
)
def test_an_answer_that_does_not_fit_leaves_the_gate_open(gate, bob, given, field):
    with pytest.raises(Misfit) as caught:
        waits.answer(gate, given, actor=bob)

    assert {item["field"] for item in caught.value.detail["errors"]} == {field}
    assert Wait.objects.get(pk=gate.pk).pending
    assert "gate.decided" not in kinds(gate.run)


@pytest.mark.parametrize("text", ["\ud800", "a\x00b"], ids=["half a character", "NUL"])
def test_an_edit_that_no_database_keeps_leaves_the_gate_open(gate, bob, text):
    touch = {**gate.payload["personalized_sequence"][0], "body": text}

    with pytest.raises(Misfit):
        waits.answer(gate, waits.Answer("approve", values={"personalized_sequence": [touch]}), actor=bob)
    assert Wait.objects.get(pk=gate.pk).pending


def test_edited_values_reach_the_graph(gate, bob):
    touch = {**gate.payload["personalized_sequence"][0], "subject": "Written by Bob"}

    waits.answer(gate, waits.Answer("approve", values={"personalized_sequence": [touch]}), actor=bob)

    run = played(gate.run)
    assert run.output["final_plan"]["sequence"] == [touch]


def large(gate: Wait) -> waits.Answer:
    touch = {**gate.payload["personalized_sequence"][0], "subject": "x" * 40_000}
    return waits.Answer("approve", values={"personalized_sequence": [touch]})


def test_a_large_edit_is_kept_as_a_card(gate, bob):
    waits.answer(gate, large(gate), actor=bob)
    told = thread(gate.run).get(kind="gate.decided").data["values"]["personalized_sequence"]
    assert Card.objects.get(sha256=told["card"]).content == gate.values["personalized_sequence"]


def test_an_answer_that_came_second_leaves_no_card_behind(gate, alice, bob):
    stale = Wait.objects.select_related("run").get(pk=gate.pk)
    waits.answer(gate, REJECT, actor=alice)
    with pytest.raises(AlreadyDecided):
        waits.answer(stale, large(stale), actor=bob)
    assert not Card.objects.exists()


def test_an_answer_after_the_runs_end_is_refused(gate, alice, bob):
    stale = Wait.objects.get(pk=gate.pk)
    intake.cancel(gate.run, actor=alice)

    with pytest.raises(NotWaiting, match="its run was cancelled"):
        waits.answer(stale, APPROVE, actor=bob)
    assert "gate.decided" not in kinds(gate.run)


@pytest.mark.django_db(transaction=True)
def test_of_two_answers_at_once_one_wins(gate, alice, bob):
    ready = threading.Barrier(2)

    def answer(user, given):
        try:
            wait = Wait.objects.get(pk=gate.pk)
            ready.wait()
            return waits.answer(wait, given, actor=user).decider
        except AlreadyDecided as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(answer, (alice, bob), (APPROVE, REJECT)))

    gate.refresh_from_db()
    refused = [item for item in outcomes if isinstance(item, AlreadyDecided)]
    assert len(refused) == 1
    assert refused[0].detail["decided_by"] == gate.decider
    assert gate.decider in outcomes
    assert kinds(gate.run).count("gate.decided") == 1


@pytest.mark.django_db(transaction=True)
def test_an_answer_and_a_cancellation_at_once_do_not_lock_each_other_out(gate, bob):
    has_the_run = threading.Event()

    def cancel():
        try:
            with transaction.atomic():
                Run.objects.filter(pk=gate.run_id).update(status="cancelled")
                has_the_run.set()
                time.sleep(0.3)
                waits.cancel_open(gate.run_id, now=timezone.now())
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        cancelling = pool.submit(cancel)
        assert has_the_run.wait(10)
        with pytest.raises(NotWaiting, match="its run was cancelled"):
            waits.answer(gate, APPROVE, actor=bob)
        cancelling.result(10)

    assert Wait.objects.get(pk=gate.pk).status == "cancelled"


def test_a_gate_that_nobody_answers_takes_its_default(gate):
    Wait.objects.filter(pk=gate.pk).update(deadline=timezone.now() - timedelta(seconds=1))
    gate.refresh_from_db()

    assert waits.expire(gate)
    assert not waits.expire(gate)

    run = played(gate.run)
    assert (gate.status, gate.decider, run.status) == ("expired", "clock", "failed")
    assert "Nobody decided before" in run.error["message"]
    assert kinds(run).count("gate.expired") == 1


def test_a_decision_after_the_deadlines_is_told_about_the_clock(gate, bob):
    waits.expire(gate)

    with pytest.raises(AlreadyDecided, match="by clock"):
        waits.answer(gate, APPROVE, actor=bob)
