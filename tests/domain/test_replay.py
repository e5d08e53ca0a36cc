"""`manage.py replay`: a run's timeline once more."""

from __future__ import annotations

import io
import time
from datetime import timedelta

import orjson
import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.utils import timezone

from operators.models import Event, Run
from tests.domain.lab import played, started, thread


def replayed(run: Run, **options) -> list[dict]:
    out = io.StringIO()
    call_command("replay", run.id, stdout=out, **options)
    return [orjson.loads(line) for line in out.getvalue().splitlines()]


def test_the_events_come_in_their_order_with_their_times(lab):
    run = played(started(lab, "four"))
    second = thread(run).get(seq=2)
    Event.objects.filter(run=run, seq__gte=2).update(created_at=F("created_at") + timedelta(hours=2))

    lines = replayed(run, speed=0)

    assert [(line["seq"], line["type"]) for line in lines] == list(thread(run).values_list("seq", "kind"))
    assert [line["at"] >= 7200 for line in lines] == [False] + [True] * (run.last_seq - 1)
    assert lines[1]["data"] == second.data


def test_what_others_wrote_moves_no_terminal(lab):
    run = started(lab, "four")
    Event.objects.filter(run=run, seq=1).update(data={"message": "\x9b2J"})
    out = io.StringIO()

    call_command("replay", run.id, stdout=out, speed=0)

    assert r"\u009b2J" in out.getvalue()
    assert "\x9b" not in out.getvalue()


def test_the_speed_shortens_the_pauses(lab):
    run = started(lab, "four")
    played(run)
    now = timezone.now()
    for seq in range(1, 4):
        Event.objects.filter(run=run, seq=seq).update(created_at=now + timedelta(seconds=seq))
    Event.objects.filter(run=run, seq__gt=3).delete()

    began = time.monotonic()
    lines = replayed(run, speed=20)

    assert [line["at"] for line in lines] == [0, 1, 2]
    assert 0.1 <= time.monotonic() - began < 1


def test_what_cannot_be_replayed_is_a_sentence(lab):
    with pytest.raises(CommandError, match="no run 'run_nowhere'"):
        call_command("replay", "run_nowhere")
    run = started(lab, "four")
    with pytest.raises(CommandError, match="use a number from 0 on"):
        replayed(run, speed=-1)
    Run.objects.filter(pk=run.pk).update(archived_at=timezone.now())
    with pytest.raises(CommandError, match="in the archive since"):
        replayed(run)
