"""Calls to the outside end with their run's claim: a silent model holds up nobody who cancels."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from openvibe import configuration, configure, llm_node, node, operator, workflow
from operators import definitions
from operators.models import Run
from operators.services import compiled, execution, intake, registration
from tests.acceptance.site import until
from tests.contracts.vendors import VENDORS, Reply, VendorServer, running
from tests.domain.lab import kinds, played, started

pytestmark = pytest.mark.django_db(transaction=True)
OPENAI = next(vendor for vendor in VENDORS if vendor.name == "openai")
awaiting, cancelled = threading.Event(), threading.Event()


@operator(id="caller", name="Caller")
class Caller:
    text: str = ""

    @workflow(id="ask")
    class Ask:
        @llm_node(model="gpt-4o-mini", attempts=3)
        def ask(self, state):
            return {"user": "Say hello!", "output_key": "text"}

    @workflow(id="hurry")
    class Hurry:
        @llm_node(model="gpt-4o-mini", timeout=timedelta(seconds=0.5))
        def ask(self, state):
            return {"user": "Say hello!", "output_key": "text"}

    @workflow(id="wait")
    class Wait:
        @node
        async def wait(self, state):
            awaiting.set()
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()


@pytest.fixture
def caller(project):
    awaiting.clear()
    cancelled.clear()
    yield registration.register(project, definitions.registry.register(Caller))
    definitions.registry.remove("caller")
    compiled.workflow.cache_clear()


@pytest.fixture
def model() -> Iterator[VendorServer]:
    """A model that takes every question and is silent."""
    before = configuration.current()
    with running(Reply(end="hold")) as server:
        provider: Any = OPENAI.provider(server.url, timeout=60)
        configure(llm=provider)
        definitions.provider.cache_clear()
        yield server
        provider.close()
    configuration.restore(before)
    definitions.provider.cache_clear()


@pytest.fixture
def playing() -> Iterator[Callable[[Run], Future[None]]]:
    """Play a run on a thread of its own."""

    def play(run: Run) -> None:
        try:
            execution.perform(run.id)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        yield lambda run: threads.submit(play, run)


def test_cancelling_hangs_up_on_a_silent_model(caller, model, playing, alice):
    run = started(caller, "ask")
    play = playing(run)
    until(lambda: model.requests, "the model was asked")

    intake.cancel(run, actor=alice)

    assert play.result(30) is None
    assert model.hung_up.wait(30)
    assert len(model.requests) == 1
    assert kinds(run)[-1] == "run.cancelled"


def test_a_model_is_asked_in_the_trace_of_the_run(caller, model):
    model.replies = [Reply(OPENAI.answer("Hello"))]
    run = played(started(caller, "ask"))
    assert run.status == "completed"
    assert [told.get("traceparent") for told in model.headers] == [run.traceparent]


def test_cancelling_cancels_a_node_that_awaits(caller, playing, alice):
    run = started(caller, "wait")
    play = playing(run)
    assert awaiting.wait(30)

    intake.cancel(run, actor=alice)

    assert play.result(30) is None
    assert cancelled.wait(30)
    assert kinds(run)[-1] == "run.cancelled"


def test_a_run_that_somebody_else_took_over_is_hung_up_here(caller, model, playing):
    run = started(caller, "ask")
    play = playing(run)
    until(lambda: model.requests, "the model was asked")
    Run.objects.filter(pk=run.pk).update(epoch=2)
    assert play.result(30) is None
    assert model.hung_up.wait(30)
    assert Run.objects.get(pk=run.pk).status == "running"


def test_a_call_goes_on_while_other_runs_are_cancelled(caller, model, playing, alice):
    runs = [started(caller, "ask") for _ in range(3)]
    plays = [playing(run) for run in runs]
    until(lambda: len(model.requests) == len(runs), "the model was asked")
    intake.cancel(runs[0], actor=alice)
    assert plays[0].result(30) is None
    assert [play.done() for play in plays] == [True, False, False]
    for run in runs[1:]:
        intake.cancel(run, actor=alice)


def test_a_nodes_timeout_hangs_up_and_leaves_no_thread_behind(caller, model):
    before = set(threading.enumerate())
    run = played(started(caller, "hurry"))
    assert (run.status, run.error["kind"]) == ("failed", "StepTimeout")
    assert model.hung_up.wait(30)
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("step")]
