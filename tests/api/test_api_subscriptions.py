# long: one promise to those who are told, from the first try to the last
"""Subscriptions: who is told what, signed, at least once, through faults; and whom nobody may make us call."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import http.server
import ipaddress
import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone

from openvibe.protocol.headers import valid
from operators import clock
from operators.models import Delivery, Emission, Event, Project, Run, Subscription
from operators.services import announcements, deliveries, endpoints, subscriptions
from operators.services.channels import append, locked

JSON = "application/json"
SUBSCRIBE, ALL = "/v1/events/subscribe", "/v1/events/subscriptions"


class Listener:
    """Somebody else's server: what it was sent, and how it answers."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.heard.append(({name.lower(): text for name, text in self.headers.items()}, body))
                self.send_response(outer.answers.pop(0) if outer.answers else 204)
                for name, text in outer.headers.items():
                    self.send_header(name, text)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?a=1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def kinds(self) -> list[str]:
        return sorted(json.loads(body)["type"] for _, body in self.heard)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def listener(settings):
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, webhook_private=True)
    found = Listener()
    yield found
    found.close()


def subscribed(calls, url: str, *kinds: str, **more: Any) -> dict[str, Any]:
    answer = calls.post(SUBSCRIBE, {"url": url, "kinds": kinds or ("*",), **more}, content_type=JSON)
    assert answer.status_code == 201, answer.content
    told: dict[str, Any] = answer.json()
    return told


def problem(answer, status):
    assert answer.status_code == status, answer.content
    return answer.json()


def happen(project: Project, *kinds: str, run: Run | None = None) -> None:
    channel = locked(project.pk)
    now = timezone.now()
    append(channel, [Event(project=project, channel="public", kind=kind, run=run, data={"n": number}, created_at=now)
                     for number, kind in enumerate(kinds)])  # fmt: skip


def announced(run_id: str) -> None:
    """Repeat a run's news on the general channel, as the announcer does."""
    news = Event.objects.filter(channel=f"t_{run_id}", kind__in=announcements.PUBLIC_KINDS)
    announcements.publicly(list(news))


def work() -> None:
    """Do what clock and workers do now."""
    for found in subscriptions.behind(100):
        subscriptions.derive(found)
    for delivery_id in subscriptions.due(timezone.now(), 1000):
        subscriptions.send_out(delivery_id)
        subscriptions.post(delivery_id)


def make_due() -> None:
    Delivery.objects.update(next_at=timezone.now() - timedelta(seconds=1))


def test_each_matching_event_is_posted_and_signed(bob_calls, project, listener):
    happen(project, "run.started")
    told = subscribed(bob_calls, listener.url, "run.completed", "gate.*")
    happen(project, "run.completed", "run.failed", "gate.opened")

    work()
    work()

    assert listener.kinds == ["gate.opened", "run.completed"]
    headers, body = listener.heard[0]
    key = base64.b64decode(told["secret"].removeprefix("whsec_"))
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"
    assert headers["host"] == listener.url.split("/")[2]
    sent = json.loads(body)
    assert (sent["id"], sent["project"], sent["subscription"]) == (headers["webhook-id"], "default", told["id"])
    assert sent["data"]["seq"] in (2, 4)
    assert {"type", "run_id", "data", "timestamp"} <= set(sent["data"])
    page = bob_calls.get(f"{ALL}/{told['id']}").json()
    assert [item["status"] for item in page["deliveries"]] == ["delivered", "delivered"]
    assert (page["pending"], page["failures"]) == (0, 0)


def test_what_is_told_bears_the_trace_of_its_run_and_else_one_of_its_own(bob_calls, project, activate, listener):
    subscribed(bob_calls, listener.url, "run.completed", "gate.opened")
    run_id = activate("company_intel", "query")
    Run.objects.filter(id=run_id).update(passed_on={"tracestate": "vendor=1"})
    announced(run_id)
    listener.answers = [500]
    happen(project, "gate.opened")
    work()
    make_due()
    work()

    told = {(json.loads(body)["type"], headers.get("traceparent"), headers.get("tracestate"))
            for headers, body in listener.heard}  # fmt: skip
    of_run, own = sorted(told, key=lambda item: item[0] != "run.completed")
    assert len(listener.heard) == 3
    assert of_run == ("run.completed", Run.objects.get(id=run_id).traceparent, "vendor=1")
    assert valid(own[1])
    assert own[1] != of_run[1]


