"""Boxes over REST: lists of cards, made and read; those of turns are there once a turn has been completed."""

from __future__ import annotations

from operators.models import Box
from tests.api.test_api_context import problem

JSON = "application/json"


def card(calls, content) -> str:
    return calls.post("/v1/cards", {"content": content}, content_type=JSON).json()["card"]


def test_a_box_keeps_its_cards_in_their_order(bob_calls, vera_calls):
    cards = [card(bob_calls, content) for content in ("b", "a", "b")]
    made = bob_calls.post("/v1/boxes", {"cards": cards}, content_type=JSON)

    assert made.status_code == 201
    assert vera_calls.get(made["Location"]).json()["cards"] == cards == made.json()["cards"]


def test_a_box_of_cards_that_there_are_not_is_refused(bob_calls):
    answer = bob_calls.post("/v1/boxes", {"cards": [card(bob_calls, "a"), "0" * 64]}, content_type=JSON)
    assert "there is no card '0000" in problem(answer, 422)["detail"]
    assert not Box.objects.exists()


def test_whoever_only_looks_on_makes_no_box_and_charlie_reads_none(bob_calls, vera_calls, charlie_calls):
    place = bob_calls.post("/v1/boxes", {"cards": []}, content_type=JSON)["Location"]
    problem(vera_calls.post("/v1/boxes", {"cards": []}, content_type=JSON), 404)
    problem(charlie_calls.get(place), 404)
    problem(bob_calls.get("/v1/boxes/none"), 404)


def test_what_a_turn_delivered_is_read_by_its_box_and_its_card(activate, alice_calls):
    run_id = activate("company_intel", "query")
    run = alice_calls.get(f"/v1/operators/company_intel/runs/{run_id}").json()

    [output] = alice_calls.get(f"/v1/boxes/{run_id}-0-output").json()["cards"]
    assert alice_calls.get(f"/v1/cards/{output}").json()["content"] == run["output"]
    [instruction] = alice_calls.get(f"/v1/boxes/{run_id}-context").json()["cards"]
    assert alice_calls.get(f"/v1/cards/{instruction}").json()["content"] == run["input"]
    assert Box.objects.count() == 2
