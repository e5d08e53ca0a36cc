"""Engagement, nurture, buyer intelligence and deal support: loops, gates, and models that answer badly."""

from datetime import timedelta

import pytest

from tests.catalog.stage import Run, Stage

BUYER = {"buyer_profile": "Dana runs operations.", "contact_id": "c-1", "segment": "consulting"}
TOUCHES = [{"touch": n, "channel": "email", "subject": f"S{n}", "body": f"B{n}", "wait_days": n} for n in (1, 2, 3)]
PERSONAL = [{**touch, "body": f"Dana, {touch['body']}"} for touch in TOUCHES]
DEALS = {
    "active_deals": [
        {"deal_id": "d-1", "customer_name": "Linden", "idle_days": 20},
        {"deal_id": "d-2", "customer_name": "Harbour", "idle_days": 1},
    ]
}


def engaged(stage: Stage, *answers) -> Run:
    return stage.play("revenue_ops", "engagement", BUYER, "Notes.", *answers)


def nurtured(stage: Stage, values: dict, *scores: float) -> Run:
    """Play a nurture sequence in which the touches give these scores."""
    touches = [
        {"touch_content": f"Touch at {score}", "touch_channel": "email", "lead_score": score} for score in scores
    ]
    given = {"contact_id": "c-1", "lead_score": 30, "touch_interval_days": 0.00001, **values}
    return stage.play("revenue_ops", "nurture_sequence", given, "Explain the problem.", *touches)


# ── engagement ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_outreach_waits_for_a_person_and_ends_as_it_was_edited(stage: Stage):
    run = engaged(stage, {"outreach_sequence": TOUCHES}, {"personalized_sequence": PERSONAL})
    assert run.gate.prompt == "Send this outreach to the buyer?"
    assert run.gate.payload == {"personalized_sequence": PERSONAL}
    edited = [{**PERSONAL[0], "body": "Dana, hello."}]
    run.answer("approve", values={"personalized_sequence": edited})
    assert run.output["final_plan"] == {
        "contact_id": "c-1", "segment": "consulting", "sequence": edited, "status": "ready"
    }  # fmt: skip


def test_rejected_outreach_fails_the_run_with_the_reason(stage: Stage):
    run = engaged(stage, {"outreach_sequence": TOUCHES}, {"personalized_sequence": PERSONAL})
    assert run.answer("reject", notes="Too pushy").error == "Rejected at review_sequence: Too pushy"


@pytest.mark.parametrize("bad", ["Write them a mail.", '{"outreach_sequence": []}', '{"outreach_sequence": "x"}'])
def test_a_sequence_that_cannot_be_read_becomes_a_single_mail(stage: Stage, bad):
    run = engaged(stage, bad, bad, bad, {"personalized_sequence": PERSONAL[:1]})
    [touch] = run.answer("approve").output["outreach_sequence"]
    assert (touch["touch"], touch["channel"], touch["body"]) == (1, "email", bad)


def test_a_personalisation_that_cannot_be_read_leaves_the_sequence_unchanged(stage: Stage):
    run = engaged(stage, {"outreach_sequence": TOUCHES}, "nice!", "nice!", "nice!")
    assert run.answer("approve").output["personalized_sequence"] == TOUCHES


def test_content_that_was_made_for_the_buyer_is_known_to_the_research(stage: Stage):
    stage.host.put({("leads", "c-1/content_plan"): {"topic": "Late time sheets"}})
    run = engaged(stage, {"outreach_sequence": TOUCHES}, {"personalized_sequence": PERSONAL})
    assert "Late time sheets" in run.provider.calls[0].user


# ── nurture ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("score", "stage_name"),
    [
        (0, "educational"),
        (39.9, "educational"),
        (40, "solution_aware"),
        (59.9, "solution_aware"),
        (60, "product_aware"),
        (79.9, "product_aware"),
        (80, "decision_ready"),
    ],
)
def test_the_score_decides_the_stage_of_the_first_touch(stage: Stage, score, stage_name):
    run = nurtured(stage, {"lead_score": score, "max_touches": 1}, 10)
    assert run.output["touch_history"][0]["stage"] == stage_name


