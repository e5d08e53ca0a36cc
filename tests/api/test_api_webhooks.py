"""The webhook door: other systems' events start runs, each event once."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator

import pytest
from django.test import Client

from openvibe import node, operator, workflow
from openvibe.contrib import hubspot
from operators import definitions
from operators.models import Operator, Project, Run
from operators.services import compiled, registration

JSON = "application/json"
SECRET = "a secret of HubSpot's"
EVENT = {
    "eventId": 100, "subscriptionId": 54, "portalId": 62515, "appId": 54, "occurredAt": 1564113600000,
    "subscriptionType": "contact.creation", "attemptNumber": 0, "objectId": 123, "changeSource": "CRM",
}  # fmt: skip


@operator(id="sales", name="Sales")
class Sales:
    contact_id: str = ""
    email: str = ""
    score: float = 0.0

    @workflow(id="qualify", trigger="webhook:shop_new_order", inputs=("contact_id", "email", "score"))
    class Qualify:
        @node
        def note(self, state):
            return None

    @workflow(id="welcome", trigger="webhook:shop:new_order", inputs=("email",))
    class Welcome:
        @node
        def note(self, state):
            return None

    @workflow(id="created", trigger="webhook:hubspot_contact_creation", inputs=("contact_id",))
    class Created:
        @node
        def note(self, state):
            return None

    @workflow(id="by_hand", inputs=("email",))
    class ByHand:
        @node
        def note(self, state):
            return None


@pytest.fixture
def sales(project: Project) -> Iterator[Operator]:
    definition = definitions.registry.register(Sales)
    yield registration.register(project, definition)
    definitions.registry.remove("sales")
    compiled.workflow.cache_clear()


def _deliver(client, body, source="shop_new_order", **headers):
    text = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return client.post(f"/v1/webhooks/{source}/", text, content_type=JSON, headers=headers)


def _problem(answer, status):
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"].startswith("application/problem+json")
    return answer.json()


def _started(answer):
    assert answer.status_code == 202, answer.content
    return answer.json()["runs"]


def test_an_event_starts_every_workflow_that_waits_for_it_however_its_trigger_is_spelled(alice_calls, sales, alice):
    runs = _started(_deliver(alice_calls, {"id": "evt_1", "email": "ada@example.com"}))

    assert {(run["workflow_id"], run["new"], run["event_id"]) for run in runs} == {
        ("qualify", True, "evt_1"),
        ("welcome", True, "evt_1"),
    }
    stored = {run.id: run for run in Run.objects.all()}
    assert set(stored) == {run["run_id"] for run in runs}
    assert {(run.status, run.trigger, run.started_by, run.depth) for run in stored.values()} == {
        ("queued", "webhook", alice, 0)
    }


@pytest.mark.parametrize("source", ["shop_new_order", "shop:new_order", "Shop.new-order"])
def test_the_address_may_be_spelled_as_the_trigger_is(alice_calls, sales, source):
    assert len(_started(_deliver(alice_calls, {}, source))) == 2


def test_the_address_works_without_its_last_slash(alice_calls, sales):
    answer = alice_calls.post("/v1/webhooks/shop_new_order", "{}", content_type=JSON)

    assert len(_started(answer)) == 2


def test_an_events_type_completes_the_source(alice_calls, sales):
    told = {run["workflow_id"] for run in _started(_deliver(alice_calls, {"id": 1, "type": "new.order"}, "shop"))}

    assert told == {"qualify", "welcome"}


def test_an_event_for_which_nobody_waits_is_taken_and_starts_nothing(alice_calls, sales):
    assert _started(_deliver(alice_calls, {"id": 1, "type": "refund"}, "shop")) == []
    assert not Run.objects.exists()


def test_fields_that_are_inputs_become_input_and_others_are_ignored(alice_calls, sales):
    body = {"id": "e", "email": "ada@example.com", "contact_id": "7", "score": 3, "colour": "red"}

    _deliver(alice_calls, body)

    assert Run.objects.get(workflow__slug="qualify").input == {
        "contact_id": "7", "email": "ada@example.com", "score": 3.0,
    }  # fmt: skip
    assert Run.objects.get(workflow__slug="welcome").input == {"email": "ada@example.com"}


def test_a_number_becomes_text_where_text_is_wanted(alice_calls, sales):
    _deliver(alice_calls, {"contact_id": 7, "score": "2.5"})

    assert Run.objects.get(workflow__slug="qualify").input == {"contact_id": "7", "score": 2.5}


def test_hubspots_object_is_the_contact(alice_calls, sales):
    (run,) = _started(_deliver(alice_calls, [EVENT], "hubspot"))

    assert (run["event_id"], run["workflow_id"]) == ("100", "created")
    assert Run.objects.get().input == {"contact_id": "123"}


def test_a_contact_that_is_named_wins_over_hubspots_object(alice_calls, sales):
    _deliver(alice_calls, [{**EVENT, "contact_id": "7"}], "hubspot")

    assert Run.objects.get().input == {"contact_id": "7"}


def test_hubspots_new_lead_starts_what_ships(alice_calls):
    (run,) = _started(_deliver(alice_calls, [EVENT], "hubspot_new_lead"))

    assert run["operator_id"] == "revenue_ops"
    assert Run.objects.get().input == {"contact_id": "123"}


def test_each_event_of_a_delivery_starts_a_run_of_its_own(alice_calls, sales):
    runs = _started(_deliver(alice_calls, [{**EVENT, "eventId": number} for number in range(3)], "hubspot"))

    assert [run["event_id"] for run in runs] == ["0", "1", "2"]
    assert len({run["run_id"] for run in runs}) == 3


def test_an_event_that_is_delivered_again_finds_its_run(alice_calls, sales):
    (first,) = _started(_deliver(alice_calls, [EVENT], "hubspot"))
    (second,) = _started(_deliver(alice_calls, [{**EVENT, "attemptNumber": 1}], "hubspot"))

    assert second == {**first, "new": False}
    assert Run.objects.count() == 1


def test_an_event_is_the_same_at_each_address_by_which_it_comes(alice_calls, sales):
    first = _started(_deliver(alice_calls, {"id": "e", "type": "new.order"}, "shop"))
    second = _started(_deliver(alice_calls, {"id": "e"}, "shop_new_order"))

    assert {run["run_id"] for run in first} == {run["run_id"] for run in second}


def test_a_delivery_with_old_and_new_events_says_which_is_which(alice_calls, sales):
    _deliver(alice_calls, [EVENT], "hubspot")

    runs = _started(_deliver(alice_calls, [EVENT, {**EVENT, "eventId": 101}, EVENT], "hubspot"))

    assert [(run["event_id"], run["new"]) for run in runs] == [("100", False), ("101", True)]


def test_an_event_without_an_id_is_known_by_its_content(alice_calls, sales):
    first = _started(_deliver(alice_calls, '{"email": "a@b.c", "score": 1}'))
    again = _started(_deliver(alice_calls, '{ "score":1, "email":"a@b.c" }'))
    other = _started(_deliver(alice_calls, {"email": "other@b.c", "score": 1}))

    assert {run["run_id"] for run in first} == {run["run_id"] for run in again}
    assert {run["run_id"] for run in first}.isdisjoint(run["run_id"] for run in other)
    assert len(first[0]["event_id"]) == 64


def test_an_id_may_be_as_long_as_its_sender_likes(alice_calls, sales):
    first = _started(_deliver(alice_calls, {"id": "x" * 5_000}))
    again = _started(_deliver(alice_calls, {"id": "x" * 5_000}))
    other = _started(_deliver(alice_calls, {"id": "x" * 4_999 + "y"}))

    assert [run["new"] for run in first + again + other] == [True, True, False, False, True, True]


@pytest.mark.parametrize("text", ["\ud800", "a\x00b"], ids=["half a character", "NUL"])
def test_an_id_that_no_database_keeps_is_kept_in_what_can_be_said(alice_calls, sales, text):
    first, again = (_started(_deliver(alice_calls, {"id": text})) for _ in range(2))

    assert [run["new"] for run in first + again] == [True, True, False, False]


def test_a_callers_trace_goes_on(alice_calls, sales):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    _deliver(alice_calls, {}, traceparent=trace)

    assert {run.traceparent for run in Run.objects.all()} == {trace}


def test_a_disabled_operator_is_left_out(alice_calls, sales):
    Operator.objects.filter(slug="sales").update(enabled=False)

    _problem(_deliver(alice_calls, {}), 404)
    assert not Run.objects.exists()


def test_an_unknown_source_names_those_there_are(alice_calls, sales):
    problem = _problem(_deliver(alice_calls, {}, "stripe"), 404)

    assert "'stripe'" in problem["detail"]
    assert {"hubspot_contact_creation", "shop_new_order"} <= set(re.findall(r"\w+", problem["detail"]))


def test_a_workflow_that_waits_for_no_webhook_has_no_door_here(alice_calls, sales):
    _problem(_deliver(alice_calls, {}, "by_hand"), 404)


@pytest.mark.parametrize(
    ("body", "field", "event"),
    [
        ({"id": "e", "email": ["a"]}, "email", "e"),
        ({"id": "e", "score": "much"}, "score", "e"),
        ([{"id": 1}, {"id": 2, "email": None}], "email", "2"),
        ([{"id": 1}, {"id": 2, "email": "a\x00"}], "email", "2"),
    ],
)
def test_input_that_does_not_fit_names_event_and_field_and_no_event_starts_anything(
    alice_calls, sales, body, field, event
):
    problem = _problem(_deliver(alice_calls, body), 422)

    assert {(item["field"], item["event_id"]) for item in problem["errors"]} == {(field, event)}
    assert f"event {event}: {field}: " in problem["detail"]
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ("{", 400, "JSON parse error"),
        ("", 400, "The body is empty"),
        ("[" * 100_000, 400, "too many levels"),
        (b"\xff", 400, "JSON parse error"),
        ("[]", 422, "holds 0 events; send 1 to 100"),
        ([{}] * 101, 422, "holds 101 events; send 1 to 100"),
        ('"text"', 422, "no JSON object"),
        ("null", 422, "no JSON object"),
        ([{}, 7], 422, "Event 1 is no JSON object"),
        ({"id": {}}, 422, "Event id takes a text or a whole number"),
        ({"id": ""}, 422, "Event id takes a text or a whole number"),
        ({"id": True}, 422, "Event id takes a text or a whole number"),
        ([{"eventId": 1.5}], 422, "Event 0.id takes a text or a whole number"),
        ({"type": 7}, 422, "Event type takes a text"),
    ],
)
def test_a_body_that_holds_no_events_is_refused(alice_calls, sales, body, status, told):
    problem = _problem(_deliver(alice_calls, body), status)

    assert told in problem["detail"]
    assert not Run.objects.exists()


def test_a_body_over_the_limit_is_refused_and_one_at_the_limit_is_taken(alice_calls, sales):
    limit = 1024 * 1024
    spare = len('{"x": ""}')

    assert _problem(_deliver(alice_calls, '{"x": "%s"}' % ("x" * (limit - spare + 1))), 413)["title"] == "too_large"
    assert len(_started(_deliver(alice_calls, '{"x": "%s"}' % ("x" * (limit - spare))))) == 2


def test_another_method_is_refused(alice_calls, sales):
    _problem(alice_calls.get("/v1/webhooks/shop_new_order/"), 405)


def test_without_a_token_or_a_signature_nobody_comes_in(sales):
    answer = _deliver(Client(), {})

    _problem(answer, 401)
    assert answer["WWW-Authenticate"] == 'Bearer realm="openvibe"'
    _problem(_deliver(Client(), {}, authorization="Bearer ov_wrong"), 401)


def test_a_pages_session_opens_no_webhook_and_no_csrf_token_is_asked_for(sales, alice):
    page = Client(enforce_csrf_checks=True)
    page.force_login(alice)

    _problem(_deliver(page, {}), 401)


def test_charlie_and_a_viewer_start_nothing(sales, charlie_calls, vera_calls):
    for calls in (charlie_calls, vera_calls):
        problem = _problem(_deliver(calls, {}), 404)
        assert problem["detail"].endswith("there are: none")
    assert not Run.objects.exists()


class HubSpot:
    """HubSpot's sender: signs what it sends as its documentation says."""

    def __init__(self, secret: str = SECRET) -> None:
        self.secret = secret
        self.client = Client(enforce_csrf_checks=True)

    def send(self, *, body=None, uri="http://testserver/v1/webhooks/hubspot/", age=0.0, tampered=""):
        text = json.dumps([EVENT] if body is None else body)
        timestamp = str(int((time.time() - age) * 1000))
        signature = hubspot.signature_v3(self.secret, method="POST", uri=uri, body=text, timestamp=timestamp)
        headers = {"X-HubSpot-Signature-v3": signature, "X-HubSpot-Request-Timestamp": timestamp}
        path = uri.partition("testserver")[2]
        return self.client.post(path, tampered or text, content_type=JSON, headers=headers)


