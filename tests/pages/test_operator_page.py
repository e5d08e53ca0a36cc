"""An operator's page: what starts each workflow, what it tells others, and its nodes in order."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django_celery_beat.models import PeriodicTask

from agents_ui import crons, outlines, triggers
from operators.models import Node, Operator, Project, Workflow
from operators.services import schedule
from tests.pages.conftest import Browse

pytestmark = pytest.mark.django_db
Village = dict[str, Operator]


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("0 7 * * *", "Every day at 07:00"),
        ("30 9,17 * * *", "Every day at 09:30 and 17:30"),
        ("0 7 * * 1-5", "Monday to Friday at 07:00"),
        ("0 7 * * MON,THU", "On Monday and Thursday at 07:00"),
        ("0 7 * * 0,6", "On Saturday and Sunday at 07:00"),
        ("0 9 1 * *", "On day 1 of every month at 09:00"),
        ("0 9 1 1,7 *", "On day 1 of the month in January and July at 09:00"),
        ("0 9 * 8 *", "Every day in August at 09:00"),
        ("* * * * *", "Every minute"),
        ("*/15 * * * *", "Every 15 minutes"),
        ("*/15 * * * 1-5", "Every 15 minutes, Monday to Friday"),
        ("5 * * * *", "Every hour at :05"),
        ("0 * * * *", "Every hour"),
        ("0 9-17 * * *", ""),
        ("1,2,5 * * * *", ""),
        ("0 9 1 * 1", ""),
        ("no cron", ""),
    ],
)
def test_a_schedule_is_told_in_words_where_words_are_clearer(cron: str, words: str) -> None:
    assert crons.words(cron) == words


@pytest.mark.parametrize(
    ("trigger", "starts", "started"),
    [
        ("on_demand", "Started by hand", "by hand"),
        ("cron:0 9-17 * * *", "On the schedule 0 9-17 * * *", "by its schedule"),
        ("webhook:hubspot_new_lead", "Started by the webhook hubspot_new_lead", "by the webhook hubspot_new_lead"),
        ("event:baker.bread_ready", "Started by the event baker.bread_ready", "by the event baker.bread_ready"),
        ("event:*", "Started by any event", "by any event"),
        ("event:baker.*", "Started by any event of baker", "by any event of baker"),
        ("event:*.done", "Started by the event done of any operator", "by the event done of any operator"),
        ("request:deal_price", "Answers requests for “deal price”", "by a request for “deal price”"),
    ],
)
def test_a_trigger_is_told_in_words(trigger: str, starts: str, started: str) -> None:
    assert (triggers.starts(trigger), triggers.started(trigger)) == (starts, started)


def text(browse: Browse, user: User, slug: str) -> str:
    answer = browse(user).get(f"/agents/operators/{slug}/")
    assert answer.status_code == 200
    return answer.content.decode()


def section(page: str, workflow: str) -> str:
    return page[page.index(f'id="workflow-{workflow}"') :].split("</section>")[0]


def test_a_webhook_names_the_address_to_call_and_who_else_starts_it(
    registered: Village, vera: User, browse: Browse
) -> None:
    told = section(text(browse, vera, "revenue_ops"), "lead_qualification")
    assert "POST http://testserver/v1/webhooks/hubspot_new_lead" in told
    assert "<b>company_intel.research_complete</b>" in told
    assert 'href="/agents/operators/company_intel/#workflow-research"' in told
    assert "5 min at most" in told


def test_a_schedule_tells_its_text_and_its_next_time(registered: Village, vera: User, browse: Browse) -> None:
    told = section(text(browse, vera, "revenue_ops"), "deal_support")
    assert "Monday to Friday at 07:00" in told
    assert "<code>0 7 * * 1-5</code>" in told
    assert "next <time" in told
    outline = next(item for item in outlines.of(registered["revenue_ops"]) if item.workflow.slug == "deal_support")
    assert outline.comes is not None
    assert outline.comes > datetime.now(UTC)
    assert (outline.comes.hour, outline.comes.minute) == (7, 0)


def test_a_schedule_that_was_switched_off_says_so(
    registered: Village, project: Project, vera: User, browse: Browse
) -> None:
    schedule.write(project)
    PeriodicTask.objects.filter(name__endswith=".deal_support").update(enabled=False)
    page = text(browse, vera, "revenue_ops")
    assert "switched off in the admin" in section(page, "deal_support")
    assert "next <time" not in section(page, "deal_support")
    assert "next <time" in section(page, "buyer_intelligence")


def test_events_and_requests_name_both_of_their_ends(village: Village, vera: User, browse: Browse) -> None:
    baker, grocer = text(browse, vera, "baker"), text(browse, vera, "grocer")
    bake = section(baker, "bake")
    assert "<b>baker.bread_ready</b>" in bake
    assert 'href="/agents/operators/grocer/#workflow-sell"' in bake
    assert 'href="/agents/operators/visitors/#workflow-think"' in bake
    assert 'told by <a href="/agents/operators/baker/#workflow-bake">' in section(grocer, "sell")
    assert "flour: [200, 300]" in section(grocer, "store").replace("&quot;", '"')
    assert "operators.grocer.request.price" in section(grocer, "quote")
    assert "operators.visitors.request.thought" in section(text(browse, vera, "visitors"), "think")


def test_limits_are_told(village: Village, vera: User, browse: Browse) -> None:
    page = text(browse, vera, "baker")
    assert "3 days at most, waiting included" in section(page, "long")
    assert "it starts over when its worker dies" in section(page, "forgetful")


def test_nodes_tell_what_they_do_and_where_they_lead(
    registered: Village, village: Village, vera: User, browse: Browse
) -> None:
    nurture = section(text(browse, vera, "revenue_ops"), "nurture_sequence")
    assert "asks sonnet" in nurture
    assert "chooses the way" in nurture
    assert "only when chosen" in nurture
    assert "Handoff to sales" in nurture
    assert "then → Generate touch" in nurture
    engagement = section(text(browse, vera, "revenue_ops"), "engagement")
    assert "“Send this outreach to the buyer?”" in engagement
    assert "→ the run fails" in engagement
    baker = text(browse, vera, "baker")
    assert "then mayor is asked for as long, then it counts as rejected" in section(baker, "judged")
    assert "tasting" in section(baker, "remote")
    assert "an agent on sonnet" in section(baker, "advised")
    assert "taste" in section(baker, "advised")
    assert "a node of a LangGraph graph" in section(text(browse, vera, "crossroads"), "both")


def test_the_model_that_an_administrator_chose_is_told(registered: Village, vera: User, browse: Browse) -> None:
    Node.objects.filter(workflow__slug="engagement", slug="personalize").update(model="opus")
    assert "asks opus" in section(text(browse, vera, "revenue_ops"), "engagement")


def test_a_workflow_that_another_version_described_is_listed_all_the_same(
    registered: Village, vera: User, browse: Browse
) -> None:
    Workflow.objects.filter(slug="engagement").update(spec={"of": "another time"})
    page = text(browse, vera, "revenue_ops")
    assert "Engagement" in section(page, "engagement")
    assert "Pull deals" in page
    assert browse(vera).get("/agents/operators/").status_code == 200


def test_the_list_counts_workflows_subscriptions_and_capabilities(village: Village, vera: User, browse: Browse) -> None:
    page = browse(vera).get("/agents/operators/").content.decode()
    visitors = village["visitors"].workflows.count()
    assert f"4 operators, {Workflow.objects.count()} workflows, 2 subscriptions, 2 capabilities" in page
    assert f"{visitors} workflows, 1 subscription, 1 capability" in page


def test_charlie_sees_no_operator(village: Village, charlie: User, browse: Browse) -> None:
    assert browse(charlie).get("/agents/operators/baker/").status_code == 404
    assert "baker" not in browse(charlie).get("/agents/operators/").content.decode()
