"""What pages tell of a gate whose run's state was changed while it stood open."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from operators.models import Event, Membership, Wait
from operators.services import announcements, overrides
from tests.pages.conftest import Browse, place, played, quoted

pytestmark = pytest.mark.django_db
HTMX = {"hx-request": "true"}


@pytest.fixture
def overridden(gate: Wait, alice: User) -> Wait:
    Membership.objects.filter(user=alice).update(may_override=True)
    values = {"personalized_sequence": gate.payload["personalized_sequence"][:1]}
    overrides.override(gate, values=values, reason="One letter is enough", version=1, actor=alice)
    return gate


def test_a_gate_that_is_about_to_be_asked_anew_says_so(overridden: Wait, bob: User, browse: Browse) -> None:
    page = browse(bob).get(place(overridden), headers=HTMX).content.decode()
    assert "The run’s state was changed" in page
    assert "<form" not in page


def test_the_gate_tells_who_changed_what_and_why(overridden: Wait, bob: User, browse: Browse) -> None:
    played(overridden.run)
    page = browse(bob).get(place(overridden), headers=HTMX).content.decode()
    assert "<b>alice</b> changed <b>personalized_sequence</b>" in page
    assert "“One letter is enough”" in page
    assert 'name="version" value="2"' in page
    assert 'name="values.personalized_sequence.1.subject"' not in page


def test_whoever_had_the_old_question_before_him_is_shown_the_new_one(
    gate: Wait, bob: User, browse: Browse, overridden: Wait
) -> None:
    sent = quoted(gate, decision="approve", notes="I read this")
    played(overridden.run)
    answered = browse(bob).post(place(gate), sent, headers=HTMX)
    assert answered.status_code == 409
    assert "What you saw has changed since" in answered.content.decode()
    assert "“One letter is enough”" in answered.content.decode()
    # His page may still have the old question's box only, and the next answer goes into it as well.
    assert 'hx-target="closest .gate"' in answered.content.decode()
    assert Wait.objects.get(id=gate.id).pending


def test_the_timeline_tells_it_and_that_the_first_question_came_to_nothing(
    overridden: Wait, bob: User, browse: Browse
) -> None:
    played(overridden.run)
    page = browse(bob).get(f"/agents/{overridden.run_id}/").content.decode()
    assert "<b>alice</b> changed <b>personalized_sequence</b>" in page
    assert page.count("step step-stopped") == 1
    assert page.count("step step-waiting") == 1


def test_the_general_channel_tells_it_too(overridden: Wait, vera: User, browse: Browse) -> None:
    announcements.publicly(list(Event.objects.filter(run=overridden.run, kind="gate.overridden")))
    page = browse(vera).get("/agents/general/").content.decode()
    assert "One letter is enough" in page


def test_charlie_reads_nothing_of_it(overridden: Wait, charlie: User, browse: Browse) -> None:
    announcements.publicly(list(Event.objects.filter(run=overridden.run, kind="gate.overridden")))
    client = browse(charlie)
    assert client.get(place(overridden), headers=HTMX).status_code == 404
    assert "One letter is enough" not in client.get("/agents/general/").content.decode()
