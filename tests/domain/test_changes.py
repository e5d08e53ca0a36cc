"""Runs that wait for a change of the shared context: woken by a put, once, however the two meet."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from openvibe import RunError, node, operator, workflow
from operators import clock, definitions
from operators.models import ContextEntry, Operator, Project, Run, Wait
from operators.services import compiled, context, deliveries, intake, registration, waits
from tests.domain.lab import kinds, played, started

KEY = "ada/score"


@operator(id="watcher")
class Watcher:
    after: int = 0
    value: int = 0
    seen: list[int] = []
    note: str = ""

    @workflow(id="next", inputs=("after",))
    class Next:
        @node
        def look(self, state, ctx):
            change = ctx.context.watch("leads", KEY, after=state["after"], timeout=timedelta(hours=1))
            return {"value": change.value or 0, "seen": [change.revision], "note": str(change.deleted)}

    @workflow(id="until", inputs=())
    class Until:
        @node
        def look(self, state, ctx):
            change = ctx.context.entry("leads", KEY)
            while (change.value or 0) < 3:
                change = ctx.context.watch("leads", KEY, after=change.revision)
            # What is asked after a watch that is not needed any more gets its own answer.
            told = ctx.context.watch("market", "word", after=0)
            return {"value": change.value, "note": told.value}

    @workflow(id="patient", inputs=())
    class Patient:
        @node
        def look(self, state, ctx):
            try:
                ctx.context.watch("leads", KEY, after=0, timeout=timedelta(minutes=5))
            except RunError as error:
                return {"note": str(error)}

    @workflow(id="tell", inputs=("value",))
    class Tell:
        @node
        def tell(self, state, ctx):
            ctx.context.put("leads", KEY, state["value"])

        @node
        def rest(self, state):
            return {"note": "told"}


@pytest.fixture
def watcher(project: Project) -> Iterator[Operator]:
    definition = definitions.registry.register(Watcher)
    yield registration.register(project, definition)
    definitions.registry.remove(definition.spec.id)
    compiled.workflow.cache_clear()


def put(value: object, key: str = KEY, bucket: str = "leads") -> None:
    context.put("default", bucket, key, value, author="alice")


def asked(run: Run) -> Wait:
    """Do what the bell for the run's open wait does."""
    wait = Wait.objects.pending().get(run=run)
    deliveries.ask(wait.id)
    return Wait.objects.get(id=wait.id)


def test_a_put_wakes_the_run_with_what_was_put(watcher: Operator, django_capture_on_commit_callbacks) -> None:
    run = played(started(watcher, "next"))
    assert (run.status, asked(run).status) == ("waiting", "pending")
    with django_capture_on_commit_callbacks() as bells:
        put(7)
    assert len(bells) == 1
    assert asked(run).status == "resolved"
    run = played(run)
    assert (run.status, run.output["value"], run.output["seen"]) == ("completed", 7, [1])
    assert kinds(run)[-5:] == ["change.requested", "change.answered", "run.resumed", "step.finished", "run.completed"]


@pytest.mark.django_db(transaction=True)
def test_a_change_that_is_committed_rings_in_the_watchers_queue_and_disturbs_no_writer(
    watcher: Operator, bells
) -> None:
    run = played(started(watcher, "next"))
    wait = asked(run)
    bells()
    writer = played(started(watcher, "tell", value=5))
    assert (writer.status, writer.error, writer.output["note"]) == ("completed", None, "told")
    assert ("runs-watcher", "operators.ask", wait.id) in bells()
    assert asked(run).status == "resolved"
    again = played(started(watcher, "next", after=1))
    second = asked(again)
    put(7)
    assert ("runs-watcher", "operators.ask", second.id) in bells()


def test_what_changed_between_the_look_and_the_watch_is_not_missed(watcher: Operator) -> None:
    put(1), put(2), put(3)
    run = played(started(watcher, "next", after=1))
    assert asked(run).status == "resolved"
    assert played(run).output["seen"] == [2]


