"""A failed run tries again: from its last good step, once, and never against a person's no."""

from __future__ import annotations

from collections import Counter

import pytest
from django.contrib.auth.models import User

from openvibe import node, operator, workflow
from operators import definitions
from operators.errors import NotRetryable
from operators.models import Event, Operator, Project, Run
from operators.services import compiled, execution, intake, registration, waits

BROKEN = {"second"}


@operator(id="shaky")
class Shaky:
    done: list[str] = []

    @workflow(id="steps", inputs=())
    class Steps:
        @node
        def first(self, state):
            return _done(state, "first")

        @node
        def second(self, state):
            return _done(state, "second")

        @node
        def third(self, state):
            return _done(state, "third")


def _done(state, name):
    if name in BROKEN:
        raise RuntimeError("the outside world is away")
    return {"done": [*state["done"], name]}


@pytest.fixture
def shaky(project: Project):
    yield registration.register(project, definitions.registry.register(Shaky))
    definitions.registry.remove("shaky")
    compiled.workflow.cache_clear()
    BROKEN.clear()
    BROKEN.add("second")


def failed(shaky: Operator, alice: User) -> Run:
    run = intake.request(shaky.workflows.get(), input={}, actor=alice)
    execution.perform(run.id)
    run.refresh_from_db()
    assert run.status == Run.Status.FAILED
    return run


def test_a_retried_run_goes_on_from_its_last_good_step(shaky: Operator, alice: User) -> None:
    run = failed(shaky, alice)
    BROKEN.clear()
    assert intake.retry(run, actor=alice).status == Run.Status.QUEUED
    execution.perform(run.id)
    run.refresh_from_db()
    assert (run.status, run.error) == (Run.Status.COMPLETED, None)
    assert run.output == {"done": ["first", "second", "third"]}
    finished = Counter(Event.objects.filter(run=run, kind="step.finished").values_list("node", flat=True))
    assert finished == {"first": 1, "second": 1, "third": 1}
    seqs = list(Event.objects.filter(run=run, channel=f"t_{run.id}").order_by("seq").values_list("seq", flat=True))
    assert seqs == list(range(1, run.last_seq + 1))
    assert Event.objects.get(run=run, kind="run.retried", channel=f"t_{run.id}").actor == "alice"


def test_a_run_may_fail_and_be_retried_more_than_once(shaky: Operator, alice: User) -> None:
    run = failed(shaky, alice)
    intake.retry(run, actor=alice)
    execution.perform(run.id)
    run.refresh_from_db()
    assert run.status == Run.Status.FAILED
    BROKEN.clear()
    intake.retry(run, actor=alice)
    execution.perform(run.id)
    run.refresh_from_db()
    assert run.output == {"done": ["first", "second", "third"]}


def test_each_retry_is_a_turn_of_its_own(shaky: Operator, alice: User) -> None:
    run = intake.request(shaky.workflows.get(), input={}, actor=None)
    turns = [run.turn_id]
    for _ in range(2):
        execution.perform(run.id)
        run.refresh_from_db()
        turns.append(intake.retry(run, actor=alice).turn_id)

    assert turns == [f"{run.id}-0", f"{run.id}-1", f"{run.id}-2"]
    assert [event.data for event in Event.objects.filter(run=run, kind="run.retried")] == [{"retry": 1}, {"retry": 2}]


def test_two_retries_at_once_are_one(shaky: Operator, alice: User) -> None:
    run = failed(shaky, alice)
    same = Run.objects.get(pk=run.pk)
    intake.retry(run, actor=alice)
    with pytest.raises(NotRetryable, match="has not failed"):
        intake.retry(same, actor=alice)
    assert Event.objects.filter(run=run, kind="run.retried", channel=f"t_{run.id}").count() == 1


def test_a_persons_no_is_not_retried(registered: dict[str, Operator], alice: User) -> None:
    flow = registered["revenue_ops"].workflows.get(slug="engagement")
    run = intake.request(flow, input=flow.sample_input, actor=alice)
    execution.perform(run.id)
    waits.answer(run.waits.select_related("run").get(), waits.Answer("reject"), actor=alice)
    execution.perform(run.id)
    run.refresh_from_db()
    with pytest.raises(NotRetryable, match="rejected by a person"):
        intake.retry(run, actor=alice)
