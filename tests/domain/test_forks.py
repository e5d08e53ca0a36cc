"""Forks: new runs that begin with the state of another one at a step, which itself stays as it is."""

from __future__ import annotations

import operator as operators_of_python
from datetime import timedelta
from typing import Annotated, TypedDict

import pytest
from django.utils import timezone
from langgraph.graph import END, START, StateGraph

from openvibe import human_in_the_loop, node, operator, workflow
from operators import clock, definitions
from operators.errors import KeyReused, Misfit, NotForkable, OperatorDisabled
from operators.models import Checkpoint, CheckpointWrite, Effect, Operator, Run, Wait
from operators.services import compiled, forks, intake, registration, waits
from tests.domain.lab import kinds, meddling, played, started, thread

#: What the workshop has sent out.
sent: list[str] = []


@operator(id="workshop", name="Workshop")
class Workshop:
    number: int = 0
    text: str = ""
    names: list[str] = []

    @workflow(id="sum", inputs=("number",))
    class Sum:
        @node
        def first(self, state):
            return {"number": state["number"] + 1}

        @node
        def second(self, state, ctx):
            ctx.effect("send", lambda: sent.append(ctx.idempotency_key("send")))
            return {"number": state["number"] * 10}

        @human_in_the_loop(prompt="Good?", edits=("number",), decisions=("approve", "reject"))
        def judged(self, state):
            return {"number": state["number"]}

        @node
        def last(self, state):
            return {"text": f"{state['number']} {state['text']}".strip()}

    @workflow(id="huge", inputs=())
    class Huge:
        @node
        def write(self, state):
            return {"text": "x" * 40_000}

    @workflow(id="forgetful", inputs=(), checkpointed=False)
    class Forgetful:
        @node
        def only(self, state):
            return {"number": 1}


class Sums(TypedDict, total=False):
    total: int
    parts: Annotated[list[int], operators_of_python.add]


def _graph():
    graph = StateGraph(Sums)
    graph.add_node("one", lambda _: {"parts": [1]})
    graph.add_node("two", lambda _: {"parts": [2]})
    graph.add_node("sum", lambda state: {"total": sum(state["parts"])})
    graph.add_edge(START, "one")
    graph.add_edge(START, "two")
    graph.add_edge(["one", "two"], "sum")
    graph.add_edge("sum", END)
    return graph


@operator(id="quarry", name="Quarry")
class Quarry:
    @workflow(id="parts", graph=_graph())
    class Parts: ...


@pytest.fixture
def workshop(project):
    yield registration.register(project, definitions.registry.register(Workshop))
    definitions.registry.remove("workshop")
    compiled.workflow.cache_clear()
    sent.clear()


@pytest.fixture
def quarry(project):
    yield registration.register(project, definitions.registry.register(Quarry))
    definitions.registry.remove("quarry")
    compiled.workflow.cache_clear()


@pytest.fixture
def waiting(workshop: Operator, bob) -> Run:
    """A run that stands at its gate with number 20."""
    return played(started(workshop, "sum", number=1))


def approved(run: Run, bob) -> Run:
    waits.answer(run.waits.select_related("run").get(status="pending"), waits.Answer("approve"), actor=bob)
    return played(run)


def step(run: Run, node: str) -> str:
    return thread(run).filter(kind="step.started", node=node).last().step_id


def everything(run: Run):
    return (
        Run.objects.filter(pk=run.pk).values("status", "epoch", "output", "error", "nodes_executed").get(),
        list(run.waits.values()),
        list(run.effects.values()),
        list(Checkpoint.objects.filter(thread_id=run.id).order_by("pk").values("pk", "blob")),
        list(CheckpointWrite.objects.filter(thread_id=run.id).order_by("pk").values("pk", "blob")),
    )


def test_a_fork_goes_on_after_a_step_with_edited_state(waiting, bob):
    fork = forks.fork(waiting, step_id=step(waiting, "first"), values={"number": 7, "text": "sheep"}, actor=bob)

    fork = approved(played(fork), bob)

    assert (fork.status, fork.output) == ("completed", {"number": 70, "text": "70 sheep"})
    assert (fork.forked_from, fork.forked_at) == (waiting, step(waiting, "first"))
    assert [event.node for event in thread(fork).filter(kind="step.finished")] == ["second", "judged", "last"]


def test_a_fork_without_edits_comes_to_the_same(waiting, bob):
    whole = approved(waiting, bob)

    fork = approved(played(forks.fork(whole, step_id=step(whole, "second"), actor=bob)), bob)

    assert fork.output == whole.output


def test_a_fork_before_a_step_plays_it_again(waiting, bob):
    fork = played(forks.fork(waiting, step_id=step(waiting, "second"), before=True, values={"number": 5}, actor=bob))

    assert fork.waits.get().payload == {"number": 50}


def test_the_source_stays_as_it_is_whatever_its_status(workshop, waiting, bob):
    completed = approved(played(started(workshop, "sum", number=2)), bob)
    for source in (waiting, completed):
        seen = everything(source)
        played(forks.fork(source, step_id=step(source, "second"), values={"number": 3}, actor=bob))
        assert everything(source) == seen