def test_the_put_of_another_run_wakes_and_so_does_a_deletion(watcher: Operator) -> None:
    run = played(started(watcher, "next"))
    asked(run)
    assert played(started(watcher, "tell", value=5)).status == "completed"
    asked(run)
    assert played(run).output["value"] == 5
    again = played(started(watcher, "next", after=1))
    asked(again)
    context.delete("default", "leads", KEY, author="alice")
    asked(again)
    assert (played(again).output["seen"], again.status) == ([2], "waiting")
    assert Run.objects.get(pk=again.pk).output["note"] == "True"


def test_a_value_that_nobody_watches_is_written_without_another_query(watcher: Operator) -> None:
    put(1)
    with CaptureQueriesContext(connection) as before:
        put(2)
    run = played(started(watcher, "next", after=2))
    asked(run)
    with CaptureQueriesContext(connection) as watched:
        put(3)
    with CaptureQueriesContext(connection) as after:
        put(4)
    assert len(after) == len(before) < len(watched)
    assert not any("wait" in query["sql"] for query in before)


def test_a_lost_bell_is_made_up_for_by_the_clock(watcher: Operator) -> None:
    run = played(started(watcher, "next"))
    asked(run)
    put(7)
    Wait.objects.update(opened_at=timezone.now() - timedelta(seconds=10))
    clock.tick()
    assert played(run).output["value"] == 7


def test_a_watch_in_a_loop_sees_what_it_wants_and_what_is_asked_afterwards_gets_its_own_answer(
    watcher: Operator,
) -> None:
    run = played(started(watcher, "until"))
    for value in (1, 2):
        asked(run)
        put(value)
        asked(run)
        assert (played(run).status, Wait.objects.pending().get(run=run).payload["key"]) == ("waiting", KEY)
    asked(run)
    # The change that wakes the run and the one that it wants come before it is played again.
    put(2), put(4)
    asked(run)
    played(run)
    assert Wait.objects.pending().get(run=run).payload["key"] == "word"
    put("done", key="word", bucket="market")
    asked(run)
    run = played(run)
    assert (run.status, run.output["value"], run.output["note"]) == ("completed", 4, "done"), run.error


def test_nothing_until_the_deadline_is_an_error_that_the_node_may_catch(watcher: Operator) -> None:
    run = played(started(watcher, "patient"))
    asked(run)
    Wait.objects.update(deadline=timezone.now() - timedelta(seconds=1))
    clock.tick()
    run = played(run)
    assert "watched leads/ada/score: It did not change before" in run.output["note"]
    assert "change.expired" in kinds(run)


def test_another_projects_change_of_the_same_key_wakes_nobody(watcher: Operator, other_project: Project) -> None:
    run = played(started(watcher, "next"))
    asked(run)
    context.put(other_project.id, "leads", KEY, 7, author="charlie")
    put(7, key="ada/name")
    assert asked(run).status == "pending"


def test_a_change_after_the_runs_end_is_told_to_nobody(watcher: Operator, alice: User) -> None:
    run = played(started(watcher, "next"))
    wait = asked(run)
    intake.cancel(run, actor=alice)
    put(7)
    assert not ContextEntry.objects.get(key=KEY).watched
    deliveries.ask(wait.id)
    assert kinds(run)[-1] == "run.cancelled"


@pytest.mark.django_db(transaction=True)
def test_a_put_under_way_while_the_run_goes_to_sleep_wakes_it(watcher: Operator) -> None:
    """The writer has written and not committed when the watcher looks: whoever is second sees the first."""
    run = played(started(watcher, "next"))
    written, looked = threading.Event(), threading.Event()

    def write() -> None:
        try:
            with transaction.atomic():
                put(7)
                written.set()
                # The watcher now stands at the value's row; there is nothing to see of that but time.
                looked.wait(0.3)
        finally:
            connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    assert written.wait(10)
    assert asked(run).status == "resolved"
    looked.set()
    writer.join(10)
    assert played(run).output["value"] == 7


def test_two_bells_for_one_change_answer_once(watcher: Operator) -> None:
    run = played(started(watcher, "next"))
    wait = asked(run)
    put(7)
    deliveries.ask(wait.id)
    deliveries.ask(wait.id)
    assert kinds(run).count("change.answered") == 1
    assert not waits.settle(Wait.objects.get(id=wait.id), result=None)
