"""Lead qualification: where each score leads, what an unreadable one means, and who is told."""

import pytest

from tests.catalog.stage import Run, Stage

LEAD = {
    "contact_id": "c-1",
    "company_name": "Linden",
    "segment": "consulting",
    "lead_data": {"role": "Partner"},
}


def scores(fit: float, intent: float, urgency: float, route: str = "sales") -> dict:
    return {"score": {"fit": fit, "intent": intent, "urgency": urgency, "reasoning": "Because.", "route": route}}


def qualified(stage: Stage, *answers) -> Run:
    return stage.play("revenue_ops", "lead_qualification", LEAD, "Profile of the lead.", *answers)


@pytest.mark.parametrize(
    ("fit", "intent", "urgency", "composite", "route"),
    [
        (19, 100, 100, 67.6, "disqualify"),
        (19.99, 100, 100, 67.996, "disqualify"),
        (20, 100, 100, 68, "nurture"),
        (20, 60, 83, 49.75, "education"),
        (49, 49, 49, 49, "education"),
        (50, 50, 50, 50, "nurture"),
        (79, 79, 79, 79, "nurture"),
        (80, 80, 80, 80, "sales"),
        (100, 100, 19, 79.75, "nurture"),
        (100, 100, 100, 100, "sales"),
        (0, 0, 0, 0, "disqualify"),
    ],
)
def test_a_lead_goes_where_its_scores_send_it(stage: Stage, fit, intent, urgency, composite, route):
    run = qualified(stage, scores(fit, intent, urgency))
    assert run.output["route"] == route
    assert run.output["lead_score"] == pytest.approx(composite)


def test_the_scores_decide_and_not_the_models_wish(stage: Stage):
    assert qualified(stage, scores(90, 90, 90, route="disqualify")).output["route"] == "sales"


@pytest.mark.parametrize(
    "answer",
    [
        "I would send this lead to sales!",
        "{",
        '{"score": {"fit": "very", "intent": 1, "urgency": 1, "reasoning": "", "route": "sales"}}',
        '{"score": {"fit": 900, "intent": 1, "urgency": 1, "reasoning": "", "route": "sales"}}',
        '{"score": null}',
        '[{"fit": 90}]',
    ],
)
def test_scores_that_cannot_be_read_send_a_lead_to_education_and_disqualify_nobody(stage: Stage, answer):
    run = qualified(stage, answer, answer, answer)
    assert run.output["route"] == "education"
    assert run.output["lead_score"] == 0
    assert run.output["score"] == {
        "fit": 0, "intent": 0, "urgency": 0, "reasoning": answer, "route": "education", "unparsable": True
    }  # fmt: skip
    assert run.emitted == []


def test_a_model_cannot_call_its_own_scores_unparsable(stage: Stage):
    cheat = scores(5, 5, 5)
    cheat["score"]["unparsable"] = True
    assert qualified(stage, cheat).output["route"] == "disqualify"


@pytest.mark.parametrize(("level", "event"), [(90, "lead_qualified"), (60, "lead_nurture"), (30, None), (10, None)])
def test_others_hear_of_leads_that_go_on(stage: Stage, level, event):
    run = qualified(stage, scores(level, level, level))
    assert [item.name for item in run.emitted] == ([f"revenue_ops.{event}"] if event else [])
    if event:
        told = run.emitted[0].payload
        assert (told["lead_id"], told["contact_id"], told["company_name"]) == ("c-1", "c-1", "Linden")
        assert told["buyer_profile"] == "Profile of the lead."
        assert told["lead_score"] == level


def test_the_qualification_is_kept_for_others(stage: Stage):
    qualified(stage, scores(90, 90, 90))
    kept = stage.host.value("leads", "c-1/qualification")
    assert (kept["route"], kept["lead_score"], kept["company_name"]) == ("sales", 90, "Linden")


def test_what_company_intelligence_knows_goes_into_the_profile(stage: Stage):
    stage.host.put({("companies", "linden/intel"): {"research": "They advise shipyards."}})
    run = qualified(stage, scores(90, 90, 90))
    assert "They advise shipyards." in run.provider.calls[0].user


def test_without_a_crm_nothing_is_pretended(stage: Stage):
    run = qualified(stage, scores(90, 90, 90))
    assert run.output["crm_updated"] is False
    assert [text for text in stage.host.logged if text.startswith("HubSpot is not connected")]
    assert stage.host.effects == {}


def test_the_models_are_asked_as_the_definition_says(stage: Stage):
    calls = qualified(stage, scores(90, 90, 90)).provider.calls
    assert [call.temperature for call in calls] == [0.7, 0.3]
    assert "fit" in str(calls[1].schema)
