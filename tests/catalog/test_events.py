"""Events between operators: each one starts those who wait for it, with input that they can work with."""

import pytest

from openvibe.outcomes import Completed, Emission, Failed
from tests.catalog.stage import Run, Stage

SCORES = {"fit": 90, "intent": 90, "urgency": 90, "reasoning": "Because.", "route": "sales"}


def heard(stage: Stage, run: Run, name: str) -> dict[str, Run]:
    [emission] = [item for item in run.emitted if item.name == name]
    return {f"{found.operator}.{found.workflow}": found for found in stage.deliver(emission)}


def test_research_on_a_company_is_used_by_sales_content_and_success(stage: Stage):
    run = stage.play("company_intel", "research", {"company_name": "Linden"})
    found = heard(stage, run, "company_intel.research_complete")
    assert set(found) == {
        "revenue_ops.lead_qualification", "content_engine.segment_research", "customer_success.success_advisory"
    }  # fmt: skip
    assert found["revenue_ops.lead_qualification"].output["company_name"] == "Linden"
    [segment] = found["content_engine.segment_research"].output["segment_data"]
    assert (segment["name"], segment["characteristics"]) == ("Firms like Linden", run.output["research"])
    [account] = found["customer_success.success_advisory"].output["accounts"]
    assert account["research"]["research"] == run.output["research"]


def test_a_qualified_lead_starts_outreach_content_and_the_preparation_of_its_onboarding(stage: Stage):
    given = {"contact_id": "c-1", "company_name": "Linden", "lead_data": {"role": "Partner"}}
    run = stage.play("revenue_ops", "lead_qualification", given, "A partner.", {"score": SCORES})
    found = heard(stage, run, "revenue_ops.lead_qualified")
    assert set(found) == {
        "revenue_ops.engagement", "content_engine.content_generation", "customer_success.onboarding"
    }  # fmt: skip
    plan = found["revenue_ops.engagement"].answer("approve").output["final_plan"]
    assert plan["contact_id"] == "c-1"
    assert found["content_engine.content_generation"].output["audience"] == "A partner."
    onboarding = found["customer_success.onboarding"].answer("approve").output
    assert (onboarding["customer_name"], onboarding["welcome_sent"]) == ("Linden", False)


def test_content_for_a_lead_travels_to_its_plan_and_on_to_the_next_outreach(stage: Stage):
    article = stage.play("content_engine", "content_generation", {"lead_id": "c-1", "topic": "Audits"})
    [adapted] = heard(stage, article, "content_engine.content_generated").values()
    assert adapted.output["source_content"] == article.output["polished_content"]
    [distribution] = heard(stage, adapted, "content_engine.content_repurposed").values()
    assert distribution.answer("approve").output["channels"] == ["linkedin", "email"]
    assert stage.host.value("leads", "c-1/content_plan")["topic"] == "Audits"


def test_a_lead_to_be_nurtured_is_nurtured(stage: Stage):
    given = {"contact_id": "c-1", "company_name": "Linden", "lead_data": {"role": "Partner"}}
    middling = {"score": {**SCORES, "fit": 60, "intent": 60, "urgency": 60}}
    run = stage.play("revenue_ops", "lead_qualification", given, "A partner.", middling)
    [nurture] = heard(stage, run, "revenue_ops.lead_nurture").values()
    assert nurture.workflow == "nurture_sequence"
    assert nurture.steps[:3] == ["assess", "generate_touch", "record_touch"]
    assert not isinstance(nurture.outcome, Failed)


def test_a_deal_at_risk_is_reviewed_at_once(stage: Stage):
    told = {"deal_id": "d-1", "customer_name": "Linden", "reason": "stalled"}
    [review] = stage.deliver(Emission("revenue_ops.deal_at_risk", told, ""))
    assert (review.operator, review.workflow) == ("customer_success", "urgent_review")
    assert isinstance(review.outcome, Completed)


@pytest.mark.parametrize(
    ("workflow", "listener"), [("conversation_analysis", "message_testing"), ("funnel_monitor", "journey_optimization")]
)
def test_each_analysis_of_the_market_reaches_the_content_that_it_is_about(stage: Stage, workflow, listener):
    run = stage.play("market_intel", workflow)
    [found] = heard(stage, run, "market_intel.analysis_complete").values()
    assert (found.operator, found.workflow) == ("content_engine", listener)
    assert isinstance(found.outcome, Completed)
