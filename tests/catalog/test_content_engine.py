"""Content Engine: formats by length, channels by format, a schedule that a person agrees to, and the best variant."""

import json

import pytest

from tests.catalog.stage import Run, Stage

POSTS = {"adapted_content": {"social_post": "Post", "blog_summary": "Summary"}}


def variant(name: str) -> dict:
    return {"variant": name, "headline": "H", "body": "B", "cta": "Go", "tone": "calm"}


def marks(name: str, mark: int) -> dict:
    return {"variant": name, "clarity": mark, "resonance": mark, "specificity": mark, "cta": mark, "note": ""}


VARIANTS = {"message_variants": [variant("loss"), variant("gain"), variant("proof")]}


# ── segments ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_segments_are_brought_into_one_form(stage: Stage):
    run = stage.play("content_engine", "segment_research", {"segment_data": [{"name": "A", "x": 1}]}, "An.", "Rep.")
    assert run.output["segment_data"] == [{"name": "A", "size": "unknown", "characteristics": "unknown"}]
    assert run.output["segment_report"] == "Rep."


def test_a_researched_company_stands_for_its_industry(stage: Stage):
    stage.host.put({("companies", "stripe/intel"): {"research": "Payments for the web."}})
    run = stage.play("content_engine", "segment_research", {"company_name": "Stripe"}, "An.", "Rep.")
    [segment] = run.output["segment_data"]
    assert segment["name"] == "Firms like Stripe"
    assert segment["characteristics"] == "Payments for the web."


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def recommended(stage: Stage, *answers) -> dict:
    return stage.play("content_engine", "message_testing", {"topic": "Late"}, *answers).output["recommendation"]


def test_the_variant_with_the_most_points_is_recommended(stage: Stage):
    told = recommended(stage, VARIANTS, {"evaluation": [marks("loss", 3), marks("gain", 9), marks("proof", 5)]})
    assert told["variant"]["variant"] == "gain"


@pytest.mark.parametrize(
    "evaluation",
    [
        {"evaluation": [marks("loss", 5), marks("gain", 5), marks("proof", 5)]},
        {"evaluation": [marks("nobody knows this one", 10)]},
    ],
)
def test_equal_or_foreign_points_recommend_the_first_variant(stage: Stage, evaluation):
    assert recommended(stage, VARIANTS, evaluation)["variant"]["variant"] == "loss"


def test_an_evaluation_that_cannot_be_read_recommends_the_first_variant_and_is_quoted(stage: Stage):
    bad = "Variant two. " * 100
    told = recommended(stage, VARIANTS, bad, bad, bad)
    assert told["variant"]["variant"] == "loss"
    assert told["evaluation"] == bad[:500]


def test_variants_that_cannot_be_read_become_one(stage: Stage):
    two = json.dumps({"message_variants": VARIANTS["message_variants"][:2]})
    told = recommended(stage, two, two, two, {"evaluation": [marks("unsorted", 4)]})
    assert told["variant"]["body"] == two
    assert told["variant"]["headline"] == "Late"


def test_what_the_market_says_goes_into_the_variants(stage: Stage):
    stage.host.put({("market", "all/analysis"): {"patterns": "They fear audits."}})
    run = stage.play("content_engine", "message_testing", {}, VARIANTS, {"evaluation": [marks("loss", 4)]})
    assert "They fear audits." in run.provider.calls[0].user


# ── articles ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_article_is_researched_drafted_and_polished_and_then_told(stage: Stage):
    run = stage.play("content_engine", "content_generation", {"topic": "Audits"}, "Facts.", "Draft.", "Article.")
    assert "Draft." in run.provider.calls[2].user
    [told] = run.events("content_engine.content_generated")
    assert told["polished_content"] == "Article."


def test_an_article_for_a_lead_knows_how_it_was_qualified(stage: Stage):
    stage.host.put({("leads", "c-1/qualification"): {"score": {"reasoning": "Asked for a demo."}}})
    given = {"lead_id": "c-1", "audience": "A partner."}
    run = stage.play("content_engine", "content_generation", given, "Facts.", "Draft.", "Article.")
    assert "Asked for a demo." in run.provider.calls[0].user
    assert "A partner." in run.provider.calls[1].user


# ── formats ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "longer"),
    [
        (200, []),
        (201, ["blog_summary"]),
        (500, ["blog_summary"]),
        (501, ["blog_summary", "newsletter_section"]),
    ],
)
def test_longer_content_gets_more_formats(stage: Stage, words, longer):
    run = stage.play("content_engine", "repurposing", {"source_content": "word " * words})
    assert run.output["content_formats"] == ["social_post", "email_snippet", *longer]
    assert set(run.output["adapted_content"]) == set(run.output["content_formats"])


