"""Questions of graphs that were brought as they are: each shape has its buttons, and its answer comes back in shape."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client

from operators.models import Operator, Run, Wait
from tests.pages.conftest import Browse, begun, place, played, quoted

pytestmark = pytest.mark.django_db
Village = dict[str, Operator]
HTMX = {"hx-request": "true"}


def asked(village: Village, workflow: str) -> Wait:
    run = begun(village["visitors"], workflow, topic="x")
    assert run.status == Run.Status.WAITING, run.error
    return Wait.objects.select_related("run").get(run=run)


def form(client: Client, gate: Wait) -> str:
    return client.get(place(gate), headers=HTMX).content.decode()


def decide(client: Client, gate: Wait, decision: str, **sent: str) -> HttpResponse:
    fields = {name.replace("__", "."): value for name, value in sent.items()}
    return client.post(place(gate), quoted(gate, decision=decision, **fields), headers=HTMX)


def came_back(gate: Wait) -> Any:
    run = played(gate.run)
    assert run.status == Run.Status.COMPLETED, run.error
    return run.output["answer"]


def test_a_free_question_shows_its_editor_and_what_came_with_it(village: Village, bob: User, browse: Browse) -> None:
    shown = form(browse(bob), asked(village, "question"))
    assert '<h2 class="gate-prompt">What is it called?</h2>' in shown
    assert "Feast" in shown
    assert 'name="values.answer"' in shown
    assert "data-editors disabled" not in shown
    assert "data-edit>" not in shown
    assert 'value="answer"' in shown
    assert 'value="approve"' not in shown


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        ({"values__answer": "42"}, "42"),
        ({"values__answer": "a\r\nb"}, "a\nb"),
        ({"values__answer": '{"a": [1]}', "values__answer__json": "on"}, {"a": [1]}),
        ({"values__answer": "null", "values__answer__json": "on"}, None),
        ({"values__answer": "Feast"}, "Feast"),
    ],
)
def test_a_free_answer_is_text_unless_the_person_says_json(
    village: Village, bob: User, browse: Browse, sent: dict[str, str], answer: Any
) -> None:
    gate = asked(village, "question")
    answered = decide(browse(bob), gate, "answer", **sent)
    assert answered.status_code == 200, answered.content.decode()
    assert "<b>bob</b> answered" in answered.content.decode()
    assert "with changes" not in answered.content.decode()
    assert came_back(gate) == answer


def test_a_free_answer_that_is_missing_or_no_json_keeps_the_gate_open(
    village: Village, bob: User, browse: Browse
) -> None:
    gate = asked(village, "question")
    blank = decide(browse(bob), gate, "answer", values__answer=" ", notes="Kept note")
    assert blank.status_code == 422
    assert "This is needed for an answer" in blank.content.decode()
    assert "Kept note" in blank.content.decode()
    broken = decide(browse(bob), gate, "answer", values__answer="{oops", values__answer__json="on").content.decode()
    assert "This is no JSON" in broken
    assert "{oops" in broken
    assert 'name="values.answer.json" checked' in broken
    assert Wait.objects.get().pending


def test_a_question_with_a_schema_has_a_control_for_each_field(village: Village, bob: User, browse: Browse) -> None:
    gate = asked(village, "party")
    shown = form(browse(bob), gate)
    assert f'<input type="number" id="in-{gate.id}-values-answer-guests"' in shown
    wrong = decide(browse(bob), gate, "answer", values__answer__guests="many", values__answer__place="Barn")
    assert wrong.status_code == 422
    page = wrong.content.decode()
    assert "&#x27;many&#x27; is not of type &#x27;integer&#x27;" in page
    assert page.index("answer.guests") < page.index("field-wrong") + 400
    assert "Barn" in page
    decide(browse(bob), gate, "answer", values__answer__guests="12", values__answer__place="Barn")
    assert came_back(gate) == {"guests": 12, "place": "Barn"}


def test_a_call_in_an_inbox_is_accepted_edited_answered_or_ignored(village: Village, bob: User, browse: Browse) -> None:
    shown = form(browse(bob), asked(village, "mail"))
    for words in (
        "Send this email?",
        "send_email",
        "dana@example.com",
        "Accept",
        "Respond",
        "Ignore",
        "Send as edited",
    ):
        assert words in shown
    assert "allow_edit" not in shown
    assert "data-editors disabled" in shown
    cases: list[tuple[str, dict[str, str], dict[str, Any]]] = [
        ("accept", {}, {"type": "accept", "args": {"action": "send_email", "args": {"to": "dana@example.com"}}}),
        ("ignore", {}, {"type": "ignore", "args": None}),
        ("response", {"notes": "Not today"}, {"type": "response", "args": "Not today"}),
        (
            "edit",
            {"values__args": '{"to": "bob@example.com"}'},
            {"type": "edit", "args": {"action": "send_email", "args": {"to": "bob@example.com"}}},
        ),
    ]
    for decision, sent, back in cases:
        gate = asked(village, "mail")
        assert decide(browse(bob), gate, decision, **sent).status_code == 200
        assert came_back(gate) == [back]


def test_an_edit_that_cannot_be_read_or_is_no_object_stays_open(village: Village, bob: User, browse: Browse) -> None:
    gate = asked(village, "mail")
    for sent, told in (("{oops", "This is no JSON"), ("[1]", "is not of type"), (" ", "This is needed for an answer")):
        refused = decide(browse(bob), gate, "edit", values__args=sent)
        assert refused.status_code == 422
        page = refused.content.decode()
        assert told in page
        assert sent in page
        assert "data-editing" in page
    assert Wait.objects.get(id=gate.id).pending


def test_a_response_without_words_is_asked_for_them(village: Village, bob: User, browse: Browse) -> None:
    gate = asked(village, "mail")
    refused = decide(browse(bob), gate, "response", notes="  ")
    assert refused.status_code == 422
    assert "Write your response here" in refused.content.decode()
    assert 'aria-invalid="true"' in refused.content.decode()
    assert Wait.objects.get().pending


def test_an_accepted_call_takes_no_edits_along(village: Village, bob: User, browse: Browse) -> None:
    gate = asked(village, "mail")
    decide(browse(bob), gate, "accept", values__args="{oops")
    assert Wait.objects.get().values is None


def test_several_calls_are_edited_as_one_list(village: Village, bob: User, browse: Browse) -> None:
    gate = asked(village, "rows")
    shown = form(browse(bob), gate)
    assert shown.count('class="record"') == 2
    assert "allowed_decisions" not in shown
    edited = '[{"name": "delete_rows", "args": {"table": "old_leads"}}, null]'
    assert decide(browse(bob), gate, "edit", values__actions=edited).status_code == 200
    assert came_back(gate) == {
        "decisions": [
            {"type": "edit", "edited_action": {"name": "delete_rows", "args": {"table": "old_leads"}}},
            {"type": "edit", "edited_action": {"name": "notify", "args": {}}},
        ]
    }


@pytest.mark.parametrize(
    ("decision", "notes", "back"),
    [
        ("approve", "", {"type": "approve"}),
        ("reject", "Too much", {"type": "reject", "message": "Too much"}),
        ("respond", "Ask Linden", {"type": "respond", "message": "Ask Linden"}),
    ],
)
def test_a_tool_approval_has_the_middlewares_decisions(
    village: Village, bob: User, browse: Browse, decision: str, notes: str, back: dict[str, str]
) -> None:
    gate = asked(village, "transfer")
    assert f'value="{decision}"' in form(browse(bob), gate)
    assert decide(browse(bob), gate, decision, notes=notes).status_code == 200
    assert came_back(gate) == back


def test_a_tool_approval_is_edited_as_an_action(village: Village, bob: User, browse: Browse) -> None:
    gate = asked(village, "transfer")
    assert "&quot;amount&quot;: 500" in form(browse(bob), gate)
    decide(browse(bob), gate, "edit", values__action='{"name": "transfer", "args": {"amount": 5}}')
    assert came_back(gate) == {"type": "edit", "edited_action": {"name": "transfer", "args": {"amount": 5}}}


def test_what_the_graph_wrote_after_the_answer_is_shown(village: Village, bob: User, browse: Browse) -> None:
    gate = asked(village, "question")
    decide(browse(bob), gate, "answer", values__answer="Harvest supper")
    played(gate.run)
    page = browse(bob).get(f"/agents/{gate.run_id}/").content.decode()
    step = page[page.index('id="step-') :].split("</li>")[0]
    assert "<summary>The answer</summary>" in step
    assert '<span class="value">Harvest supper</span>' in step.split("step-update")[1]


def test_charlie_can_neither_see_nor_answer_a_question(village: Village, charlie: User, browse: Browse) -> None:
    gate = asked(village, "question")
    assert browse(charlie).get(place(gate)).status_code == 404
    assert decide(browse(charlie), gate, "answer", values__answer="x").status_code == 404
    assert Wait.objects.get().pending