def test_a_secret_of_ones_own_signs_and_is_shown_once(bob_calls, project, listener):
    told = subscribed(bob_calls, listener.url, secret="correct horse battery")
    happen(project, "run.failed")
    work()

    headers, body = listener.heard[0]
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    digest = hmac.digest(b"correct horse battery", signed, hashlib.sha256)
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert told["secret"] == "correct horse battery"
    for answer in (bob_calls.get(ALL), bob_calls.get(f"{ALL}/{told['id']}")):
        assert "correct horse" not in answer.content.decode()


def test_a_run_is_told_from_its_start_to_its_end(bob_calls, activate, listener):
    subscribed(bob_calls, listener.url, "run.*")
    run_id = activate("company_intel", "query")
    announced(run_id)
    work()
    # Told anew, as by a clock that found them late.
    announced(run_id)
    work()

    assert listener.kinds == ["run.completed", "run.started"]


def test_only_the_chosen_operators_runs_are_told(bob_calls, activate, listener):
    mine = subscribed(bob_calls, listener.url, operator="revenue_ops")
    activate("company_intel", "query", play=False)
    run = Run.objects.get()
    happen(run.project, "run.failed", run=run)
    activate("revenue_ops", "lead_qualified", play=False)
    happen(run.project, "run.cancelled", run=Run.objects.get(operator__slug="revenue_ops"))
    happen(run.project, "agent.message")

    work()

    assert listener.kinds == ["run.cancelled"]
    assert mine["operator"] == "revenue_ops"


def test_an_emitted_event_is_told_once(bob_calls, activate, listener):
    subscribed(bob_calls, listener.url, "event.emitted")
    subscribed(bob_calls, listener.url, "event.emitted", operator="company_intel")
    subscribed(bob_calls, listener.url, "event.emitted", operator="market_intel")
    subscribed(bob_calls, listener.url, "run.failed")
    run_id = activate("company_intel", "query")
    emission = Emission.objects.filter(run_id=run_id).first()
    assert emission is not None

    deliveries.deliver(emission.id)
    Emission.objects.update(delivered_at=None)
    deliveries.deliver(emission.id)
    work()

    assert listener.kinds == ["event.emitted", "event.emitted"]
    data = json.loads(listener.heard[0][1])["data"]
    assert (data["run_id"], data["data"]["name"]) == (run_id, emission.name)


def test_the_clock_finds_what_is_due_and_a_bell_that_was_lost_is_rung_again(bob_calls, project, listener):
    subscribed(bob_calls, listener.url, "run.failed")
    happen(project, "run.failed")

    clock.tick()

    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.attempts) == ("pending", 1)
    assert subscriptions.due(timezone.now(), 10) == []
    assert subscriptions.due(timezone.now() + subscriptions.CLAIM * 2, 10) == [delivery.pk]
    subscriptions.post(delivery.pk)
    assert listener.kinds == ["run.failed"]


def test_of_two_clocks_one_sends(bob_calls, project, listener):
    subscribed(bob_calls, listener.url)
    happen(project, "run.failed")
    for found in subscriptions.behind(10):
        subscriptions.derive(found)
        subscriptions.derive(found)
    (delivery_id,) = subscriptions.due(timezone.now(), 10)

    subscriptions.send_out(delivery_id)
    subscriptions.send_out(delivery_id)

    assert Delivery.objects.get().attempts == 1