def test_a_lead_is_touched_until_the_touches_are_used_up(stage: Stage):
    run = nurtured(stage, {"max_touches": 3}, 35, 45, 65)
    assert run.output["route"] == "complete"
    assert run.output["touches_completed"] == 3
    assert [touch["touch_number"] for touch in run.output["touch_history"]] == [1, 2, 3]
    assert [touch["stage"] for touch in run.output["touch_history"]] == ["educational", "educational", "solution_aware"]
    assert run.steps.count("generate_touch") == 3
    assert run.rests == [timedelta(days=0.00001)] * 2
    assert run.steps[-1] == "complete"


def test_between_touches_the_run_sleeps_three_days_unless_told(stage: Stage):
    given = {"contact_id": "c-1", "lead_score": 30, "max_touches": 2}
    touch = {"touch_content": "x", "touch_channel": "email", "lead_score": 30}
    assert stage.play("revenue_ops", "nurture_sequence", given, "a", touch, touch).rests == [timedelta(days=3)]


@pytest.mark.parametrize(("score", "opens"), [(79, False), (80, True)])
def test_a_score_of_80_opens_the_gate(stage: Stage, score, opens):
    run = nurtured(stage, {"max_touches": 1}, score)
    if not opens:
        assert run.output["route"] == "complete"
        return
    assert run.gate.decisions == ["handoff_to_sales", "continue", "archive"]
    assert run.gate.payload["escalation_reason"] == "The score reached 80."
    assert len(run.gate.payload["touch_history"]) == 1


def test_a_lead_handed_to_sales_ends_the_sequence_and_is_told(stage: Stage):
    run = nurtured(stage, {}, 35, 85).answer("handoff_to_sales")
    assert (run.output["route"], run.output["sales_review"]) == ("escalate", "handoff_to_sales")
    assert run.steps[-1] == "escalate"
    [told] = run.events("revenue_ops.lead_qualified")
    assert (told["lead_id"], told["lead_score"]) == ("c-1", 85)


def test_a_lead_that_is_archived_ends_the_sequence_and_tells_nobody(stage: Stage):
    run = nurtured(stage, {}, 85).answer("archive")
    assert run.output["route"] == "complete"
    assert run.steps[-1] == "complete"
    assert run.emitted == []


def test_a_lead_that_goes_on_sleeps_and_gets_the_next_touch(stage: Stage):
    run = nurtured(stage, {"max_touches": 2}, 85, 50).answer("continue")
    assert run.steps[-4:] == ["generate_touch", "record_touch", "evaluate", "complete"]
    assert run.output["touches_completed"] == 2
    assert run.output["touch_history"][1]["stage"] == "decision_ready"
    assert len(run.rests) == 1


def test_a_gate_that_is_always_answered_with_continue_does_not_loop_for_ever(stage: Stage):
    run = nurtured(stage, {"max_touches": 2}, 90, 90, 90)
    run.answer("continue").answer("continue")
    assert run.output["route"] == "complete"
    assert run.output["touches_completed"] == 3


def test_a_touch_that_cannot_be_read_is_sent_as_it_is_and_moves_no_score(stage: Stage):
    given = {"contact_id": "c-1", "lead_score": 42, "max_touches": 1}
    bad = '{"touch_content": "hi", "touch_channel": "pigeon", "lead_score": 4000}'
    run = stage.play("revenue_ops", "nurture_sequence", given, "Assessment.", bad, bad, bad)
    assert run.output["lead_score"] == 42
    assert run.output["touch_history"] == [
        {"touch_number": 1, "stage": "solution_aware", "channel": "email", "preview": bad[:100]}
    ]


def test_a_preview_has_at_most_100_characters(stage: Stage):
    long = {"touch_content": "x" * 300, "touch_channel": "phone", "lead_score": 1}
    given = {"contact_id": "c-1", "max_touches": 1}
    run = stage.play("revenue_ops", "nurture_sequence", given, "Assessment.", long)
    assert run.output["touch_history"][0]["preview"] == "x" * 100


# ── buyer intelligence ───────────────────────────────────────────────────────────────────────────────────────────────


