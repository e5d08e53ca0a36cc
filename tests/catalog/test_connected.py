"""Operators with a CRM, a mail server and Slack: local servers that answer as the real ones do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openvibe.contrib import hubspot
from openvibe.outcomes import Paused
from tests.catalog.stage import Run, Stage
from tests.threads import serving
from tests.unit.test_email import FakeMailServer
from tests.unit.test_hubspot import FakeHubSpot
from tests.unit.test_slack import FakeSlack

CUSTOMER = {"customer_id": "7", "customer_name": "Linden", "customer_email": "dana@example.com"}


@pytest.fixture
def crm(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHubSpot]:
    with serving(FakeHubSpot()) as server:
        monkeypatch.setenv("HUBSPOT_TOKEN", "pat-1")
        monkeypatch.setenv("HUBSPOT_BASE_URL", server.url)
        yield server
        client = hubspot.from_environment()
        assert client is not None
        client.close()


@pytest.fixture
def slack(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlack]:
    with serving(FakeSlack()) as server:
        monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-1")
        monkeypatch.setenv("SLACK_BASE_URL", server.url)
        yield server


@pytest.fixture
def mail(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMailServer]:
    with serving(FakeMailServer(None, implicit=False)) as server:
        settings = {"HOST": "127.0.0.1", "PORT": str(server.port), "SENDER": "Ops <ops@example.com>", "TLS": "none"}
        for name, value in settings.items():
            monkeypatch.setenv(f"SMTP_{name}", value)
        yield server


def qualified(stage: Stage, contact_id: str) -> Run:
    score = {"fit": 90, "intent": 80, "urgency": 70, "reasoning": "Because.", "route": "sales"}
    given = {"contact_id": contact_id, "company_name": "Linden"}
    return stage.play("revenue_ops", "lead_qualification", given, "A partner.", {"score": score})


def test_a_lead_is_read_from_the_crm_and_written_back_once(stage: Stage, crm: FakeHubSpot):
    run = qualified(stage, "101")
    assert "ada@example.com" in run.provider.calls[0].user
    assert run.output["crm_updated"] is True
    assert crm.contacts["101"]["hs_lead_status"] == "SALES"
    assert crm.contacts["101"]["lead_score"] == 81.5
    assert [method for method, _, _ in crm.requests] == ["GET", "PATCH"]
    [effect] = stage.host.effects.values()
    assert effect.state == "confirmed"


def test_a_company_that_only_the_crm_knows_is_looked_up_and_told(stage: Stage, crm: FakeHubSpot):
    crm.contacts["101"]["company"] = "Linden"
    stage.host.put({("companies", "linden/intel"): {"research": "They advise shipyards."}})
    score = {"fit": 90, "intent": 90, "urgency": 90, "reasoning": "Because.", "route": "sales"}
    given = {"contact_id": "101"}
    run = stage.play("revenue_ops", "lead_qualification", given, "A partner.", {"score": score})
    assert "They advise shipyards." in run.provider.calls[0].user
    [told] = run.events("revenue_ops.lead_qualified")
    assert told["company_name"] == "Linden"


def test_a_lead_without_a_contact_touches_no_crm(stage: Stage, crm: FakeHubSpot):
    assert qualified(stage, "").output["crm_updated"] is False
    assert crm.requests == []


def test_an_unknown_contact_fails_the_run_and_names_the_crm(stage: Stage, crm: FakeHubSpot):
    assert "HubSpot" in qualified(stage, "999").error


def test_a_crm_that_is_busy_is_asked_again_and_then_given_up(stage: Stage, crm: FakeHubSpot):
    crm.refusal = (503, {"retry-after": "0"}, "busy")
    run = stage.play("revenue_ops", "deal_support", {})
    assert "HubSpot" in run.error
    assert len(crm.requests) == 3


def test_open_deals_come_from_the_crm(stage: Stage, crm: FakeHubSpot):
    run = stage.play("revenue_ops", "deal_support", {"active_deals": [{"deal_id": "given"}]}).answer("approve")
    assert [deal["deal_id"] for deal in run.output["active_deals"]] == ["7", "9"]
    assert crm.requests[0][2]["limit"] == 50


def test_an_approved_welcome_is_mailed_to_the_customer(stage: Stage, mail: FakeMailServer):
    run = stage.play("customer_success", "onboarding", CUSTOMER, "Week 1: set up.").answer("approve")
    assert run.output["welcome_sent"] is True
    [(_, receivers, message)] = mail.mails
    assert receivers == ["dana@example.com"]
    assert message["Subject"] == "Welcome, Linden: your first 30 days"
    assert "Week 1: set up." in message.get_content()


@pytest.mark.parametrize("change", [{"customer_email": ""}, {"deal_stage": "qualified"}])
def test_who_has_no_address_or_is_no_customer_yet_gets_no_mail(stage: Stage, mail: FakeMailServer, change):
    run = stage.play("customer_success", "onboarding", {**CUSTOMER, **change}, "Plan.").answer("approve")
    assert run.output["welcome_sent"] is False
    assert mail.mails == []


def test_a_mail_whose_fate_is_unknown_is_not_sent_again_by_itself(stage: Stage, mail: FakeMailServer):
    mail.replies["DATA"] = ""
    run = stage.play("customer_success", "onboarding", CUSTOMER, "Plan.").answer("approve")
    assert isinstance(run.outcome, Paused)
    assert "effect 'mail'" in run.outcome.waits[0].request.prompt


def test_the_team_is_alerted_in_its_channel(stage: Stage, slack: FakeSlack):
    given = {"customer_name": "Linden", "deal_id": "d-1", "reason": "stalled"}
    run = stage.play("customer_success", "urgent_review", given, "Critical.", "Call now.")
    assert run.output["alert_sent"] is True
    [message] = slack.messages
    assert message["channel"] == "#cs-agents"
    assert "Linden" in message["text"]
    assert "Call now." in message["text"]
