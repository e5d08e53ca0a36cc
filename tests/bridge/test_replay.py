"""Dead letters, read again: what is right by now becomes what it should, and what is wrong stays with its reason."""

from __future__ import annotations

import pytest
from django.test import Client

from openvibe.bus import Message
from operators.bridge import ingest
from operators.models import DeadLetter, Event, Project
from tests.bridge.conftest import make_run, said

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("memory")]

EARLY = Message("cg.v1.default.t_run_77.evt.agent.scout.message", b'{"id": "m1", "content": "too early"}')
BAD = Message("cg.v1.default.public.evt.agent.scout.message", b"{not json")


def test_a_letter_that_is_right_by_now_becomes_what_it_should_once(project: Project) -> None:
    ingest.take([EARLY])
    letter = DeadLetter.objects.get()
    assert not ingest.replay(letter)
    make_run(project, "run_77")
    assert ingest.replay(letter)
    assert ingest.replay(letter)
    assert said("t_run_77") == ["too early"]
    assert letter.replayed_at is not None


def test_a_letter_that_is_refused_again_stays_and_is_told_once(project: Project) -> None:
    ingest.take([BAD])
    letter = DeadLetter.objects.get()
    assert not ingest.replay(letter)
    assert (letter.replayed_at, "no JSON" in letter.reason) == (None, True)
    assert Event.objects.filter(kind="error").count() == 1


def test_a_letter_that_comes_again_after_its_replay_is_one_again(project: Project) -> None:
    ingest.take([EARLY])
    run = make_run(project, "run_77")
    assert ingest.replay(DeadLetter.objects.get())
    run.events.all().delete()
    run.delete()
    ingest.take([EARLY])
    assert DeadLetter.objects.get().replayed_at is None


def test_an_administrator_replays_letters(project: Project, admin_client: Client) -> None:
    ingest.take([EARLY, BAD])
    make_run(project, "run_77")
    chosen = list(DeadLetter.objects.values_list("pk", flat=True))
    form = {"action": "replay", "_selected_action": chosen}
    page = admin_client.post("/admin/operators/deadletter/", form, follow=True).content.decode()
    assert "Read now: 1." in page
    assert "Refused again: 1." in page
    assert said("t_run_77") == ["too early"]


def test_nobody_else_replays_letters(project: Project, client: Client, django_user_model: type) -> None:
    ingest.take([EARLY])
    make_run(project, "run_77")
    client.force_login(django_user_model.objects.create_user("charlie", is_staff=True))  # type: ignore[attr-defined]
    form = {"action": "replay", "_selected_action": [DeadLetter.objects.get().pk]}
    assert client.post("/admin/operators/deadletter/", form).status_code == 403
    assert said("t_run_77") == []
