"""A try of an effect that comes to its end after a later one: what was done stays done."""

from __future__ import annotations

import pytest
from django.utils import timezone

from openvibe.host import MemoryHost
from openvibe.ledger import ledger
from operators.models import Effect
from operators.services import effects
from tests.domain.lab import started

WHERE = {"step_id": "step", "key": "charge"}


@pytest.mark.parametrize("late", ["failed", "unknown"])
def test_what_was_confirmed_stays_so_in_the_database(lab, late):
    run, now = started(lab, "four"), timezone.now()
    for _ in range(2):
        effects.attempt(run.id, effects.known(run.id, **WHERE), node="pay", **WHERE, now=now)
    effects.settle(run.id, **WHERE, state="confirmed", result={"paid": 5}, now=now)
    effects.settle(run.id, **WHERE, state=late, result=None, now=now)
    row = Effect.objects.get(run=run)
    assert (row.state, row.result, row.attempts) == ("confirmed", {"paid": 5}, 2)


def test_what_was_confirmed_stays_so_in_a_script(tmp_path):
    kept, host = ledger(f"sqlite:///{tmp_path / 'runs.db'}"), MemoryHost()
    for _ in range(2):
        kept.effect("run", "step", "charge")
        host.effect(node="pay", **WHERE)
    kept.settle("run", "step", "charge", state="confirmed", result=5)
    kept.settle("run", "step", "charge", state="failed")
    host.settle(node="pay", **WHERE, state="confirmed", result=5)
    host.settle(node="pay", **WHERE, state="failed")
    assert kept.effect("run", "step", "charge").result == host.effect(node="pay", **WHERE).result == 5