def test_what_was_not_taken_is_tried_again_later_with_the_same_id(bob_calls, project, listener):
    told = subscribed(bob_calls, listener.url)
    happen(project, "run.failed")
    listener.answers = [500, 302]
    listener.headers = {"Location": listener.url}

    work()
    first = Delivery.objects.get()
    assert (first.status, first.attempts, first.error) == ("pending", 1, "answered 500")
    assert first.next_at > timezone.now()
    work()
    assert len(listener.heard) == 1
    make_due()
    work()
    second = Delivery.objects.get()
    assert second.error == "answered 302"
    assert second.next_at - timezone.now() > subscriptions.PAUSE * 1.5
    assert bob_calls.get(f"{ALL}/{told['id']}").json()["failures"] == 2
    make_due()
    work()

    assert Delivery.objects.get().status == "delivered"
    assert len({headers["webhook-id"] for headers, _ in listener.heard}) == 1
    assert len(listener.heard) == 3
    assert Subscription.objects.get().failures == 0


def test_a_delivery_is_given_up_in_the_end(bob_calls, project, listener):
    subscribed(bob_calls, listener.url)
    happen(project, "run.failed")
    listener.answers = [500] * 50
    work()
    Delivery.objects.update(attempts=F("attempts") + subscriptions.MOST_ATTEMPTS - 2)
    make_due()
    work()

    assert Delivery.objects.get().status == "failed"
    make_due()
    work()
    assert len(listener.heard) == 2
    assert Subscription.objects.get().enabled


@pytest.mark.parametrize(("status", "failures"), [(410, 0), (500, subscriptions.MOST_FAILURES - 1)])
def test_a_subscription_that_only_refuses_is_disabled_and_the_channel_says_so(
    bob_calls, project, listener, status, failures
):
    told = subscribed(bob_calls, listener.url, "run.*")
    Subscription.objects.update(failures=failures)
    happen(project, "run.failed", "run.failed")
    listener.answers = [status]

    work()
    happen(project, "run.failed")
    make_due()
    work()

    page = bob_calls.get(f"{ALL}/{told['id']}").json()
    assert (page["enabled"], page["disabled_reason"]) == (False, f"answered {status}")
    assert {item["status"] for item in page["deliveries"]} <= {"failed", "delivered"}
    (event,) = Event.objects.filter(kind="subscription.disabled")
    assert (event.channel, event.data["subscription"]) == ("public", told["id"])


def test_one_address_that_fails_does_not_hold_the_others_up(bob_calls, project, listener):
    bad = subscribed(bob_calls, listener.url)
    good = subscribed(bob_calls, listener.url)
    Subscription.objects.filter(id=bad["id"]).update(failures=3)
    happen(project, *["run.failed"] * 30)
    for found in subscriptions.behind(10):
        subscriptions.derive(found)

    chosen = Delivery.objects.filter(id__in=subscriptions.due(timezone.now(), 200))

    assert chosen.filter(subscription_id=bad["id"]).count() == subscriptions.AT_ONCE_FAILING
    assert chosen.filter(subscription_id=good["id"]).count() == subscriptions.AT_ONCE


def test_nobody_listening_is_a_failed_try(bob_calls, project, listener):
    listener.close()
    subscribed(bob_calls, listener.url)
    happen(project, "run.failed")

    work()

    assert Delivery.objects.get().error.startswith("ConnectError")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://localhost:8000/", "http://LOCALHOST./x", "https://10.0.0.8/", "http://169.254.169.254/latest",
     "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://0.0.0.0/", "http://100.64.0.1/", "http://[fd00::1]/",
     "http://db.internal/", "http://224.0.0.1/"],
)  # fmt: skip
def test_a_private_address_is_refused(bob_calls, url):
    refused = problem(bob_calls.post(SUBSCRIBE, {"url": url, "kinds": ["*"]}, content_type=JSON), 422)

    assert refused["errors"][0]["field"] == "url"
    assert "OPENVIBE_WEBHOOK_PRIVATE" in refused["detail"]
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    "url",
    ["ftp://example.com/", "example.com/hook", "http://", "https://user:word@example.com/", "http://example.com:0/",
     "http://example.com:99999/", "http://exa mple.com/", "javascript:alert(1)", "http://[::1", "http://exämple.com/"],
)  # fmt: skip
def test_what_is_no_address_is_refused(bob_calls, url):
    refused = problem(bob_calls.post(SUBSCRIBE, {"url": url, "kinds": ["*"]}, content_type=JSON), 422)

    assert refused["errors"][0]["field"] == "url"


