"""The shared context over REST: revisions, compare-and-set, lists a page at a time, history; and cards and schemas."""

from __future__ import annotations

import hashlib

import jsonschema
import pytest
import rfc8785
from django.test import Client

from openvibe.protocol import sessions
from operators.models import Card, ContextEntry, Membership
from tests.api.conftest import caller

JSON = "application/json"
STRIPE = "/v1/context/companies/stripe.com/profile"


def put(calls, address, value, **headers):
    return calls.put(address, {"value": value}, content_type=JSON, headers={name.replace("_", "-"): text for name, text in headers.items()})  # fmt: skip  # noqa: E501


def problem(answer, status):
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"].startswith("application/problem+json")
    return answer.json()


def test_a_value_that_was_written_is_read_with_its_revision(bob_calls, vera_calls):
    first = put(bob_calls, STRIPE, {"size": 8000})
    again = put(bob_calls, STRIPE, {"size": 9000})

    assert (first.status_code, first["ETag"]) == (201, '"1"')
    assert (again.status_code, again["ETag"]) == (200, '"2"')
    read = vera_calls.get(STRIPE)
    assert read["ETag"] == '"2"'
    told = read.json()
    assert (told["bucket"], told["key"]) == ("companies", "stripe.com/profile")
    assert (told["value"], told["revision"], told["author"]) == ({"size": 9000}, 2, "bob")


@pytest.mark.parametrize("value", [None, 7, "text", '{"looks": "like JSON"}', [1, [2]], {}, False])
def test_any_json_value_comes_back_as_it_was(bob_calls, value):
    assert put(bob_calls, STRIPE, value).json()["value"] == value
    assert bob_calls.get(STRIPE).json()["value"] == value


def test_a_reader_who_has_the_latest_revision_gets_no_body(bob_calls):
    put(bob_calls, STRIPE, 1)

    assert bob_calls.get(STRIPE, headers={"If-None-Match": '"1"'}).status_code == 304
    assert bob_calls.get(STRIPE, headers={"If-None-Match": '"2"'}).status_code == 200


def test_a_writer_who_quotes_an_old_revision_is_refused(bob_calls):
    put(bob_calls, STRIPE, "first")
    put(bob_calls, STRIPE, "second", If_Match='"1"')

    refused = problem(put(bob_calls, STRIPE, "third", If_Match='"1"'), 412)

    assert (refused["title"], refused["revision"]) == ("revision_moved", 2)
    assert problem(bob_calls.delete(STRIPE, headers={"If-Match": '"1"'}), 412)["revision"] == 2
    assert bob_calls.get(STRIPE).json()["value"] == "second"


def test_only_the_first_of_two_creators_writes(bob_calls):
    assert put(bob_calls, STRIPE, "mine", If_None_Match="*").status_code == 201
    assert problem(put(bob_calls, STRIPE, "no, mine", If_None_Match="*"), 412)["revision"] == 1


def test_if_match_with_a_star_asks_for_something_to_be_there(bob_calls):
    problem(put(bob_calls, STRIPE, 1, If_Match="*"), 412)
    put(bob_calls, STRIPE, 1)

    assert put(bob_calls, STRIPE, 2, If_Match="*").status_code == 200


@pytest.mark.parametrize("quote", ["1", '"a"', '"1", "2"'])
def test_a_quote_that_is_no_revision_does_not_fit(bob_calls, quote):
    assert problem(put(bob_calls, STRIPE, 1, If_Match=quote), 422)["errors"][0]["field"] == "If-Match"
    assert not ContextEntry.objects.exists()


def test_what_was_deleted_is_gone_but_for_its_history(bob_calls):
    put(bob_calls, STRIPE, "a")
    put(bob_calls, STRIPE, "b")

    assert bob_calls.delete(STRIPE, headers={"If-Match": '"2"'}).status_code == 204

    problem(bob_calls.get(STRIPE), 404)
    problem(bob_calls.delete(STRIPE), 404)
    told = bob_calls.get(f"{STRIPE}?history=1&limit=2").json()
    assert [(item["revision"], item["value"], item["deleted"]) for item in told["history"]] == [
        (3, None, True), (2, "b", False)]  # fmt: skip
    rest = bob_calls.get(f"{STRIPE}?history=1&before={told['next']}").json()
    assert ([item["value"] for item in rest["history"]], rest["next"]) == (["a"], None)
    assert bob_calls.get("/v1/context/companies").json()["keys"] == []
    # A new value goes on counting, so that an old quote never fits again.
    assert put(bob_calls, STRIPE, "c", If_None_Match="*")["ETag"] == '"4"'


def test_keys_are_listed_by_prefix_a_page_at_a_time(bob_calls, vera_calls):
    for key in ("a/1", "a/2", "A/3", "a/4", "b", "a%_"):
        put(bob_calls, f"/v1/context/leads/{key.replace('%', '%25')}", key)

    page = vera_calls.get("/v1/context/leads", {"prefix": "a/", "limit": 2}).json()
    rest = vera_calls.get("/v1/context/leads", {"prefix": "a/", "limit": 2, "after": page["next"]}).json()

    assert [(item["key"], item["revision"]) for item in page["keys"]] == [("a/1", 1), ("a/2", 1)]
    assert ([item["key"] for item in rest["keys"]], rest["next"]) == (["a/4"], None)
    assert [item["key"] for item in vera_calls.get("/v1/context/leads", {"prefix": "a%"}).json()["keys"]] == ["a%_"]
    assert len(vera_calls.get("/v1/context/leads").json()["keys"]) == 6


