"""Deciding at a gate: once, about what was seen, and with everything that was typed kept."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client

from operators.models import Event, Run, Wait, Workflow
from operators.services import intake
from operators.services.waits import Answer, answer
from tests.pages.conftest import Browse, edited, place, played, quoted

pytestmark = pytest.mark.django_db
HTMX = {"hx-request": "true"}


def decide(client: Client, gate: Wait, **sent: str) -> HttpResponse:
    return client.post(place(gate), sent, headers=HTMX)


def test_the_form_quotes_what_it_shows(gate: Wait, bob: User, browse: Browse) -> None:
    page = browse(bob).get(place(gate), headers=HTMX).content.decode()
    assert "Send this outreach to the buyer?" in page
    assert f'name="payload_sha256" value="{gate.payload_sha256}"' in page
    assert 'name="values.personalized_sequence.0.subject"' in page
    assert 'name="decision" value="reject"' in page
    assert "<html" not in page


def test_a_viewer_sees_what_is_asked_without_a_form(gate: Wait, vera: User, browse: Browse) -> None:
    page = browse(vera).get(place(gate), headers=HTMX).content.decode()
    assert "Waiting for a decision" in page
    assert "<form" not in page


def test_the_address_of_a_gate_leads_a_browser_to_its_run(gate: Wait, bob: User, browse: Browse) -> None:
    assert browse(bob).get(place(gate))["Location"] == f"/agents/{gate.run_id}/"


def test_looking_decides_nothing(gate: Wait, bob: User, browse: Browse) -> None:
    browse(bob).get(place(gate) + "?decision=approve", headers=HTMX)
    gate.refresh_from_db()
    assert gate.pending


def test_an_approval_closes_the_gate_and_the_run_goes_on(gate: Wait, bob: User, browse: Browse) -> None:
    answered = decide(browse(bob), gate, **quoted(gate, decision="approve", notes=" Fine "))
    assert answered.status_code == 200
    assert "<b>bob</b> approved" in answered.content.decode()
    gate.refresh_from_db()
    assert (gate.decision, gate.notes, gate.values, gate.decided_by) == ("approve", "Fine", None, bob)
    assert played(gate.run).status == Run.Status.COMPLETED


def test_without_htmx_a_decision_leads_back_to_the_run(gate: Wait, bob: User, browse: Browse) -> None:
    answered = browse(bob).post(place(gate), quoted(gate, decision="approve"))
    assert answered["Location"] == f"/agents/{gate.run_id}/"


def test_a_double_click_decides_once(gate: Wait, bob: User, browse: Browse) -> None:
    sent = quoted(gate, decision="approve", notes="Yes")
    assert [decide(browse(bob), gate, **sent).status_code for _ in range(3)] == [200, 200, 200]
    assert Event.objects.filter(kind="gate.decided", channel__startswith="t_").count() == 1


def test_who_comes_second_reads_who_was_first(gate: Wait, alice: User, bob: User, browse: Browse) -> None:
    answer(Wait.objects.get(id=gate.id), Answer("approve", notes="Go"), actor=alice)
    answered = decide(browse(bob), gate, **quoted(gate, decision="reject", notes="No!"))
    page = answered.content.decode()
    assert answered.status_code == 409
    assert "<b>alice</b> was first and approved this" in page
    assert "Your decision was not counted" in page
    assert "“Go”" in page


def test_a_stale_quote_shows_what_is_asked_now_and_keeps_the_note(gate: Wait, bob: User, browse: Browse) -> None:
    sent = quoted(gate, decision="approve", notes="I read this")
    Wait.objects.filter(id=gate.id).update(version=2, payload_sha256="0" * 64, prompt="Send this instead?")
    answered = decide(browse(bob), gate, **sent)
    page = answered.content.decode()
    assert answered.status_code == 409
    assert "What you saw has changed since" in page
    assert "Send this instead?" in page
    assert 'name="version" value="2"' in page
    assert "I read this" in page
    assert Wait.objects.get(id=gate.id).pending


@pytest.mark.parametrize("missing", ["version", "payload_sha256"])
def test_a_decision_that_quotes_nothing_is_refused(gate: Wait, missing: str, bob: User, browse: Browse) -> None:
    sent = quoted(gate, decision="approve")
    del sent[missing]
    assert decide(browse(bob), gate, **sent).status_code == 409
    assert Wait.objects.get(id=gate.id).pending


def test_a_gate_of_a_cancelled_run_says_so(gate: Wait, bob: User, browse: Browse) -> None:
    client = browse(bob)
    client.post(f"/agents/{gate.run_id}/cancellation/")
    answered = decide(client, gate, **quoted(gate, decision="approve"))
    assert answered.status_code == 409
    assert "its run was cancelled" in answered.content.decode()


def test_a_version_of_thousands_of_digits_quotes_nothing(gate: Wait, bob: User, browse: Browse) -> None:
    sent = {**quoted(gate, decision="approve"), "version": "9" * 5000}
    assert browse(bob).post(place(gate), sent).status_code == 409


def test_a_misfit_is_told_at_its_field_and_what_was_typed_stays(gate: Wait, bob: User, browse: Browse) -> None:
    fields = edited(
        gate,
        values__personalized_sequence__1__wait_days="99",
        values__personalized_sequence__0__subject="Kept subject",
    )
    answered = decide(browse(bob), gate, **quoted(gate, decision="approve", notes="Kept note", **fields))
    page = answered.content.decode()
    assert answered.status_code == 422
    assert "99 is greater than the maximum of 60" in page
    wrong = page.index("field-wrong")
    assert page.index('name="values.personalized_sequence.1.touch"') < wrong
    assert "Kept subject" in page
    assert "Kept note" in page
    assert "data-editing" in page
    assert Wait.objects.get(id=gate.id).pending


def test_a_number_that_is_none_is_a_misfit(gate: Wait, bob: User, browse: Browse) -> None:
    fields = edited(gate, values__personalized_sequence__0__wait_days="soon")
    answered = decide(browse(bob), gate, **quoted(gate, decision="approve", **fields))
    assert answered.status_code == 422
    assert "&#x27;soon&#x27; is not of type &#x27;integer&#x27;" in answered.content.decode()


def test_an_unknown_decision_is_a_misfit(gate: Wait, bob: User, browse: Browse) -> None:
    assert decide(browse(bob), gate, **quoted(gate, decision="maybe")).status_code == 422
    assert Wait.objects.get(id=gate.id).pending


def test_changes_travel_with_the_approval(gate: Wait, bob: User, browse: Browse) -> None:
    fields = edited(gate, values__personalized_sequence__0__subject="A better subject")
    answered = decide(browse(bob), gate, **quoted(gate, decision="approve", **fields))
    assert "approved with changes" in answered.content.decode()
    run = played(gate.run)
    assert run.output["final_plan"]["sequence"][0]["subject"] == "A better subject"
    assert run.output["final_plan"]["sequence"][1:] == gate.payload["personalized_sequence"][1:]


def test_editors_that_were_left_as_they_were_are_no_changes(gate: Wait, bob: User, browse: Browse) -> None:
    decide(browse(bob), gate, **quoted(gate, decision="approve", **edited(gate)))
    assert Wait.objects.get(id=gate.id).values is None


def test_a_record_can_be_left_out_and_misfits_still_find_their_field(gate: Wait, bob: User, browse: Browse) -> None:
    drop = {"values.personalized_sequence.0.drop": "on"}
    wrong = edited(gate, values__personalized_sequence__1__wait_days="-1") | drop
    page = decide(browse(bob), gate, **quoted(gate, decision="approve", **wrong)).content.decode()
    assert page.index('name="values.personalized_sequence.1.touch"') < page.index("field-wrong")
    decide(browse(bob), gate, **quoted(gate, decision="approve", **edited(gate), **drop))
    kept = Wait.objects.get(id=gate.id).values["personalized_sequence"]
    assert kept == gate.payload["personalized_sequence"][1:]


def test_a_rejection_takes_no_changes_along(gate: Wait, bob: User, browse: Browse) -> None:
    fields = edited(gate, values__personalized_sequence__0__subject="Changed")
    decide(browse(bob), gate, **quoted(gate, decision="reject", notes="No", **fields))
    gate.refresh_from_db()
    assert (gate.decision, gate.values) == ("reject", None)
    assert played(gate.run).status == Run.Status.FAILED


def test_other_decisions_get_buttons_of_their_own(gate: Wait, bob: User, browse: Browse) -> None:
    Wait.objects.filter(id=gate.id).update(decisions=["approve", "ask_again", "reject"])
    page = browse(bob).get(place(gate), headers=HTMX).content.decode()
    assert '<button class="button" name="decision" value="ask_again">Ask again</button>' in page


def test_a_field_of_another_kind_is_edited_as_one_control(gate: Wait, bob: User, browse: Browse) -> None:
    schema = {
        "properties": {
            "decision": {"enum": ["approve", "reject"]},
            "notes": {"type": "string"},
            "values": {"$ref": "#/$defs/Values"},
        },
        "$defs": {"Values": {"properties": {"plan": {"type": "object", "title": "Plan"}}}},
    }
    Wait.objects.filter(id=gate.id).update(schema=schema, edits=["plan"], payload={"plan": {"a": 1}})
    page = browse(bob).get(place(gate), headers=HTMX).content.decode()
    assert 'name="values.plan"' in page
    broken = decide(browse(bob), gate, **quoted(gate, decision="approve", **{"values.plan": "{oops"}))
    assert broken.status_code == 422
    assert "This is no JSON" in broken.content.decode()
    assert "{oops" in broken.content.decode()
    decide(browse(bob), gate, **quoted(gate, decision="approve", **{"values.plan": '{"a": 2}'}))
    assert Wait.objects.get(id=gate.id).values == {"plan": {"a": 2}}


def test_a_value_that_is_neither_a_text_nor_null_cannot_be_emptied(gate: Wait, bob: User, browse: Browse) -> None:
    fields = {
        "rounds": {"type": "integer"},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "unset": {"type": "integer"},
        "word": {"type": "string"},
    }
    schema = {"properties": {"values": {"properties": fields}}}
    payload = {"rounds": 3, "limit": 4, "unset": None, "word": "yes"}
    Wait.objects.filter(id=gate.id).update(schema=schema, edits=list(fields), payload=payload)
    page = browse(bob).get(place(gate), headers=HTMX).content.decode()
    assert 'name="values.rounds" required' in page
    assert page.count(" required") == 1
    empty = {f"values.{name}": "" for name in fields}
    refused = decide(browse(bob), gate, **quoted(gate, decision="approve", **empty))
    assert refused.status_code == 422
    assert refused.content.decode().count("field-error") == 1
    assert "This cannot be empty" in refused.content.decode()
    decide(browse(bob), gate, **quoted(gate, decision="approve", **empty | {"values.rounds": "5"}))
    assert Wait.objects.get(id=gate.id).values == {"rounds": 5, "limit": None, "word": ""}


def test_approvals_list_open_gates_first_and_then_decisions(
    gate: Wait, rejected_too: Wait, vera: User, browse: Browse
) -> None:
    page = browse(vera).get("/agents/approvals/").content.decode()
    assert f'hx-get="{place(gate)}"' in page
    assert f'hx-get="{place(rejected_too)}"' not in page
    assert page.index(gate.run_id) < page.index("Recently decided") < page.index(rejected_too.run_id)
    assert "“Not now”" in page


@pytest.fixture
def rejected_too(engagement: Workflow, alice: User) -> Wait:
    run = played(intake.request(engagement, input=engagement.sample_input, actor=alice))
    return answer(run.waits.get(), Answer("reject", notes="Not now"), actor=alice)