@pytest.fixture
def _secret(settings) -> None:
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, hubspot_secret=SECRET)


@pytest.mark.usefixtures("_secret")
def test_hubspots_signature_opens_the_default_project(sales):
    (run,) = _started(HubSpot().send())

    started = Run.objects.get(id=run["run_id"])
    assert (started.project_id, started.started_by, started.input) == ("default", None, {"contact_id": "123"})


@pytest.mark.usefixtures("_secret")
@pytest.mark.parametrize(
    "uri", ["https://testserver/v1/webhooks/hubspot/", "http://testserver/v1/webhooks/hubspot/?from=app"]
)
def test_the_signature_covers_the_address_that_hubspot_called(sales, uri):
    assert len(_started(HubSpot().send(uri=uri))) == 1


@pytest.mark.usefixtures("_secret")
@pytest.mark.parametrize(
    "sent",
    [
        lambda: HubSpot("another secret").send(),
        lambda: HubSpot().send(tampered=json.dumps([{**EVENT, "objectId": 666}])),
        lambda: HubSpot().send(age=301),
        lambda: HubSpot().send(age=-301),
        lambda: HubSpot().client.post("/v1/webhooks/hubspot/", "[]", content_type=JSON,
                                      headers={"X-HubSpot-Signature-v3": "x"}),
    ],
    ids=["another secret", "another body", "too old", "from the future", "no timestamp"],
)  # fmt: skip
def test_a_signature_that_does_not_fit_is_refused(sales, sent):
    problem = _problem(sent(), 401)

    assert "signature does not fit" in problem["detail"]
    assert SECRET not in problem["detail"]
    assert not Run.objects.exists()


def test_without_a_secret_on_the_server_no_signature_counts(sales):
    problem = _problem(HubSpot("").send(), 401)

    assert "OPENVIBE_HUBSPOT_SECRET is not set" in problem["detail"]
    assert not Run.objects.exists()


@pytest.mark.usefixtures("_secret")
def test_a_signature_opens_no_other_door(sales):
    _problem(HubSpot().send(uri="http://testserver/v1/operators/sales/activate"), 401)