def test_an_unknown_bucket_names_those_that_there_are(bob_calls):
    for answer in (bob_calls.get("/v1/context/nope"), bob_calls.get("/v1/context/nope/a"),
                   put(bob_calls, "/v1/context/nope/a", 1), bob_calls.delete("/v1/context/nope/a")):  # fmt: skip
        assert "companies" in problem(answer, 404)["detail"]


def test_values_and_keys_have_limits(bob_calls):
    long = "/v1/context/companies/" + "k" * 401
    assert problem(put(bob_calls, long, 1), 422)["errors"][0]["field"] == "key"
    assert put(bob_calls, long[:-1], 1).status_code == 201
    assert problem(put(bob_calls, STRIPE, "x" * 1024 * 1024), 413)["title"] == "too_large"
    assert put(bob_calls, STRIPE, "x" * (1024 * 1024 - 2)).status_code == 201


@pytest.mark.parametrize(
    "body",
    ["{}", '{"value": "a\\u0000b"}', '{"value": "\\ud800"}', '{"value": 9007199254740993}',
     '{"value": %s1%s}' % ("[" * 150, "]" * 150)],  # noqa: UP031  # braces all over
    ids=["none", "NUL", "half a character", "a number that JSON cannot hold", "deep"],
)  # fmt: skip
def test_a_value_that_cannot_be_kept_does_not_fit(bob_calls, body):
    answer = bob_calls.put(STRIPE, body, content_type=JSON)

    assert problem(answer, 422)["errors"][0]["field"] == "value"
    assert not ContextEntry.objects.exists()


def test_a_viewer_reads_and_changes_nothing(bob_calls, vera_calls):
    put(bob_calls, STRIPE, 1)

    problem(put(vera_calls, STRIPE, 2), 404)
    problem(vera_calls.delete(STRIPE), 404)
    problem(vera_calls.post("/v1/cards", {"content": 1}, content_type=JSON), 404)

    assert vera_calls.get(STRIPE).json()["value"] == 1


def test_charlie_has_a_context_of_his_own(bob_calls, charlie_calls):
    put(bob_calls, STRIPE, 1)

    problem(charlie_calls.get(STRIPE), 404)
    problem(charlie_calls.delete(STRIPE), 404)
    assert charlie_calls.get("/v1/context/companies").json()["keys"] == []
    problem(charlie_calls.get("/v1/context/companies?project=default"), 404)
    assert put(charlie_calls, STRIPE, "his").json()["revision"] == 1
    assert bob_calls.get(STRIPE).json()["value"] == 1


def test_somebody_of_no_project_has_no_context(charlie, project, other_project):
    Membership.objects.filter(user=charlie).delete()

    problem(caller(charlie, other_project).get("/v1/context/companies"), 404)


def test_a_signed_in_browser_names_the_project(charlie, project, other_project, bob_calls):
    Membership.objects.create(project=project, user=charlie, role=Membership.Role.VIEWER)
    put(bob_calls, STRIPE, 1)
    browser = Client()
    browser.force_login(charlie)

    assert browser.get(f"{STRIPE}?project=default").json()["value"] == 1
    problem(browser.get(f"{STRIPE}?project=other"), 404)
    problem(browser.get(f"{STRIPE}?project=nobody's"), 404)


def test_a_card_is_named_by_its_content_and_kept_once(bob_calls, vera_calls):
    content = {"b": [1, 2.5], "a": "ä"}
    digest = hashlib.sha256(rfc8785.dumps(content)).hexdigest()

    first = bob_calls.post("/v1/cards", {"content": content}, content_type=JSON)
    again = bob_calls.post("/v1/cards", {"content": {"a": "ä", "b": [1, 2.5]}}, content_type=JSON)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == {"card": digest, "size": len(rfc8785.dumps(content))}
    read = vera_calls.get(first["Location"])
    assert (read.json()["sha256"], read.json()["content"]) == (digest, content)
    assert read["ETag"] == f'"{digest}"'
    assert Card.objects.count() == 1


def test_a_card_has_a_limit(bob_calls):
    many = 8 * 1024 * 1024
    assert problem(bob_calls.post("/v1/cards", {"content": "x" * many}, content_type=JSON), 413)["title"] == "too_large"
    assert bob_calls.post("/v1/cards", {"content": "x" * (many - 2)}, content_type=JSON).status_code == 201


def test_charlie_reads_no_card_of_others(bob_calls, charlie_calls):
    place = bob_calls.post("/v1/cards", {"content": "secret"}, content_type=JSON)["Location"]

    problem(charlie_calls.get(place), 404)
    problem(charlie_calls.get(f"{place}?project=default"), 404)
    problem(bob_calls.get("/v1/cards/0000"), 404)


def test_schemas_are_open_and_fit_what_they_describe(db):
    stranger = Client()
    listed = stranger.get("/v1/schemas/").json()["schemas"]

    wanted = {"envelope", "operators", "sessions", *(f"sessions.{name}" for name in sessions.TYPES)}
    assert {item["name"] for item in listed} == wanted
    for item in listed:
        answer = stranger.get(item["url"])
        assert answer["Content-Type"] == "application/schema+json"
        jsonschema.Draft202012Validator.check_schema(answer.json())
    assert stranger.get("/v1/schemas/operators.schema.json").json() == stranger.get("/v1/schemas/operators").json()
    assert "envelope" in problem(stranger.get("/v1/schemas/nope"), 404)["detail"]
