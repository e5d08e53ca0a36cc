from __future__ import annotations

import pytest
from django.db import transaction

from operators.models import Channel, Event, Run
from operators.services import announcements, intake, timeline
from tests.domain.lab import played, started, thread


def test_news_is_repeated_on_the_general_channel_once(lab):
    run = played(started(lab, "four"))
    news = [event for event in thread(run) if event.kind in announcements.PUBLIC_KINDS]

    first = announcements.publicly(news)
    second = announcements.publicly(news)

    assert [event.kind for event in first] == ["run.started", "run.completed"]
    assert second == []
    assert [event.seq for event in timeline.read(run.project_id, "public")] == [1, 2]
    assert Channel.objects.get().last_seq == 2


def test_the_general_channels_numbers_have_no_hole(lab):
    for _ in range(3):
        run = played(started(lab, "four"))
        news = [event for event in thread(run) if event.kind in announcements.PUBLIC_KINDS]
        announcements.publicly(news[:1])
        announcements.publicly(news)

    assert [event.seq for event in timeline.read("default", "public")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.django_db(transaction=True)
def test_what_is_committed_is_told_to_everybody(gate):
    assert announcements.settle(20)

    told = Event.objects.filter(channel="public", run=gate.run).values_list("kind", flat=True)
    assert list(told) == ["run.started", "gate.opened"]


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_told_to_nobody(engagement, alice):
    with transaction.atomic():
        intake.cancel(engagement, actor=alice)
        transaction.set_rollback(True)

    assert announcements.settle(20)
    assert not Event.objects.filter(kind="run.cancelled").exists()
    assert Run.objects.get(pk=engagement.pk).status == "queued"


def test_the_newest_events_come_in_order(lab):
    run = played(started(lab, "four"))
    channel = f"t_{run.id}"

    assert [event.seq for event in timeline.newest(run.project_id, channel, limit=3)] == [
        run.last_seq - 2, run.last_seq - 1, run.last_seq,
    ]  # fmt: skip
    assert [event.seq for event in timeline.newest(run.project_id, channel, before=3)] == [1, 2]
    assert [event.seq for event in timeline.read(run.project_id, channel, after=2, limit=2)] == [3, 4]