def test_a_gate_that_is_open_in_the_source_is_asked_anew_with_a_wait_of_its_own(waiting, bob):
    gate = waiting.waits.get()
    fork = played(forks.fork(waiting, step_id=gate.step_id, before=True, values={"number": 21}, actor=bob))

    asked = fork.waits.get()
    assert (asked.status, asked.payload, asked.id != gate.id) == ("pending", {"number": 21}, True)
    assert approved(fork, bob).output["number"] == 21
    gate.refresh_from_db()
    assert gate.pending
    assert approved(waiting, bob).output["number"] == 20


def test_an_answer_of_the_source_answers_no_gate_of_the_fork(waiting, bob):
    whole = approved(waiting, bob)
    gate = whole.waits.get()

    fork = played(forks.fork(whole, step_id=gate.step_id, before=True, actor=bob))

    assert (fork.status, fork.waits.get().status) == ("waiting", "pending")


def test_a_fork_after_a_gate_goes_on_upon_the_decision_of_the_source_and_says_so(waiting, bob):
    whole = approved(waiting, bob)

    fork = played(forks.fork(whole, step_id=step(whole, "judged"), values={"text": "cows"}, actor=bob))

    assert fork.output == {"number": 20, "text": "20 cows"}
    assert thread(fork).get(kind="run.forked").data["gates"] == ["judged"]


def test_a_fork_tells_of_the_gates_that_a_deadline_decided_too(waiting, bob):
    Wait.objects.update(on_timeout="approve", deadline=timezone.now() - timedelta(seconds=1))
    clock.tick()
    whole = played(waiting)
    assert whole.status == "completed"

    fork = forks.fork(whole, step_id=step(whole, "judged"), actor=bob)

    assert thread(fork).get(kind="run.forked").data["gates"] == ["judged"]


def test_a_fork_before_a_gate_goes_on_upon_none_of_its_decisions(waiting, bob):
    whole = approved(waiting, bob)

    fork = forks.fork(whole, step_id=step(whole, "judged"), before=True, actor=bob)

    assert thread(fork).get(kind="run.forked").data["gates"] == []


def test_a_fork_of_a_fork_tells_of_the_gates_that_the_first_source_had_passed(waiting, bob):
    whole = approved(waiting, bob)
    fork = played(forks.fork(whole, step_id=step(whole, "judged"), actor=bob))

    again = forks.fork(fork, step_id=step(fork, "last"), before=True, actor=bob)

    assert thread(again).get(kind="run.forked").data["gates"] == ["judged"]


def test_effects_are_the_forks_own(waiting, bob):
    played(forks.fork(waiting, step_id=step(waiting, "first"), actor=bob))

    assert Effect.objects.count() == len(set(sent)) == 2


def test_a_failed_run_is_forked_before_the_step_that_failed(lab, while_playing, bob):
    while_playing(lambda: 1 / 0)
    source = played(started(lab, "meddled"))
    assert source.status == "failed"
    meddling.clear()
    failed = source.error["step_id"]

    with pytest.raises(NotForkable, match="has not finished; fork before it"):
        forks.fork(source, step_id=failed, actor=bob)
    fork = played(forks.fork(source, step_id=failed, before=True, values={"number": 40}, actor=bob))

    assert (fork.status, fork.output["number"]) == ("completed", 42)
    assert Run.objects.get(pk=source.pk).status == "failed"


def test_a_run_is_retried_after_it_was_forked_and_so_is_its_fork(lab, while_playing, bob):
    while_playing(lambda: 1 / 0)
    source = played(started(lab, "meddled"))
    at = source.error["step_id"]
    fork = played(forks.fork(source, step_id=at, before=True, values={"number": 40}, actor=bob))
    assert (source.status, fork.status) == ("failed", "failed")
    meddling.clear()

    ends = [played(intake.retry(run, actor=bob)) for run in (source, fork)]

    assert [(run.status, run.output["number"]) for run in ends] == [("completed", 3), ("completed", 42)]
    assert [kinds(run).count("run.retried") for run in ends] == [1, 1]


def test_a_fork_after_the_last_step_ends_with_the_edited_state(waiting, bob):
    whole = approved(waiting, bob)

    fork = played(forks.fork(whole, step_id=step(whole, "last"), values={"text": "the end"}, actor=bob))

    assert (fork.status, fork.output) == ("completed", {"number": 20, "text": "the end"})


def test_a_fork_of_a_fork_works_too(waiting, bob):
    fork = played(forks.fork(waiting, step_id=step(waiting, "first"), values={"number": 3}, actor=bob))

    again = played(forks.fork(fork, step_id=step(fork, "second"), values={"number": 4}, actor=bob))

    assert (again.waits.get().payload, again.forked_from) == ({"number": 4}, fork)


def test_a_fork_whose_source_is_gone_still_begins_with_its_state(waiting, bob):
    fork = forks.fork(waiting, step_id=step(waiting, "first"), values={"number": 3}, actor=bob)
    Run.objects.filter(pk=fork.pk).update(forked_from=None)

    assert played(fork).waits.get().payload == {"number": 30}


