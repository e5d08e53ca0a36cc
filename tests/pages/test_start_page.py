"""The form that starts a run, made from the workflow's input fields."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from agents_ui import schemas
from operators.models import Run, Workflow
from tests.pages.conftest import Browse

pytestmark = pytest.mark.django_db
ENGAGEMENT = "/agents/operators/revenue_ops/engagement/runs/"


def test_the_form_is_filled_with_the_sample(engagement: Workflow, bob: User, browse: Browse) -> None:
    page = browse(bob).get(ENGAGEMENT).content.decode()
    assert 'value="contact-1042"' in page
    assert "Dana Reyes leads operations" in page
    assert "Who the buyer is, in a few sentences" in page
    assert 'placeholder="mid-market (default)"' in page
    assert Run.objects.count() == 0


def test_a_start_leads_to_its_run(engagement: Workflow, bob: User, browse: Browse) -> None:
    answered = browse(bob).post(ENGAGEMENT, {"buyer_profile": "Somebody\r\nbusy", "segment": "", "contact_id": ""})
    run = Run.objects.get()
    assert answered["Location"] == f"/agents/{run.id}/"
    assert run.input == {"buyer_profile": "Somebody\nbusy"}
    assert run.started_by == bob


def test_a_refusal_names_the_field_and_keeps_the_values(engagement: Workflow, bob: User, browse: Browse) -> None:
    answered = browse(bob).post(ENGAGEMENT, {"buyer_profile": "", "segment": "x" * 201})
    page = answered.content.decode()
    assert answered.status_code == 422
    assert "Nothing was started: 2 things to mend" in page
    assert "Is required</p>" in page
    assert "String should have at most 200 characters</p>" in page
    assert "x" * 201 in page
    assert Run.objects.count() == 0


def test_a_retired_workflow_cannot_be_started(engagement: Workflow, bob: User, browse: Browse) -> None:
    Workflow.objects.update(retired=True)
    assert browse(bob).get(ENGAGEMENT).status_code == 404


SCHEMA: dict[str, Any] = {
    "$defs": {"Mood": {"enum": ["calm", "wild"], "type": "string"}},
    "required": ["count", "mood", "items"],
    "properties": {
        "count": {"type": "integer", "minimum": 1},
        "share": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        "loud": {"type": "boolean", "default": True},
        "mood": {"$ref": "#/$defs/Mood"},
        "level": {"enum": [1, 2]},
        "items": {"type": "array"},
        "text": {"type": "string"},
    },
}


def read(**sent: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    controls = schemas.inputs(SCHEMA, SCHEMA, {})
    values = schemas.read(controls, sent)
    return values, {item.name: item.errors for item in controls if item.errors}


def test_each_type_gets_its_control() -> None:
    kinds = {item.name: item.control for item in schemas.inputs(SCHEMA, SCHEMA, {})}
    assert kinds == {
        "count": "number",
        "share": "number",
        "loud": "check",
        "mood": "select",
        "level": "select",
        "items": "json",
        "text": "area",
    }


def test_values_come_back_in_their_types() -> None:
    sent = {"count": "3", "share": "0.5", "mood": "wild", "level": "2", "items": "[1]", "text": "a\r\nb"}
    expected = {"count": 3, "share": 0.5, "loud": False, "mood": "wild", "level": 2, "items": [1], "text": "a\nb"}
    assert read(**sent) == (expected, {})


def test_what_is_left_empty_is_left_out() -> None:
    assert read(count="", share=" ", loud="on") == ({"loud": True}, {})


def test_what_does_not_fit_is_passed_on_and_what_is_no_json_is_told() -> None:
    values, errors = read(count="many", items="[1,")
    assert values["count"] == "many"
    assert "This is no JSON" in errors["items"][0]
    assert "more than 100 levels" in read(items="[" * 100_000)[1]["items"][0]
