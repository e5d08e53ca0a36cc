"""Company Intelligence: the quality it decides on, however the model answers, and what it leaves for others."""

import pytest

from openvibe.llm.simulated import SimulatedProvider
from tests.catalog.stage import WORKFLOWS, Stage

PLACE = ("company_intel", "research")
STRIPE = {"company_name": "Stripe"}
ANALYSIS = {"prospect_quality": "high", "reasoning": "Large.", "pain_points": ["fees"], "approach_angle": "Ask."}


def test_the_quality_that_the_analysis_names_is_reported(stage: Stage):
    run = stage.play(*PLACE, STRIPE, "Payments.", {"analysis": ANALYSIS})
    assert run.output["prospect_quality"] == "high"
    assert run.output["completed"] is True
    for part in ("Stripe", "high", "Payments.", "Large.", "- fees"):
        assert part in run.output["report"]


@pytest.mark.parametrize(
    ("answer", "quality"),
    [
        ("A HIGH quality prospect, I would say.", "high"),
        ("Low. They buy nothing.", "low"),
        ("Who knows?", "medium"),
        ('{"analysis": {"prospect_quality": "splendid", "reasoning": "x"}}', "medium"),
    ],
)
def test_an_answer_that_is_no_analysis_is_read_for_its_words(stage: Stage, answer: str, quality: str):
    run = stage.play(*PLACE, STRIPE, "Payments.", answer, answer, answer)
    assert run.output["prospect_quality"] == quality
    assert answer in run.output["report"]


def test_a_model_that_mends_its_answer_is_believed(stage: Stage):
    run = stage.play(*PLACE, STRIPE, "Payments.", "high!", {"analysis": {**ANALYSIS, "prospect_quality": "low"}})
    assert run.output["prospect_quality"] == "low"
    assert "Your last answer was:\nhigh!" in run.provider.calls[-1].user


def test_what_is_known_is_left_for_others_under_the_companys_name(stage: Stage):
    stage.play(*PLACE, {"company_name": "  Acme   Corp "}, "Anvils.", {"analysis": ANALYSIS})
    intel = stage.host.value("companies", "acme corp/intel")
    assert intel["research"] == "Anvils."
    assert intel["prospect_quality"] == "high"


def test_it_serves_research_to_other_operators():
    assert WORKFLOWS[PLACE].spec.capabilities == ("research",)


def test_its_end_is_told_with_its_output(stage: Stage):
    run = stage.play(*PLACE, STRIPE, "Payments.", {"analysis": ANALYSIS})
    assert run.events("company_intel.research_complete") == [run.output]


def test_the_simulated_model_answers_within_the_form(stage: Stage):
    run = stage.play(*PLACE)
    assert isinstance(run.provider, SimulatedProvider)
    assert "text" not in run.output["analysis"]
    assert run.output["prospect_quality"] == run.output["analysis"]["prospect_quality"]
