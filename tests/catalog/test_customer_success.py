"""Customer Success: welcomes that a person agreed to, health and its risks, and alerts that are never pretended."""

import pytest

from tests.catalog.stage import Run, Stage

FIRM = {"customer_id": "company-7", "customer_name": "Linden", "customer_email": "a@example.com"}


def health(status: str) -> dict:
    return {"health_score": {"status": status, "score": 50, "factors": ["few logins"], "trend": "falling"}}


def monitored(stage: Stage, *answers) -> Run:
    return stage.play("customer_success", "health_monitoring", {"customer_name": "Linden"}, *answers)


# ── onboarding ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_and_four_pending_milestones_wait_for_a_person(stage: Stage):
    run = stage.play("customer_success", "onboarding", FIRM, "Week 1: set up.")
    assert run.gate.prompt == "Send this welcome and plan to the customer?"
    assert run.gate.payload["onboarding_plan"] == "Week 1: set up."
    assert [(item["week"], item["status"]) for item in run.gate.payload["milestones"]] == [
        (week, "pending") for week in (1, 2, 3, 4)
    ]
    assert run.gate.escalate_to == "owner"


def test_without_a_mail_server_no_welcome_is_pretended(stage: Stage):
    run = stage.play("customer_success", "onboarding", FIRM, "Plan.").answer("approve")
    assert run.output["welcome_sent"] is False
    assert any(text.startswith("Mail is not connected") for text in stage.host.logged)


def test_a_lead_that_is_no_customer_yet_gets_a_plan_and_no_welcome(stage: Stage):
    run = stage.play("customer_success", "onboarding", {**FIRM, "deal_stage": "qualified"}, "Plan.").answer("approve")
    assert run.output["welcome_sent"] is False
    assert any("not won yet" in text for text in stage.host.logged)


def test_a_rejected_welcome_fails_the_run_with_the_reason(stage: Stage):
    run = stage.play("customer_success", "onboarding", FIRM, "Plan.").answer("reject", notes="Wrong firm")
    assert run.error == "Rejected at review_welcome: Wrong firm"


# ── health ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("status", "level"), [("healthy", None), ("at-risk", "warning"), ("critical", "critical")])
def test_a_status_becomes_a_risk(stage: Stage, status, level):
    risks = monitored(stage, health(status)).output["risks"]
    assert risks == ([{"customer_name": "Linden", "level": level}] if level else [])


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        ("This account is CRITICAL.", "critical"),
        ("They are at risk, and critical.", "critical"),
        ("Status: At-Risk", "warning"),
        ("Doing fine.", None),
        ('{"health_score": {"status": "dead"}}', None),
    ],
)
def test_an_answer_in_prose_is_read_for_its_words(stage: Stage, answer, level):
    risks = monitored(stage, answer, answer, answer).output["risks"]
    assert [item["level"] for item in risks] == ([level] if level else [])


def test_a_healthy_customer_with_a_critical_word_in_its_factors_is_no_risk(stage: Stage):
    told = health("healthy")
    told["health_score"]["factors"] = ["no critical tickets"]
    assert monitored(stage, told).output["risks"] == []


def test_a_change_of_level_is_told_once(stage: Stage):
    name = "customer_success.health_changed"
    assert len(monitored(stage, health("critical")).events(name)) == 1
    assert monitored(stage, health("critical")).events(name) == []
    assert [item["level"] for item in monitored(stage, health("healthy")).events(name)] == ["none"]
    assert stage.host.value("accounts", "linden/health")["level"] == "none"


# ── accounts, usage, voice ───────────────────────────────────────────────────────────────────────────────────────────


def test_accounts_are_seen_with_what_others_know_of_them(stage: Stage):
    stage.host.put({("companies", "linden/intel"): {"research": "Shipyards."}})
    given = {"accounts": [{"customer_name": "Linden"}, {"customer_name": "Other"}]}
    run = stage.play("customer_success", "success_advisory", given, "Actions.", "Playbooks.")
    assert run.output["accounts"] == [
        {"customer_name": "Linden", "research": {"research": "Shipyards."}}, {"customer_name": "Other"}
    ]  # fmt: skip
    assert run.output["playbooks"] == "Playbooks."


@pytest.mark.parametrize(
    ("workflow", "field"),
    [
        ("success_advisory", "accounts"),
        ("health_monitoring", "health_signals"),
        ("expansion_scan", "usage_data"),
        ("customer_voice", "feedback"),
    ],
)
def test_what_was_not_given_is_marked_as_a_placeholder(stage: Stage, workflow, field):
    assert "placeholder" in str(stage.play("customer_success", workflow, {}).output[field])


def test_proposals_rest_on_the_opportunities(stage: Stage):
    given = {"customer_name": "Linden", "usage_data": {"seats": 5}}
    run = stage.play("customer_success", "expansion_scan", given, "More seats.", "Propose 10.")
    assert "More seats." in run.provider.calls[1].user
    assert run.output["proposals"] == "Propose 10."


def test_the_voice_report_rests_on_the_themes(stage: Stage):
    given = {"feedback": [{"source": "ticket", "text": "Export!"}]}
    run = stage.play("customer_success", "customer_voice", given, "Exports.", "Fix exports.")
    assert "Export!" in run.provider.calls[0].user
    assert run.output["voice_report"] == "Fix exports."


# ── urgent review ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deal_at_risk_is_assessed_with_its_health_and_nobody_is_said_to_be_alerted(stage: Stage):
    stage.host.put({("accounts", "linden/health"): {"level": "critical", "health": {"factors": ["sponsor left"]}}})
    given = {"customer_name": "Linden", "deal_id": "d-1", "reason": "stalled"}
    run = stage.play("customer_success", "urgent_review", given, "Severity: critical.", "Call now.")
    assert "sponsor left" in run.provider.calls[0].user
    assert [call.temperature for call in run.provider.calls] == [0.3, 0.3]
    assert run.output["recommendation"] == "Call now."
    assert run.output["alert_sent"] is False
    assert any(text.startswith("Slack is not connected") for text in stage.host.logged)