def test_formats_that_were_asked_for_are_kept(stage: Stage):
    given = {"source_content": "Text", "content_formats": ["podcast"]}
    run = stage.play("content_engine", "repurposing", given, {"adapted_content": {"podcast": "Hello."}})
    assert run.output["adapted_content"] == {"podcast": "Hello."}


def test_formats_that_the_model_left_out_are_pending(stage: Stage):
    run = stage.play(
        "content_engine", "repurposing", {"source_content": "T"}, {"adapted_content": {"social_post": "P"}}
    )
    assert run.output["adapted_content"] == {"social_post": "P", "email_snippet": "(pending)"}


def test_an_adaptation_that_cannot_be_read_is_every_formats_text(stage: Stage):
    bad = "Here you are: a post."
    run = stage.play("content_engine", "repurposing", {"source_content": "T"}, bad, bad, bad)
    assert run.output["adapted_content"] == {"social_post": bad, "email_snippet": bad}


def test_formats_that_nobody_asked_for_are_dropped(stage: Stage):
    answer = {"adapted_content": {"social_post": "P", "email_snippet": "E", "tattoo": "T"}}
    run = stage.play("content_engine", "repurposing", {"source_content": "T"}, answer)
    assert set(run.output["adapted_content"]) == {"social_post", "email_snippet"}


def test_what_was_made_for_a_lead_is_kept_as_its_content_plan(stage: Stage):
    answer = {"adapted_content": {"social_post": "P", "email_snippet": "E"}}
    stage.play("content_engine", "repurposing", {"polished_content": "T", "lead_id": "c-1", "topic": "Audits"}, answer)
    assert stage.host.value("leads", "c-1/content_plan") == {"topic": "Audits", "content": answer["adapted_content"]}
    assert stage.host.value("content", "audits/formats") == answer["adapted_content"]


# ── distribution ─────────────────────────────────────────────────────────────────────────────────────────────────────


def distributed(stage: Stage, values: dict) -> Run:
    return stage.play("content_engine", "distribution", values, "Report.")


def test_posts_go_out_from_eight_hours_on_one_every_four(stage: Stage):
    run = distributed(stage, POSTS).answer("approve")
    assert [tuple(post.values()) for post in run.output["schedule"]] == [
        ("linkedin", "2026-03-02T20:00:00+00:00", "social_post", "scheduled"),
        ("blog", "2026-03-03T00:00:00+00:00", "blog_summary", "scheduled"),
    ]
    assert run.output["distribution_report"] == "Report."


@pytest.mark.parametrize(
    ("values", "channels"),
    [
        ({}, ["linkedin", "email"]),
        ({"adapted_content": {"podcast": "x"}}, ["linkedin", "email"]),
        ({"adapted_content": {"newsletter_section": "x", "social_post": "(pending)"}}, ["newsletter"]),
        ({**POSTS, "channels": ["fax"]}, ["fax"]),
    ],
)
def test_channels_follow_the_formats_that_are_ready(stage: Stage, values, channels):
    assert distributed(stage, values).answer("approve").output["channels"] == channels


def test_a_rejected_schedule_is_reported_with_nothing_scheduled(stage: Stage):
    run = distributed(stage, POSTS).answer("reject", notes="Holiday")
    assert run.output["schedule"] == []
    assert run.output["distribution_report"] == "Report."
    assert "Schedule: none given" in run.provider.calls[0].user
    assert "reject" in run.provider.calls[0].user


def test_an_edited_schedule_is_the_one_that_is_reported(stage: Stage):
    post = {"channel": "email", "scheduled_at": "2026-04-01T09:00:00+00:00", "content_key": "x", "status": "scheduled"}
    run = distributed(stage, POSTS).answer("approve", values={"schedule": [post]})
    assert run.output["schedule"] == [post]
    assert "2026-04-01" in run.provider.calls[0].user


# ── journey ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_stage_gets_its_conversion_rate(stage: Stage):
    given = {"funnel_metrics": {"awareness": 4000, "consideration": 900, "decision": 0, "purchase": 4}}
    told = stage.play("content_engine", "journey_optimization", given).output["funnel_metrics"]
    assert told["conversion_rates"] == {"consideration": 22.5, "decision": 0.0, "purchase": None}
    assert told["period"] == "last_30_days"


@pytest.mark.parametrize("metrics", [{}, {"awareness": "many"}, {"stages": {"awareness": 10, "consideration": 5}}])
def test_missing_and_nested_figures_do_not_stop_it(stage: Stage, metrics):
    run = stage.play("content_engine", "journey_optimization", {"funnel_metrics": metrics}, "Analysis.", "Do this.")
    assert run.output["optimization_recommendations"] == "Do this."