def test_a_name_that_leads_to_a_private_address_is_not_called(bob_calls, project, listener, settings):
    # Whoever owns a name can let it lead here after the check; `localhost` stands in for one.
    told = subscribed(bob_calls, listener.url.replace("127.0.0.1", "localhost"))
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, webhook_private=False)
    happen(project, "run.failed")

    work()

    assert listener.heard == []
    assert "private" in bob_calls.get(f"{ALL}/{told['id']}").json()["deliveries"][0]["error"]


@pytest.mark.parametrize(
    ("address", "public"),
    [("93.184.216.34", True), ("2606:2800:220:1::1", True), ("::ffff:10.0.0.1", False), ("2002:7f00:1::", False),
     ("64:ff9b::a00:1", False), ("64:ff9b::5db8:d822", True), ("192.168.1.1", False), ("fe80::1", False),
     ("240.0.0.1", False), ("ff02::1", False)],
)  # fmt: skip
def test_an_address_is_public_or_not_whatever_it_hides_in(address, public):
    assert endpoints.public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    ("body", "field"),
    [({"kinds": ["*"]}, "url"), ({"url": "https://example.com/"}, "kinds"),
     ({"url": "https://example.com/", "kinds": []}, "kinds"),
     ({"url": "https://example.com/", "kinds": ["Run.*x"]}, "kinds"),
     ({"url": "https://example.com/", "kinds": ["*"], "secret": "short"}, "secret")],
)  # fmt: skip
def test_a_body_that_does_not_fit_names_the_field(bob_calls, body, field):
    refused = problem(bob_calls.post(SUBSCRIBE, body, content_type=JSON), 422)

    assert field in {item["field"].split(".")[0] for item in refused["errors"]}


def test_a_deleted_subscription_is_told_nothing_more(bob_calls, project, listener):
    told = subscribed(bob_calls, listener.url)
    happen(project, "run.failed")

    assert bob_calls.delete(f"{ALL}/{told['id']}").status_code == 204
    work()

    assert listener.heard == []
    problem(bob_calls.delete(f"{ALL}/{told['id']}"), 404)
    assert bob_calls.get(ALL).json() == {"subscriptions": []}


def test_charlie_and_viewers_subscribe_to_nothing_here_and_see_nothing(
    bob_calls, vera_calls, charlie_calls, project, listener
):
    told = subscribed(bob_calls, listener.url)
    his = subscribed(charlie_calls, listener.url)
    for calls in (vera_calls, charlie_calls):
        problem(calls.get(f"{ALL}/{told['id']}"), 404)
        problem(calls.delete(f"{ALL}/{told['id']}"), 404)
    problem(vera_calls.get(ALL), 404)
    problem(vera_calls.post(SUBSCRIBE, {"url": listener.url, "kinds": ["*"]}, content_type=JSON), 404)
    body = {"url": listener.url, "kinds": ["*"], "operator": "company_intel"}
    problem(charlie_calls.post(SUBSCRIBE, body, content_type=JSON), 404)
    assert [item["id"] for item in charlie_calls.get(ALL).json()["subscriptions"]] == [his["id"]]

    happen(project, "run.failed")
    work()

    assert [json.loads(body)["subscription"] for _, body in listener.heard] == [told["id"]]


def test_a_subscription_hears_of_no_run_that_it_may_not_see(bob_calls, charlie_calls, activate, listener):
    subscribed(charlie_calls, listener.url, "event.emitted", "*")
    run_id = activate("company_intel", "query")
    for emission in Emission.objects.all():
        deliveries.deliver(emission.id)
    announced(run_id)

    work()

    assert listener.heard == []
    assert Event.objects.filter(channel="public", run_id=run_id).exists()


