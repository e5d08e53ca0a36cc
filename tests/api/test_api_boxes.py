"""Boxes over REST: lists of cards, made and read; those of turns are there once a turn has been completed."""

from __future__ import annotations

import hashlib

import orjson
import rfc8785

from operators.models import Box, Card
from operators.services import cards
from tests.api.test_api_context import problem

JSON = "application/json"


def card(calls, content) -> str:
    return calls.post("/v1/cards", {"content": content}, content_type=JSON).json()["card"]


def test_a_box_keeps_its_cards_in_their_order(bob_calls, vera_calls):
    cards = [card(bob_calls, content) for content in ("b", "a", "b")]
    made = bob_calls.post("/v1/boxes", {"cards": cards}, content_type=JSON)

    assert made.status_code == 201
    assert vera_calls.get(made["Location"]).json()["cards"] == cards == made.json()["cards"]


def test_a_card_may_hold_nothing(bob_calls):
    for status in (201, 200):
        made = bob_calls.post("/v1/cards", {"content": None}, content_type=JSON)
        assert made.status_code == status
    assert bob_calls.get(made["Location"]).json()["content"] is None


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


def test_whoever_reads_a_card_can_check_its_name_whoever_kept_it(activate, alice_calls):
    activate("company_intel", "query")
    content = {"b": "x" * 40_000, "a": [1.0, 1e21, "\U0001f600"], "\ufb33": 1, "\U0001f600": 2}
    kept = cards.light("default", content)
    assert kept["card"] == card(alice_calls, content)
    found = list(Card.objects.values_list("sha256", flat=True))
    assert len(found) > 1
    for sha256 in found:
        content = alice_calls.get(f"/v1/cards/{sha256}").json()["content"]
        assert hashlib.sha256(rfc8785.dumps(content)).hexdigest() == sha256


def test_a_card_that_was_kept_by_another_name_is_still_pointed_at(project):
    values = {"old": {"b": 1, "a": "x" * 40_000}, "new": {"b": 2, "a": "x" * 40_000}}
    text = orjson.dumps(values["old"])
    older = hashlib.sha256(text).hexdigest()
    Card.objects.create(project=project, sha256=older, content=values["old"], size=len(text))
    new = cards.light(project.id, values["new"])
    assert cards.pointed(project.id, values) == {"old": {"card": older, "size": len(text)}, "new": new}
