"""Who may not, and what does not fit: each refusal says what is wrong and changes nothing."""

from __future__ import annotations

import base64

import pytest
from django.test import Client

from operators.models import Membership, Run
from tests.api.conftest import caller

JSON = "application/json"
ACTIVATE = "/v1/operators/company_intel/activate"


@pytest.fixture
def _nothing_changed(db):
    yield
    assert not Run.objects.exists()


def _problem(answer, status):
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"].startswith("application/problem+json")
    body = answer.json()
    assert body["status"] == status
    return body


@pytest.mark.parametrize("header", [None, "Bearer ov_wrong", "Bearer", "Bearer a b", "Token ov_wrong"])
@pytest.mark.parametrize("address", ["/v1/operators", "/v1/operators/company_intel/runs"])
def test_without_a_valid_token_nobody_comes_in(registered, header, address):
    client = Client(headers={"Authorization": header} if header else {})

    answer = client.get(address)

    _problem(answer, 401)
    assert answer["WWW-Authenticate"] == 'Bearer realm="openvibe"'


def test_the_token_of_somebody_who_left_is_void(alice, alice_calls):
    alice.is_active = False
    alice.save()

    _problem(alice_calls.get("/v1/operators"), 401)


def test_the_token_of_somebody_who_left_the_project_shows_nothing(alice, alice_calls, waiting):
    Membership.objects.filter(user=alice).delete()

    assert alice_calls.get("/v1/operators").json() == {"operators": []}
    _problem(alice_calls.get(waiting), 404)


def test_a_token_shows_its_own_project_only(alice, alice_calls, waiting, other_project):
    Membership.objects.create(project=other_project, user=alice, role=Membership.Role.OWNER)
    calls = caller(alice, other_project)

    assert calls.get("/v1/operators").json() == {"operators": []}
    _problem(calls.get(waiting), 404)


def test_charlie_sees_nothing_and_changes_nothing(charlie_calls, alice_calls, waiting):
    assert charlie_calls.get("/v1/operators").json() == {"operators": []}
    for answer in (
        charlie_calls.get("/v1/operators/revenue_ops"),
        charlie_calls.get("/v1/operators/revenue_ops/runs"),
        charlie_calls.post(ACTIVATE, {"trigger": "query"}, content_type=JSON),
        charlie_calls.get(waiting),
        charlie_calls.get(f"{waiting}/events"),
        charlie_calls.post(f"{waiting}/resume", {"decision": "approve"}, content_type=JSON),
        charlie_calls.post(f"{waiting}/retries"),
        charlie_calls.delete(waiting),
    ):
        _problem(answer, 404)
    assert alice_calls.get(waiting).json()["status"] == "waiting"


def test_a_viewer_sees_and_changes_nothing(vera_calls, waiting):
    assert vera_calls.get(waiting).status_code == 200
    for answer in (
        vera_calls.post(ACTIVATE, {"trigger": "query", "input": {"company_name": "A"}}, content_type=JSON),
        vera_calls.post(f"{waiting}/resume", {"decision": "approve"}, content_type=JSON),
        vera_calls.post(f"{waiting}/retries"),
        vera_calls.delete(waiting),
    ):
        _problem(answer, 404)
    assert vera_calls.get(waiting).json()["status"] == "waiting"
    assert Run.objects.count() == 1


@pytest.mark.usefixtures("_nothing_changed")
@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("/v1/operators/nobody", "nobody"),
        ("/v1/operators/nobody/runs", "nobody"),
        ("/v1/operators/company_intel/runs/run_none", "run_none"),
        ("/v1/operators/company_intel/runs/run_none/events", "run_none"),
    ],
)
def test_what_does_not_exist_is_named(alice_calls, address, named):
    assert repr(named) in _problem(alice_calls.get(address), 404)["detail"]


@pytest.mark.usefixtures("_nothing_changed")
def test_an_unknown_operator_cannot_be_activated(alice_calls):
    answer = alice_calls.post("/v1/operators/nobody/activate", {"trigger": "query"}, content_type=JSON)

    assert "'nobody'" in _problem(answer, 404)["detail"]


@pytest.mark.usefixtures("_nothing_changed")
def test_an_unknown_trigger_names_what_there_is(alice_calls):
    answer = alice_calls.post(ACTIVATE, {"trigger": "nope"}, content_type=JSON)

    detail = _problem(answer, 404)["detail"]
    assert "'nope'" in detail
    assert "query, research" in detail


def test_another_operators_run_is_not_found_under_this_one(alice_calls, waiting):
    _problem(alice_calls.get(waiting.replace("revenue_ops", "company_intel")), 404)


