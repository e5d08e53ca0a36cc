"""Every page: what it says, how many queries it costs, and that Charlie sees nothing."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from openvibe.events import Event as Fact
from operators.models import Card, Event, Membership, Operator, Project, Run, Wait, Workflow
from operators.services import announcements, channels, intake, timeline, waits
from tests.pages.conftest import Browse, played

pytestmark = pytest.mark.django_db


def text(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200, url
    return answer.content.decode()


def posted(project: Project, **values: object) -> None:
    channel = channels.locked(project.id)
    row = {"project": project, "channel": "public", "created_at": timezone.now(), **values}
    channels.append(channel, [Event(**row)])  # type: ignore[arg-type]


def test_strangers_are_sent_to_the_sign_in_page(waiting: Run) -> None:
    for url in ("/agents/", "/agents/general/", "/agents/approvals/", "/agents/context/", f"/agents/{waiting.id}/"):
        assert Client().get(url)["Location"] == f"/signin/?next={url}"


def test_a_fragment_for_a_stranger_moves_the_whole_page_to_the_sign_in(gate: Wait) -> None:
    answer = Client().get(
        f"/agents/{gate.run_id}/gates/{gate.id}/",
        headers={"hx-request": "true", "hx-current-url": "http://testserver/agents/approvals/"},
    )
    assert answer["HX-Redirect"] == "/signin/?next=%2Fagents%2Fapprovals%2F"


def test_the_list_of_runs_tells_status_starter_and_cost(
    completed: Run, waiting: Run, vera: User, browse: Browse
) -> None:
    page = text(browse(vera), "/agents/")
    assert page.index(waiting.id) < page.index(completed.id)
    for words in ("Company Intelligence", "by alice", "Completed", "Waiting", "$0", 'data-live="/ws/agents/"'):
        assert words in page


def test_the_list_filters_by_status_and_operator(completed: Run, waiting: Run, vera: User, browse: Browse) -> None:
    page = text(browse(vera), "/agents/?status=waiting&operator=revenue_ops")
    assert waiting.id in page
    assert completed.id not in page
    assert 'hx-get="/agents/?status=waiting&amp;operator=revenue_ops"' in page
    assert "No run fits this filter" in text(browse(vera), "/agents/?status=failed")


def test_the_list_has_pages_of_25(research: Workflow, alice: User, vera: User, browse: Browse) -> None:
    runs = [intake.request(research, input=research.sample_input, actor=alice) for _ in range(26)]
    assert runs[0].id not in text(browse(vera), "/agents/")
    assert runs[0].id in text(browse(vera), "/agents/?page=2")


def test_an_empty_list_points_to_the_operators(vera: User, browse: Browse) -> None:
    page = text(browse(vera), "/agents/")
    assert "Nothing has run yet" in page
    assert 'href="/agents/operators/"' in page


def test_a_completed_run_shows_its_steps_and_its_result(completed: Run, vera: User, browse: Browse) -> None:
    page = text(browse(vera), f"/agents/{completed.id}/")
    for words in ("Analyze", "simulated-haiku", "Result", "<h4>Company intelligence: Stripe</h4>", "Simulated"):
        assert words in page
    assert f'data-after="{completed.last_seq}"' in page
    assert page.count('class="step step-completed') == 4


def test_a_rejected_run_tells_who_and_why(rejected: Run, vera: User, browse: Browse) -> None:
    page = text(browse(vera), f"/agents/{rejected.id}/")
    assert "<b>alice</b> rejected: “Too pushy”" in page
    assert "Failed at Review sequence" in page


def test_who_was_rejected_by_a_person_is_not_let_try_again_and_whom_nobody_heard_is(
    gate: Wait, rejected: Run, village: dict[str, Operator], bob: User, browse: Browse
) -> None:
    assert "data-rejected" in text(browse(bob), f"/agents/{rejected.id}/")
    run = played(intake.request(village["baker"].workflows.get(slug="judged"), input={"loaves": 1}, actor=None))
    for _ in range(2):
        # After the first time it is passed on.
        waits.expire(Wait.objects.select_related("run").get(run=run))
    run = played(run)
    assert run.error["kind"] == "GateRejected"
    assert "data-rejected" not in text(browse(bob), f"/agents/{run.id}/")


def test_a_waiting_run_loads_its_gate_and_offers_cancelling_to_operators_only(
    gate: Wait, bob: User, vera: User, browse: Browse
) -> None:
    page = text(browse(bob), f"/agents/{gate.run_id}/")
    assert f'hx-get="/agents/{gate.run_id}/gates/{gate.id}/"' in page
    assert "Cancel the run" in page
    assert "Cancel the run" not in text(browse(vera), f"/agents/{gate.run_id}/")


def test_what_agents_say_is_drawn_as_harmless_markdown(project: Project, vera: User, browse: Browse) -> None:
    data = {"content": "**bold** <script>alert(1)</script> ![x](http://spy/) [l](javascript:alert(1))"}
    posted(project, kind="agent.message", actor="scout", data=data, message_id="1")
    page = text(browse(vera), "/agents/general/")
    assert "<strong>bold</strong>" in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert 'href="javascript' not in page


def test_a_large_value_is_a_link_to_its_card(completed: Run, vera: User, charlie: User, browse: Browse) -> None:
    timeline.record(
        project_id="default",
        run_id=completed.id,
        last_seq=completed.last_seq + 1,
        facts=[Fact("step.finished", "dump", "s-9", {"update": {"report": "x" * 40_000}})],
        now=timezone.now(),
    )
    card = Card.objects.get(size__gt=40_000)
    assert f'href="/agents/cards/{card.sha256}/"' in text(browse(vera), f"/agents/{completed.id}/")
    assert "x" * 1000 in text(browse(vera), f"/agents/cards/{card.sha256}/")
    assert browse(charlie).get(f"/agents/cards/{card.sha256}/").status_code == 404


def test_the_general_channel_is_newest_first_and_links_to_runs(gate: Wait, vera: User, browse: Browse) -> None:
    news = Event.objects.filter(run_id=gate.run_id, kind__in=announcements.PUBLIC_KINDS).order_by("seq")
    announcements.publicly(list(news))
    page = text(browse(vera), "/agents/general/")
    assert page.index("Asks for a decision") < page.index("Run started")
    assert f'href="/agents/{gate.run_id}/"' in page
    assert 'data-project="default"' in page
    assert 'data-after="2"' in page


def test_an_empty_general_channel_tells_how_to_post(vera: User, browse: Browse) -> None:
    assert "cg.v1.default.public.evt.agent.scout.message" in text(browse(vera), "/agents/general/")


def test_operators_and_their_nodes_are_shown(engagement: Workflow, bob: User, vera: User, browse: Browse) -> None:
    page = text(browse(bob), "/agents/operators/")
    assert "Revenue Operations" in page
    assert "Started by the event revenue_ops.lead_qualified" in page
    assert 'href="/agents/operators/revenue_ops/engagement/runs/"' in page
    detail = text(browse(vera), "/agents/operators/revenue_ops/")
    assert "asks sonnet" in detail
    assert "a person decides" in detail
    assert "engagement/runs/" not in detail


def test_the_header_counts_open_gates(gate: Wait, vera: User, charlie: User, browse: Browse) -> None:
    assert '<span class="count">1<' in text(browse(vera), "/agents/operators/")
    assert '<span class="count">1<' in text(browse(vera), "/agents/approvals/count/")
    assert 'class="count"' not in text(browse(charlie), "/agents/operators/")


def test_absent_things_are_a_page_that_says_so(vera: User, browse: Browse) -> None:
    answer = browse(vera).get("/agents/run_nope/")
    assert answer.status_code == 404
    assert "There is nothing here" in answer.content.decode()


def test_charlie_finds_nothing(gate: Wait, completed: Run, charlie: User, browse: Browse) -> None:
    client = browse(charlie)
    for url in ("/agents/", "/agents/approvals/", "/agents/general/", "/agents/operators/"):
        page = text(client, url)
        for secret in (gate.run_id, completed.id, "Revenue", "Stripe"):
            assert secret not in page, url
    run = f"/agents/{gate.run_id}/"
    for url in (
        run,
        f"{run}gates/{gate.id}/",
        f"{run}events/?before=9",
        "/agents/operators/revenue_ops/",
        "/agents/operators/revenue_ops/engagement/runs/",
        "/agents/general/?project=default",
    ):
        assert client.get(url).status_code == 404, url
    for url in (
        f"{run}cancellation/",
        f"{run}retries/",
        f"{run}gates/{gate.id}/",
        "/agents/operators/revenue_ops/engagement/runs/",
    ):
        assert client.post(url, {"decision": "approve"}).status_code == 404, url
    assert Run.objects.get(id=gate.run_id).status == Run.Status.WAITING


def test_vera_sees_but_may_not_act(gate: Wait, vera: User, browse: Browse) -> None:
    client = browse(vera)
    assert client.get("/agents/operators/revenue_ops/engagement/runs/").status_code == 404
    for url in (
        f"/agents/{gate.run_id}/cancellation/",
        f"/agents/{gate.run_id}/retries/",
        f"/agents/{gate.run_id}/gates/{gate.id}/",
        "/agents/operators/revenue_ops/engagement/runs/",
    ):
        assert client.post(url, {"decision": "approve", "buyer_profile": "x"}).status_code == 404, url
    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    ("url", "most"),
    [
        ("/agents/", 8),
        ("/agents/general/", 8),
        ("/agents/approvals/", 8),
        ("/agents/operators/", 8),
        ("/agents/operators/revenue_ops/", 12),
        ("/agents/operators/revenue_ops/engagement/runs/", 8),
        ("/agents/{run}/", 12),
    ],
)
def test_a_page_asks_the_database_a_few_times_however_much_there_is(
    url: str, most: int, engagement: Workflow, bob: User, browse: Browse, django_assert_max_num_queries
) -> None:
    runs = [played(intake.request(engagement, input=engagement.sample_input, actor=bob)) for _ in range(4)]
    announcements.publicly(list(Event.objects.filter(kind__in=announcements.PUBLIC_KINDS)))
    client = browse(bob)
    with django_assert_max_num_queries(most):
        assert client.get(url.format(run=runs[-1].id)).status_code == 200


def test_older_events_come_in_parts_and_no_step_twice(completed: Run, vera: User, browse: Browse, monkeypatch) -> None:
    monkeypatch.setattr("agents_ui.views.run.EVENTS", 3)
    client = browse(vera)
    page = text(client, f"/agents/{completed.id}/")
    seen = page.count('id="step-')
    while "?before=" in page:
        page = text(client, f"/agents/{completed.id}/events/?before={page.split('?before=')[1].split(chr(34))[0]}")
        seen += page.count('id="step-')
    assert seen == 4
    assert 'id="e1"' in page


def test_events_before_nothing_are_not_found(completed: Run, vera: User, browse: Browse) -> None:
    assert browse(vera).get(f"/agents/{completed.id}/events/?before=x").status_code == 404


@pytest.mark.parametrize("digits", [30, 5000])
def test_a_number_that_no_event_has_is_not_an_error(digits: int, completed: Run, vera: User, browse: Browse) -> None:
    assert browse(vera).get(f"/agents/{completed.id}/events/?before={'9' * digits}").status_code == 404


@pytest.mark.parametrize("address", ["/agents/?operator=%00", "/agents/?status=%00", "/agents/operators/?project=%00"])
def test_a_nul_in_an_address_is_a_bad_request(address: str, vera: User, browse: Browse) -> None:
    assert browse(vera).get(address).status_code == 400


def test_a_reason_for_cancelling_keeps_what_can_be_kept(waiting: Run, bob: User, browse: Browse) -> None:
    browse(bob).post(f"/agents/{waiting.id}/cancellation/", {"reason": "a\0b"})
    assert Event.objects.get(run=waiting, kind="run.cancelled", channel=f"t_{waiting.id}").data == {
        "reason": "a\ufffdb"
    }


def test_cancelling_ends_the_run_and_a_second_time_says_so(waiting: Run, bob: User, browse: Browse) -> None:
    client = browse(bob)
    url = f"/agents/{waiting.id}/cancellation/"
    assert client.get(url).status_code == 405
    page = client.post(url, {"reason": "Wrong contact"}, follow=True).content.decode()
    assert "Run cancelled by <b>bob</b>: Wrong contact" in page
    assert "has ended already" in client.post(url, follow=True).content.decode()


def test_a_failed_run_is_let_try_again_and_a_second_time_says_so(waiting: Run, bob: User, browse: Browse) -> None:
    Run.objects.filter(id=waiting.id).update(status=Run.Status.FAILED, error={"message": "away", "kind": "OSError"})
    client = browse(bob)
    url = f"/agents/{waiting.id}/retries/"
    assert "Try again" in text(client, f"/agents/{waiting.id}/")
    assert client.get(url).status_code == 405
    page = client.post(url, follow=True).content.decode()
    assert "<b>bob</b> let the run try again" in page
    assert 'data-status="queued"' in page
    assert "has not failed" in client.post(url, follow=True).content.decode()


def test_somebody_of_two_projects_chooses_the_channel(
    project: Project, other_project: Project, bob: User, browse: Browse
) -> None:
    Membership.objects.create(project=other_project, user=bob, role=Membership.Role.VIEWER)
    posted(other_project, kind="agent.message", actor="scout", data={"content": "elsewhere"}, message_id="1")
    assert "elsewhere" not in text(browse(bob), "/agents/general/")
    assert "elsewhere" in text(browse(bob), "/agents/general/?project=other")


def test_a_member_of_nothing_is_told_so(db: None, browse: Browse) -> None:
    nobody = User.objects.create_user("nobody")
    assert "You are a member of no project" in text(browse(nobody), "/agents/operators/")
    assert browse(nobody).get("/agents/general/").status_code == 200


def test_a_disabled_operator_offers_no_run(registered: dict[str, Operator], bob: User, browse: Browse) -> None:
    Operator.objects.update(enabled=False)
    assert "/runs/" not in text(browse(bob), "/agents/operators/")
    answer = browse(bob).post("/agents/operators/company_intel/research/runs/", {"company_name": "Stripe"})
    assert answer.status_code == 409
    assert "is disabled" in answer.content.decode()


def test_a_failed_run_shows_step_try_message_and_folded_traceback(completed: Run, vera: User, browse: Browse) -> None:
    error = {"message": "It <broke>", "node": "analyze", "kind": "KeyError", "traceback": "Traceback: line 7"}
    error |= {"attempt": 3}
    Run.objects.filter(id=completed.id).update(status=Run.Status.FAILED, error=error, output=None, unpriced_calls=1)
    page = text(browse(vera), f"/agents/{completed.id}/")
    assert "Failed at Analyze, on try 3" in page
    assert "It &lt;broke&gt;" in page
    assert "<summary>Traceback</summary>" in page
    assert "<dd>unknown</dd>" in page
