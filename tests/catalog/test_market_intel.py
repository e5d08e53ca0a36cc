"""Market Intelligence: figures that are computed and not guessed, and answers that name what is missing."""

import pytest

from tests.catalog.stage import Stage


def test_the_funnels_rates_are_per_cent_of_the_stage_before(stage: Stage):
    given = {"funnel_metrics": {"leads": 400, "mqls": 120, "sqls": 48, "deals": 12}}
    run = stage.play("market_intel", "funnel_monitor", given, "No anomaly.", "All well.")
    told = run.output["funnel_metrics"]
    assert (told["lead_to_mql"], told["mql_to_sql"], told["sql_to_deal"]) == (30.0, 40.0, 25.0)
    assert run.output["funnel_brief"] == "All well."


def test_a_rate_of_nothing_is_no_rate(stage: Stage):
    told = stage.play("market_intel", "funnel_monitor", {"funnel_metrics": {"mqls": 3}}).output["funnel_metrics"]
    assert (told["lead_to_mql"], told["mql_to_sql"], told["sql_to_deal"]) == (None, 0.0, None)


@pytest.mark.parametrize(
    ("name", "weighted"),
    [("discovery", 10), ("Proposal", 30), ("negotiation", 60), ("closing", 80), ("somewhere", 10)],
)
def test_a_deal_weighs_what_its_stage_makes_of_it(stage: Stage, name, weighted):
    given = {"deals": [{"stage": name, "value": 100, "days_in_stage": 1}]}
    [deal] = stage.play("market_intel", "deal_risk_forecast", given).output["deals"]
    assert deal["weighted_value"] == weighted


@pytest.mark.parametrize(("days", "stale"), [(30, False), (31, True), (None, False)])
def test_a_deal_is_stale_after_thirty_days_in_its_stage(stage: Stage, days, stale):
    given = {"deals": [{"stage": "proposal", "days_in_stage": days}]}
    [deal] = stage.play("market_intel", "deal_risk_forecast", given).output["deals"]
    assert deal["is_stale"] is stale


def test_the_forecast_rests_on_deals_and_risks(stage: Stage):
    given = {"deals": [{"customer_name": "Linden", "stage": "closing", "value": 100}]}
    run = stage.play("market_intel", "deal_risk_forecast", given, "Low risk.", "80 expected.", "Headline: 80.")
    assert "Low risk." in run.provider.calls[1].user
    assert "80 expected." in run.provider.calls[2].user
    assert run.output["forecast_report"] == "Headline: 80."


def test_transcripts_get_an_id_and_a_count_of_words_where_they_lack_them(stage: Stage):
    given = {"transcripts": [{"text": "We close by hand"}, {"id": "x", "text": "a b", "word_count": 99}]}
    run = stage.play("market_intel", "conversation_analysis", given, "Patterns.", "Summary.")
    assert run.output["transcripts"] == [
        {"id": "transcript-1", "word_count": 4, "text": "We close by hand"},
        {"id": "x", "word_count": 99, "text": "a b"},
    ]


def test_what_conversations_say_is_kept_for_the_segment_and_told(stage: Stage):
    given = {"transcripts": [{"text": "x"}], "segment_id": "Boutiques"}
    run = stage.play("market_intel", "conversation_analysis", given, "They fear audits.", "Summary.")
    assert stage.host.value("market", "boutiques/analysis") == {"patterns": "They fear audits.", "conversations": 1}
    [told] = run.events("market_intel.analysis_complete")
    assert (told["analysis_kind"], told["segment_id"]) == ("conversations", "Boutiques")


def test_a_question_is_answered_from_the_given_data(stage: Stage):
    given = {"question": "Won?", "query_results": {"deals_won": 9}}
    run = stage.play("market_intel", "nl_query", given, "Metric: won.", "Nine.", "We won nine.")
    assert '"deals_won": 9' in run.provider.calls[1].user
    assert run.output["answer"] == "We won nine."


def test_without_data_the_model_is_told_that_no_source_is_connected(stage: Stage):
    run = stage.play("market_intel", "nl_query", {"question": "Won?"}, "Metric: won.", "Nothing.", "I cannot tell.")
    assert "No live data source is connected." in run.provider.calls[1].user
