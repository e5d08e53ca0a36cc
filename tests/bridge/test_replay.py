"""Dead letters, read again: what is right by now becomes what it should, and what is wrong stays with its reason."""

from __future__ import annotations

import pytest
from django.test import Client

from openvibe.bus import Message
from openvibe.protocol.headers import DEPTH, new_trace
from operators.bridge import ingest, letters
from operators.models import DeadLetter, Event, Project
from tests.bridge.conftest import make_run, said

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("memory")]

EARLY = Message("cg.v1.default.t_run_77.evt.agent.scout.message", b'{"id": "m1", "content": "too early"}')
BAD = Message("cg.v1.default.public.evt.agent.scout.message", b"{not json")


def test_a_letter_that_is_right_by_now_becomes_what_it_should_once(project: Project) -> None:
    ingest.take([EARLY])
    letter = DeadLetter.objects.get()
    assert ingest.replay(letter) == letter.reason != ""
    make_run(project, "run_77")
    assert ingest.replay(letter) == ""
    assert ingest.replay(letter) == ""
    assert said("t_run_77") == ["too early"]
    assert letter.replayed_at is not None


def test_a_letter_that_is_refused_again_stays_and_is_told_once(project: Project) -> None:
    ingest.take([BAD])
    letter = DeadLetter.objects.get()
    assert "no JSON" in ingest.replay(letter)
    assert (letter.replayed_at, "no JSON" in letter.reason) == (None, True)
    assert Event.objects.filter(kind="error").count() == 1


def test_a_letter_that_comes_again_after_its_replay_is_one_again(project: Project) -> None:
    ingest.take([EARLY])
    run = make_run(project, "run_77")
    assert not ingest.replay(DeadLetter.objects.get())
    run.events.all().delete()
    run.delete()
    ingest.take([EARLY])
    assert DeadLetter.objects.get().replayed_at is None


def test_one_body_with_headers_that_say_something_else_is_another_letter(project: Project) -> None:
    event, body = "operators.scout.events.found", b'{"id": "m1"}'
    said = [{}, {DEPTH: "99"}, {DEPTH: "99", "CG-User-ID": "alice"}]
    ingest.take([Message(event, body, headers) for headers in said])
    found = DeadLetter.objects.order_by("id")
    assert [letter.headers for letter in found] == said
    rules = ["protocol_violation", "recursion_depth_exceeded", "recursion_depth_exceeded"]
    assert [letter.reason.partition(":")[0] for letter in found] == rules
    assert [ingest.replay(letter).partition(":")[0] for letter in found] == rules


def test_another_copy_of_a_message_is_the_same_letter(project: Project) -> None:
    copies = [
        {"CG-Sender": "scout", "Nats-Msg-Id": "m1", "CG-Timestamp": f"2026-01-0{day}", "traceparent": new_trace(),
         "Nats-Stream-Source": f"operators {day}"}
        for day in (1, 2)
    ]  # fmt: skip
    for headers in copies:
        ingest.take([Message("operators.scout.events.found", b"{}", headers)])
    assert DeadLetter.objects.get().headers == copies[0]


def test_a_letter_with_a_long_subject_is_kept_whole_and_read_again(project: Project) -> None:
    subject = f"operators.scout.events.{'.'.join(['a' * 60] * 15)}"
    ingest.take([Message(subject, b'{"id": "m1", "content": "far"}')])
    letter = DeadLetter.objects.get()
    assert letter.subject == subject
    DeadLetter.objects.update(headers={DEPTH: "0"})
    letter.refresh_from_db()
    assert ingest.replay(letter) == ""
    assert said() == ["far"]


@pytest.mark.parametrize("subject", ["$KV.context-leads.acme", "system.health", "tenant.acme.system.health"])
def test_what_nobody_reads_again_says_so_and_stays(project: Project, subject: str) -> None:
    letters.bury(Message(subject, b"{"), "It was no JSON")
    letter = DeadLetter.objects.get()
    assert "is not read again" in ingest.replay(letter)
    letter.refresh_from_db()
    assert (letter.reason, letter.replayed_at) == ("It was no JSON", None)


def test_an_administrator_replays_letters(project: Project, admin_client: Client) -> None:
    ingest.take([EARLY, BAD])
    make_run(project, "run_77")
    chosen = list(DeadLetter.objects.values_list("pk", flat=True))
    form = {"action": "replay", "_selected_action": chosen}
    page = admin_client.post("/admin/operators/deadletter/", form, follow=True).content.decode()
    assert "Read now: 1." in page
    assert f"Refused again: 1. {BAD.subject}: The body is no JSON" in page
    assert said("t_run_77") == ["too early"]


def test_nobody_else_replays_letters(project: Project, client: Client, django_user_model: type) -> None:
    ingest.take([EARLY])
    make_run(project, "run_77")
    client.force_login(django_user_model.objects.create_user("charlie", is_staff=True))  # type: ignore[attr-defined]
    form = {"action": "replay", "_selected_action": [DeadLetter.objects.get().pk]}
    assert client.post("/admin/operators/deadletter/", form).status_code == 403
    assert said("t_run_77") == []