def test_given_signals_are_analysed_as_they_are(stage: Stage):
    run = stage.play("revenue_ops", "buyer_intelligence", {"signals": ["A", "B"]}, "Analysis.", "Brief.")
    assert run.output["signals"] == ["A", "B"]
    assert run.output["brief"] == "Brief."


def test_without_signals_the_first_five_deals_and_scores_stand_for_them(stage: Stage):
    deals, scores = [{"deal_id": f"d-{n}"} for n in range(7)], [{"lead": f"l-{n}"} for n in range(7)]
    given = {"active_deals": deals, "recent_scores": scores}
    signals = stage.play("revenue_ops", "buyer_intelligence", given, "Analysis.", "Brief.").output["signals"]
    assert len(signals) == 10
    assert "d-4" in signals[4]
    assert "l-4" in signals[9]


def test_scores_come_from_earlier_qualifications_when_none_are_given(stage: Stage):
    stage.host.put({("leads", "c-9/qualification"): {"lead_score": 77}, ("leads", "c-9/content_plan"): {}})
    run = stage.play("revenue_ops", "buyer_intelligence", {}, "Analysis.", "Brief.")
    [signal] = run.output["signals"]
    assert "c-9" in signal
    assert "77" in signal


# ── deal support ─────────────────────────────────────────────────────────────────────────────────────────────────────


def risk(deal_id: str, level: str) -> dict:
    return {"deal_id": deal_id, "level": level, "factors": ["stalled: 20 days", "one contact"]}


def supported(stage: Stage, *answers) -> Run:
    return stage.play("revenue_ops", "deal_support", DEALS, *answers, "Call Linden.")


def test_deals_at_high_risk_are_told_and_the_actions_wait_for_a_person(stage: Stage):
    run = supported(stage, {"risk_assessment": [risk("d-1", "high"), risk("d-2", "low")]})
    assert run.gate.payload == {"actions": "Call Linden."}
    run.answer("approve", values={"actions": "Visit Linden."})
    assert (run.output["actions"], run.output["review_actions"]) == ("Visit Linden.", "approve")
    assert run.events("revenue_ops.deal_at_risk") == [
        {"deal_id": "d-1", "customer_name": "Linden", "reason": "stalled: 20 days; one contact"}
    ]


def test_rejected_actions_end_the_run_without_failing_it(stage: Stage):
    run = supported(stage, {"risk_assessment": [risk("d-1", "low")]}).answer("reject", notes="Not today")
    assert run.output["review_actions"] == "reject"
    assert run.emitted == []


@pytest.mark.parametrize(
    "bad",
    [
        "All is lost.",
        '{"risk_assessment": [{"deal_id": "d-99", "level": "high", "factors": []}]}',
        '{"risk_assessment": [{"deal_id": "d-1", "level": "doomed", "factors": []}]}',
    ],
)
def test_an_assessment_that_cannot_be_read_alarms_nobody(stage: Stage, bad):
    run = supported(stage, bad, bad, bad).answer("approve")
    assert run.output["risk_assessment"] == [
        {"deal_id": deal_id, "level": "unknown", "factors": [bad]} for deal_id in ("d-1", "d-2")
    ]
    assert run.events("revenue_ops.deal_at_risk") == []


def test_at_most_twenty_deals_are_assessed_with_the_health_of_their_accounts(stage: Stage):
    stage.host.put({("accounts", "firm 3/health"): {"level": "critical"}})
    deals = [{"customer_name": f"Firm {n}"} for n in range(30)]
    run = stage.play("revenue_ops", "deal_support", {"active_deals": deals}, {"risk_assessment": []}, "None.")
    asked = run.provider.calls[0].user
    assert "Firm 19" in asked
    assert "Firm 20" not in asked
    assert "critical" in asked
    assert run.answer("approve").output["active_deals"][29]["deal_id"] == "deal-30"


def test_no_deals_means_no_alarm_even_when_the_model_sees_some(stage: Stage):
    run = stage.play("revenue_ops", "deal_support", {}).answer("approve")
    assert run.events("revenue_ops.deal_at_risk") == []
