"""A failed run tries again: from its last good step, once, and never against a person's no."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypedDict

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from openvibe import node, operator, workflow
from operators import definitions
from operators.errors import NotRetryable, NotWaiting
from operators.models import Event, Operator, Project, Run, Wait
from operators.services import compiled, execution, intake, registration, waits

BROKEN = {"second"}


class Two(TypedDict, total=False):
    left: Any
    right: Any


def _right(_: Two) -> Two:
    answer = interrupt("right?")
    if BROKEN:
        raise RuntimeError("the outside world is away")
    return {"right": answer}


def _branching() -> Any:
    graph = StateGraph(Two)
    graph.add_node("left", lambda _: {"left": interrupt("left?")})
    graph.add_node("right", _right)
    for name in ("left", "right"):
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    return graph


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

    @workflow(id="branches", graph=_branching())
    class Branches: ...


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
    run = intake.request(shaky.workflows.get(slug="steps"), input={}, actor=alice)
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


def test_a_gate_that_the_failure_of_another_branch_has_closed_is_asked_anew(shaky: Operator, alice: User) -> None:
    def at(node: str) -> Wait:
        return Wait.objects.select_related("run").order_by("-opened_at").filter(run=run, node=node)[0]

    def answer(wait: Wait) -> None:
        waits.answer(wait, waits.Answer("answer", values={"answer": "yes"}), actor=alice)

    run = intake.request(shaky.workflows.get(slug="branches"), input={}, actor=alice)
    execution.perform(run.id)
    closed = at("left")
    answer(at("right"))
    execution.perform(run.id)
    run.refresh_from_db()
    assert (run.status, at("left").status) == (Run.Status.FAILED, "cancelled")
    BROKEN.clear()
    intake.retry(run, actor=alice)
    execution.perform(run.id)
    run.refresh_from_db()
    assert (run.status, at("left").status) == (Run.Status.WAITING, "pending")
    with pytest.raises(NotWaiting, match="its run was failed"):
        answer(Wait.objects.get(pk=closed.pk))
    answer(at("left"))
    execution.perform(run.id)
    run.refresh_from_db()
    assert run.output == {"left": "yes", "right": "yes"}


def test_each_retry_is_a_turn_of_its_own(shaky: Operator, alice: User) -> None:
    run = intake.request(shaky.workflows.get(slug="steps"), input={}, actor=None)
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


def test_a_run_whose_days_are_over_is_not_retried(shaky: Operator, alice: User) -> None:
    run = failed(shaky, alice)
    Run.objects.filter(pk=run.pk).update(expires_at=timezone.now())
    run.refresh_from_db()
    with pytest.raises(NotRetryable, match="longer than its workflow allows"):
        intake.retry(run, actor=alice)
    run.refresh_from_db()
    assert run.status == Run.Status.FAILED


def test_a_persons_no_is_not_retried(registered: dict[str, Operator], alice: User) -> None:
    flow = registered["revenue_ops"].workflows.get(slug="engagement")
    run = intake.request(flow, input=flow.sample_input, actor=alice)
    execution.perform(run.id)
    waits.answer(run.waits.select_related("run").get(), waits.Answer("reject"), actor=alice)
    execution.perform(run.id)
    run.refresh_from_db()
    with pytest.raises(NotRetryable, match="rejected by a person"):
        intake.retry(run, actor=alice)
