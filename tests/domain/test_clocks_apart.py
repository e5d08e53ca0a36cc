"""Hosts whose clocks differ: a checkpoint that is made later sorts after the one it goes on from, whoever makes it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from langgraph.checkpoint.base import id as ids

from openvibe import node, operator, workflow
from operators import clock
from operators.models import Operator, Project, Run, Wait
from operators.services import compiled
from tests.domain.lab import kinds, played, served, started

orders: list[str] = []


@operator(id="traveller")
class Traveller:
    number: int = 0

    @workflow(id="rest_twice", inputs=())
    class RestTwice:
        @node
        def first(self, state):
            return {"number": state["number"] + 1, "wait_duration": timedelta(seconds=1)}

        @node
        def pack(self, state):
            return {"number": state["number"] + 1}

        @node
        def ship(self, state, ctx):
            ctx.effect("ship", lambda: orders.append("ship"))
            return {"number": state["number"] + 1, "wait_duration": timedelta(seconds=1)}

        @node
        def last(self, state):
            return {"number": state["number"] + 1}


@pytest.fixture
def traveller(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    monkeypatch.setattr(ids, "_last_v6_timestamp", None)
    with served(project, Traveller) as found:
        yield found
    compiled.workflow.cache_clear()
    orders.clear()


def go_to_host(monkeypatch: pytest.MonkeyPatch, *, ahead: timedelta) -> None:
    """Let LangGraph's clock be that of a process on another host."""
    ticks = (time.time_ns() + int(ahead.total_seconds() * 1e9)) // 100 + 0x01B21DD213814000
    monkeypatch.setattr(ids, "_last_v6_timestamp", ticks if ahead else None)


def woken(run: Run) -> Run:
    Wait.objects.update(deadline=timezone.now())
    clock.tick()
    return played(run)


def test_a_host_whose_clock_is_behind_goes_on_after_what_one_ahead_has_done(traveller, monkeypatch):
    go_to_host(monkeypatch, ahead=timedelta(hours=1))
    run = played(started(traveller, "rest_twice"))
    go_to_host(monkeypatch, ahead=timedelta())
    run = woken(woken(run))
    assert (run.status, orders) == ("completed", ["ship"])
    assert run.output["number"] == 4
    assert kinds(run).count("step.finished") == 4