@pytest.mark.usefixtures("_nothing_changed")
@pytest.mark.parametrize(
    ("input", "field", "type"),
    [({}, "company_name", "str"), ({"company_name": 7}, "company_name", "str"), ({"x": 1}, "x", "")],
)
def test_input_that_does_not_fit_names_field_and_type(alice_calls, input, field, type):
    answer = alice_calls.post(ACTIVATE, {"trigger": "query", "input": input}, content_type=JSON)

    problem = _problem(answer, 422)
    found = {(item["field"], item["type"]) for item in problem["errors"]}
    assert (field, type) in found
    assert field in problem["detail"]


@pytest.mark.usefixtures("_nothing_changed")
@pytest.mark.parametrize(
    ("body", "field"),
    [({"input": {}}, "trigger"), ({"trigger": "query", "input": [1]}, "input"), ({"trigger": {}}, "trigger")],
)
def test_a_body_that_does_not_fit_names_the_field(alice_calls, body, field):
    answer = alice_calls.post(ACTIVATE, body, content_type=JSON)

    assert field in {item["field"] for item in _problem(answer, 422)["errors"]}


@pytest.mark.usefixtures("_nothing_changed")
@pytest.mark.parametrize(
    "body",
    [
        b"{", b"trigger=query", b"[]", b'"text"', b"7", b"null", b"\xff\xfe", b'{"trigger": NaN}', b"[" * 100_000,
        b'{"trigger": "query", "input": {"company_name": ' + b"9" * 5_000 + b"}}",
    ],
    ids=["broken", "a form", "a list", "a text", "a number", "null", "not UTF-8", "NaN", "deep", "long number"],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_a_bad_request(alice_calls, body):
    _problem(alice_calls.post(ACTIVATE, body, content_type=JSON), 400)


def test_the_content_type_does_not_matter(alice_calls):
    body = '{"trigger": "query", "input": {"company_name": "Stripe"}}'

    assert alice_calls.post(ACTIVATE, body, content_type="application/x-www-form-urlencoded").status_code == 201


@pytest.mark.usefixtures("_nothing_changed")
@pytest.mark.parametrize("text", [r"\ud800", r"a\u0000b"], ids=["half a character", "NUL"])
def test_text_that_no_database_keeps_does_not_fit(alice_calls, text):
    body = '{"trigger": "query", "input": {"company_name": "%s"}}' % text  # noqa: UP031  # braces all over

    problem = _problem(alice_calls.post(ACTIVATE, body, content_type=JSON), 422)
    assert problem["errors"][0]["field"] == "company_name"


@pytest.mark.usefixtures("_nothing_changed")
@pytest.mark.parametrize("position", ["p=abc", "p=2026-13-45 99:00", "o=1&p=%00"])
def test_a_cursor_that_somebody_made_up_is_not_found(alice_calls, position):
    cursor = base64.b64encode(position.encode()).decode()

    _problem(alice_calls.get("/v1/operators/company_intel/runs", {"cursor": cursor}), 404)


def test_a_disabled_operator_says_so(alice_calls, registered):
    registered["company_intel"].enabled = False
    registered["company_intel"].save()

    answer = alice_calls.post(ACTIVATE, {"trigger": "query", "input": {"company_name": "A"}}, content_type=JSON)

    assert _problem(answer, 409)["title"] == "operator_disabled"


def test_another_method_is_refused(alice_calls):
    _problem(alice_calls.delete("/v1/operators"), 405)


@pytest.mark.parametrize("method", ["get", "post", "delete"])
@pytest.mark.parametrize("path", ["/v1/nothing", "/api/nothing", "/v1/operators/", "/v1/operators/a.b/runs"])
def test_an_unknown_path_is_a_problem_too(db, method, path):
    # A program holds no CSRF token; it must hear 404, not that it may not ask.
    answer = getattr(Client(enforce_csrf_checks=True), method)(path)

    assert path in _problem(answer, 404)["detail"]


def test_a_pages_session_comes_in_and_needs_its_csrf_token_to_change(alice, alice_calls, waiting):
    page = Client(enforce_csrf_checks=True)
    page.force_login(alice)

    assert page.get(waiting).status_code == 200
    _problem(page.delete(waiting), 403)
    assert page.get(waiting).json()["status"] == "waiting"


@pytest.mark.parametrize("address", ["/v1/nope", "/v1/context/companies/a%0Ab", "/v1/%0A"])
def test_no_address_under_v1_is_answered_with_a_page(db, address):
    assert _problem(Client().put(address), 404)["title"] == "not_found"


@pytest.mark.parametrize(
    ("method", "address"), [("PATCH", "/v1/schema/"), ("PATCH", "/v1/docs/"), ("OPTIONS", "/v1/docs/")]
)
def test_a_document_with_a_shape_of_its_own_is_refused_as_everything_else(db, method, address):
    assert _problem(Client().generic(method, address), 405)["title"] == "method_not_allowed"
