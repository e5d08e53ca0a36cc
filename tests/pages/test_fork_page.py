"""Forking on the page: the question, the start, edited values, and who may not."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.utils.html import escape

from operators.models import Event, Run
from tests.pages.conftest import Browse, played

pytestmark = pytest.mark.django_db


def step(run: Run, node: str) -> str:
    return Event.objects.filter(run=run, channel=f"t_{run.id}", kind="step.started", node=node).get().step_id


def place(run: Run, node: str) -> str:
    return f"/agents/{run.id}/steps/{step(run, node)}/forks/"


def nodes(run: Run) -> list[str]:
    rows = Event.objects.filter(channel=f"t_{run.id}", kind="step.started").order_by("seq")
    return list(rows.values_list("node", flat=True))


def test_each_step_offers_a_fork_to_those_who_may_start_runs(
    completed: Run, bob: User, vera: User, browse: Browse
) -> None:
    first = nodes(completed)[0]
    for user, shown in ((bob, True), (vera, False)):
        page = browse(user).get(f"/agents/{completed.id}/").content.decode()
        assert place(completed, first) in page
        # The steps are the same bytes for everybody; the list around them says who sees the way.
        assert ("timeline-forkable" in page) is shown


def test_a_fork_asks_first_and_shows_the_state(completed: Run, bob: User, browse: Browse) -> None:
    second = nodes(completed)[1]
    page = browse(bob).get(place(completed, second))
    assert page.status_code == 200
    text = page.content.decode()
    assert "Start the fork" in text
    assert "After this step" in text
    assert re.search(r"<textarea [^>]*></textarea>", text)
    assert str(completed.input["company_name"]) in text
    assert Run.objects.count() == 1


def test_a_fork_begins_after_the_step_and_both_runs_say_so(completed: Run, bob: User, browse: Browse) -> None:
    first, second, *_ = nodes(completed)
    visitor = browse(bob)
    answer = visitor.post(place(completed, first), {"before": "no", "values": "", "name": "n"})
    assert answer.status_code == 302
    fork = played(Run.objects.exclude(id=completed.id).get())
    assert (fork.forked_from_id, fork.status, nodes(fork)[0]) == (completed.id, "completed", second)
    assert answer["Location"] == f"/agents/{fork.id}/"
    new = visitor.get(f"/agents/{fork.id}/").content.decode()
    assert "Fork of" in new
    assert "Begins after" in new
    assert re.search("forked this run after", visitor.get(f"/agents/{completed.id}/").content.decode())


def test_a_form_that_is_sent_twice_starts_one_run(completed: Run, bob: User, browse: Browse) -> None:
    url, visitor = place(completed, nodes(completed)[0]), browse(bob)
    form = {"before": "no", "values": "", "name": "n"}
    assert visitor.post(url, form)["Location"] == visitor.post(url, form)["Location"]
    assert visitor.post(url, {**form, "before": "yes"})["Location"] != visitor.post(url, form)["Location"]
    assert Run.objects.count() == 3


def test_whatever_the_form_is_called_it_starts_a_run(completed: Run, bob: User, browse: Browse) -> None:
    for name in ("a\0b", "n" * 5000, ""):
        answer = browse(bob).post(place(completed, nodes(completed)[0]), {"before": "no", "values": "", "name": name})
        assert answer.status_code == 302
    assert Run.objects.count() == 4


def test_other_values_begin_the_new_run(completed: Run, bob: User, browse: Browse) -> None:
    form = {"before": "yes", "values": '{"company_name": "Another"}', "name": "n"}
    browse(bob).post(place(completed, nodes(completed)[0]), form)
    fork = played(Run.objects.exclude(id=completed.id).get())
    assert fork.output["company_name"] == "Another"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ("{", "The fields are no JSON"),
        ("[1]", "must be a JSON object"),
        ('{"nonsense": 1}', "nonsense"),
        ('{"\\ud800": 1}', "no state field"),
        ("[" * 100_000, "more than 100 levels"),
    ],
)
def test_values_that_do_not_fit_are_told_beside_the_form(
    completed: Run, bob: User, browse: Browse, values: str, told: str
) -> None:
    answer = browse(bob).post(place(completed, nodes(completed)[0]), {"values": values, "name": "n"})
    assert answer.status_code == 422
    page = answer.content.decode()
    assert told in page
    # What was written is still there, to be mended.
    assert f">{escape(values)}</textarea>" in page
    assert Run.objects.count() == 1


def test_a_step_that_still_waits_is_forked_before_it(waiting: Run, bob: User, browse: Browse) -> None:
    node = nodes(waiting)[-1]
    visitor = browse(bob)
    assert "After this step" not in visitor.get(place(waiting, node)).content.decode()
    assert visitor.post(place(waiting, node), {"name": "n"}).status_code == 302
    assert played(Run.objects.exclude(id=waiting.id).get()).status == "waiting"


def test_vera_charlie_and_unknown_steps_get_404(
    completed: Run, vera: User, charlie: User, bob: User, browse: Browse
) -> None:
    url = place(completed, nodes(completed)[0])
    for user in (vera, charlie):
        assert browse(user).get(url).status_code == 404
        assert browse(user).post(url, {"name": "n"}).status_code == 404
    assert browse(bob).get(f"/agents/{completed.id}/steps/nothing/forks/").status_code == 404
    assert Run.objects.count() == 1