def test_a_secret_is_masked_in_every_answer_but_the_first_and_sealed_in_the_database(bob_calls, listener):
    told = subscribed(bob_calls, listener.url, secret="correct horse battery")
    place = f"{ALL}/{told['id']}"
    answers = [bob_calls.get(place), bob_calls.get(ALL), bob_calls.patch(place, {"enabled": True}, content_type=JSON)]
    for answer in answers:
        assert answer.status_code == 200
        assert "correct horse" not in answer.content.decode()
    assert answers[0].json()["secret"] == "•••"
    kept = [str(value) for row in Subscription.objects.values() for value in row.values()]
    assert not any("correct horse" in value for value in kept)
    assert Subscription.objects.get().secret == "correct horse battery"


def test_a_secret_sealed_with_another_key_signs_nothing_and_says_why(bob_calls, project, listener, settings):
    subscribed(bob_calls, listener.url)
    happen(project, "run.completed")
    settings.SECRET_KEY = "another key altogether"
    work()
    assert listener.heard == []
    assert "OPENVIBE_SECRET_KEY" in Delivery.objects.get().error


def test_a_key_that_was_replaced_still_opens_as_a_fallback(bob_calls, project, listener, settings):
    subscribed(bob_calls, listener.url)
    happen(project, "run.completed")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another key altogether", [settings.SECRET_KEY]
    work()
    assert listener.kinds == ["run.completed"]


def test_one_that_was_switched_off_is_switched_on_again_and_told_of_what_follows(bob_calls, project, listener):
    told = subscribed(bob_calls, listener.url)
    place = f"{ALL}/{told['id']}"
    for turn in range(2):
        listener.answers = [410]
        happen(project, "run.started")
        work()
        off = bob_calls.get(place).json()
        assert (off["enabled"], "410" in off["disabled_reason"]) == (False, True)
        happen(project, "run.failed")
        on = bob_calls.patch(place, {"enabled": True}, content_type=JSON).json()
        assert (on["enabled"], on["disabled_reason"], on["failures"]) == (True, "", 0)
        happen(project, "run.completed")
        work()
        assert [json.loads(body)["type"] for _, body in listener.heard][-1] == "run.completed"
        assert len(listener.heard) == 2 * (turn + 1)
    # Each time the general channel was told.
    assert Event.objects.filter(kind="subscription.disabled").count() == 2


def test_one_is_switched_off_by_hand_and_what_was_under_way_waits(bob_calls, project, listener):
    told = subscribed(bob_calls, listener.url)
    place = f"{ALL}/{told['id']}"
    happen(project, "run.completed")
    subscriptions.derive(told["id"])
    off = bob_calls.patch(place, {"enabled": False}, content_type=JSON).json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "bob switched it off")
    work()
    assert listener.heard == []
    bob_calls.patch(place, {"enabled": True}, content_type=JSON)
    work()
    assert listener.kinds == ["run.completed"]


def test_only_members_who_may_change_them_switch_subscriptions(bob_calls, vera_calls, listener):
    place = f"{ALL}/{subscribed(bob_calls, listener.url)['id']}"
    assert vera_calls.patch(place, {"enabled": False}, content_type=JSON).status_code in (403, 404)
    assert bob_calls.patch(place, {"enabled": "perhaps"}, content_type=JSON).status_code == 422
    assert Subscription.objects.get().enabled


def test_an_administrator_switches_one_on_again_and_sees_no_secret(bob_calls, listener, admin_client):
    found = Subscription.objects.get(id=subscribed(bob_calls, listener.url, secret="correct horse battery")["id"])
    Subscription.objects.update(enabled=False, disabled_reason="gone", failures=100)
    page = admin_client.get(f"/admin/operators/subscription/{found.pk}/change/").content.decode()
    assert "gone" in page
    assert "correct horse" not in page
    assert found.sealed_secret not in page
    form = {"action": "enable", "_selected_action": [found.pk]}
    assert admin_client.post("/admin/operators/subscription/", form).status_code == 302
    assert Subscription.objects.get().enabled