def test_both_threads_tell_of_the_fork(waiting, bob):
    fork = forks.fork(waiting, step_id=step(waiting, "first"), values={"number": 7}, actor=bob)

    told = thread(waiting).get(kind="run.forked")
    assert (told.actor, told.node, told.step_id) == ("bob", "first", fork.forked_at)
    assert told.data == {"to": fork.id, "before": False, "fields": ["number"]}
    own = thread(fork).get(kind="run.forked")
    assert own.data == {"from": waiting.id, "before": False, "values": {"number": 7}, "gates": [], "approvers": []}
    assert kinds(fork) == ["run.queued", "run.forked"]
    assert fork.last_seq == 2


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"number": "many"}, "values.number"),
        ({"colour": "red"}, "values.colour"),
        ({"names": [1]}, "values.names"),
        ({"text": "a\x00b"}, "values.text"),
        ({"number": 2**60}, "values.number"),
    ],
)
def test_a_value_that_does_not_fit_starts_nothing(waiting, bob, values, field):
    with pytest.raises(Misfit) as caught:
        forks.fork(waiting, step_id=step(waiting, "first"), values=values, actor=bob)

    assert [item["field"] for item in caught.value.detail["errors"]] == [field]
    assert Run.objects.count() == 1
    assert "run.forked" not in kinds(waiting)


def test_a_step_of_another_run_is_no_step_of_this_one(workshop, waiting, bob):
    other = played(started(workshop, "sum", number=2))

    with pytest.raises(Misfit, match="names no step of run"):
        forks.fork(waiting, step_id=step(other, "first"), actor=bob)


def test_what_keeps_no_states_cannot_be_forked(workshop, bob):
    run = played(started(workshop, "forgetful"))

    with pytest.raises(NotForkable, match="checkpointed=False"):
        forks.fork(run, step_id=step(run, "only"), actor=bob)


def test_a_disabled_operator_forks_nothing(waiting, bob):
    Operator.objects.filter(pk=waiting.operator_id).update(enabled=False)
    waiting.operator.refresh_from_db()

    with pytest.raises(OperatorDisabled):
        forks.fork(waiting, step_id=step(waiting, "first"), actor=bob)


def test_the_same_key_forks_once(waiting, bob):
    asked = {"step_id": step(waiting, "first"), "actor": bob, "key": "k"}
    first = forks.fork(waiting, values={"number": 7}, **asked)

    assert forks.fork(waiting, values={"number": 7}, **asked) == first
    with pytest.raises(KeyReused):
        forks.fork(waiting, values={"number": 8}, **asked)
    assert Run.objects.count() == 2


def test_steps_are_listed_with_their_states(waiting):
    found = forks.steps(waiting)

    assert [(item.node, item.finished, item.state["number"]) for item in found] == [
        ("first", True, 2), ("second", True, 20), ("judged", False, 20),
    ]  # fmt: skip
    assert [item.node for item in forks.steps(waiting, after=found[0].seq, limit=1)] == ["second"]


def test_a_huge_value_is_listed_as_a_pointer_to_its_card(workshop):
    run = played(started(workshop, "huge"))

    [only] = forks.steps(run)

    assert only.state["text"] == thread(run).get(kind="step.finished").data["update"]["text"]
    assert only.state["text"]["size"] == 40_002


def test_a_graph_that_was_brought_as_it_is_is_forked_too(quarry, bob):
    source = played(started(quarry, "parts"))
    assert source.output == {"parts": [1, 2], "total": 3}

    fork = played(forks.fork(source, step_id=step(source, "one"), values={"parts": [10, 20]}, actor=bob))

    assert fork.output == {"parts": [10, 20], "total": 30}


@pytest.mark.parametrize("values", [{"parts": "many"}, {"colour": 1}, {"branch:to:sum": None}])
def test_a_value_that_does_not_fit_a_graph_is_refused(quarry, bob, values):
    source = played(started(quarry, "parts"))

    with pytest.raises(Misfit):
        forks.fork(source, step_id=step(source, "one"), values=values, actor=bob)


def test_a_forked_run_that_lost_its_worker_before_its_first_step_begins_where_it_should(waiting, bob):
    fork = forks.fork(waiting, step_id=step(waiting, "first"), values={"number": 3}, actor=bob)
    Run.objects.filter(pk=fork.pk).update(epoch=1)

    assert played(fork).waits.get().payload == {"number": 30}


def test_a_retired_workflow_forks_nothing(waiting, bob):
    waiting.workflow.retired = True

    with pytest.raises(NotForkable, match="no longer defined"):
        forks.fork(waiting, step_id=step(waiting, "first"), actor=bob)


def test_a_fork_stands_in_the_queue_of_its_operator(waiting, bob):
    fork = forks.fork(waiting, step_id=step(waiting, "first"), actor=bob)

    assert (fork.status, fork.trigger, fork.started_by) == ("queued", "fork", bob)
    assert intake.cancel(fork, actor=bob).status == "cancelled"
