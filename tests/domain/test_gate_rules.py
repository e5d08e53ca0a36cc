"""What goes wrong at other systems' gates, one test for each defect, named for it. They run on both databases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypedDict

import pytest
from django.db import connection, transaction
from django.utils import timezone
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from openvibe import human_in_the_loop, node, operator, workflow
from openvibe.registry import define
from operators import clock, definitions
from operators.errors import AlreadyDecided, KeyReused, Misfit, NotForkable, NotRetryable, QuoteMismatch
from operators.models import Operator, Project, Run, Wait
from operators.services import compiled, execution, forks, intake, leases, registration, waits
from tests.domain.lab import kinds, played, started, thread

APPROVE = waits.Answer("approve")
REJECT = waits.Answer("reject")
#: What was paid, in order; and whether the node of the graph fails between its two questions.
paid: list[str] = []
world = {"broken": False}


class Answers(TypedDict, total=False):
    first: Any
    second: Any


def _asks_twice(_: Answers) -> Answers:
    first = interrupt("Refund 5?")
    if world["broken"]:
        raise RuntimeError("the shop is away")
    return {"first": first, "second": interrupt("Wire 5000?")}


def _graph() -> Any:
    graph = StateGraph(Answers)
    graph.add_node("shop", _asks_twice)
    graph.add_edge(START, "shop")
    graph.add_edge("shop", END)
    return graph


@operator(id="bank")
class Bank:
    amount: int = 5
    small: str = ""
    large: str = ""

    @workflow(id="pay", inputs=("amount",))
    class Pay:
        @human_in_the_loop(prompt="Refund 5?", edits=("amount",))
        def small(self, state):
            return {"amount": state["amount"]}

        @node
        def refund(self, state):
            paid.append("refund")

        @human_in_the_loop(prompt="Wire 5000?")
        def large(self, state):
            return {"amount": 5000}

        @node
        def wire(self, state):
            paid.append("wire")

    @workflow(id="graph", graph=_graph())
    class Graph: ...


@pytest.fixture
def bank(project: Project) -> Iterator[Operator]:
    made = definitions.registry.add(define(Bank))
    yield registration.register(project, made)
    definitions.registry.remove("bank")
    compiled.workflow.cache_clear()
    paid.clear()
    world["broken"] = False


@pytest.fixture
def refund(bank: Operator) -> Wait:
    """The open gate about the small refund; the one about the large wire follows."""
    run = played(started(bank, "pay"))
    return Wait.objects.select_related("run").get(run=run)


def again(wait: Wait) -> Wait:
    return Wait.objects.select_related("run").get(pk=wait.pk)


def open_gate(run: Run) -> str:
    return Wait.objects.pending().get(run=run).prompt


def answered(wait: Wait, **values: Any) -> waits.Answer:
    return waits.Answer("answer", values={"answer": "yes", **values})


def at_once(acts: list[Callable[[], Any]]) -> list[Any]:
    """Do all of it at the same time, each on a connection of its own; return what came of it, errors too."""

    def done(act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(done, acts))


def test_the_double_click_does_not_approve_the_next_gate(refund, bob):
    waits.answer(refund, APPROVE, actor=bob)
    played(refund.run)
    second_click = waits.answer(again(refund), APPROVE, actor=bob)
    assert (second_click.node, second_click.decision) == ("small", "approve")
    execution.perform(refund.run_id)
    assert open_gate(refund.run) == "Wire 5000?"
    assert paid == ["refund"]


@pytest.mark.django_db(transaction=True)
def test_the_race_does_not_tell_both_success(refund, alice, bob):
    told = at_once(
        [
            lambda: waits.answer(again(refund), APPROVE, actor=alice),
            lambda: waits.answer(again(refund), REJECT, actor=bob),
        ]
    )
    [loser] = [item for item in told if isinstance(item, Exception)]
    assert isinstance(loser, AlreadyDecided)
    winner = again(refund)
    assert (loser.detail["decision"], loser.detail["decided_by"]) == (winner.decision, winner.decider)
    assert kinds(refund.run).count("gate.decided") == 1


def blocked() -> bool:
    """Tell whether somebody waits for a row that this transaction holds; on SQLite that cannot be seen."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone() != (0,)


@pytest.mark.django_db(transaction=True)
def test_the_answer_that_waited_for_the_run_does_not_find_it_at_the_next_gate(refund, alice, bob):
    stale = again(refund)
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            waits.answer(again(refund), APPROVE, actor=alice)
            late = pool.submit(at_once, [lambda: waits.answer(stale, REJECT, actor=bob)])
            deadline = time.monotonic() + 10
            while connection.vendor == "postgresql" and not blocked():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            execution.perform(refund.run_id)
        [told] = late.result(20)
    assert isinstance(told, AlreadyDecided)
    assert kinds(refund.run).count("gate.decided") == 1
    assert (open_gate(refund.run), Run.objects.get(pk=refund.run_id).status) == ("Wire 5000?", "waiting")


@pytest.mark.django_db(transaction=True)
def test_twenty_clicks_at_once_are_one_decision_and_one_run_goes_on(refund, bob):
    told = at_once([lambda: waits.answer(again(refund), APPROVE, actor=bob)] * 20)
    assert {item.closed_at for item in told} == {again(refund).closed_at}
    assert kinds(refund.run).count("gate.decided") == 1
    at_once([lambda: execution.perform(refund.run_id)] * 2)
    assert paid == ["refund"]
    assert open_gate(refund.run) == "Wire 5000?"


def test_the_stale_screen_decides_nothing_about_what_it_does_not_show(refund, bob):
    seen = waits.Answer("approve", version=refund.version, payload_sha256=refund.payload_sha256)
    Wait.objects.filter(pk=refund.pk).update(version=2, payload={"amount": 9000}, payload_sha256="0" * 64)
    with pytest.raises(QuoteMismatch):
        waits.answer(again(refund), seen, actor=bob)
    # A process that read the gate before the change finds the change when it writes.
    with pytest.raises((QuoteMismatch, AlreadyDecided)):
        waits.answer(refund, seen, actor=bob)
    assert (again(refund).status, Run.objects.get(pk=refund.run_id).status) == ("pending", "waiting")


def test_the_stale_screen_of_an_answered_gate_answers_no_other_one(refund, alice, bob):
    stale = again(refund)
    waits.answer(refund, APPROVE, actor=alice)
    played(refund.run)
    with pytest.raises(AlreadyDecided, match="'approve' by alice"):
        waits.answer(stale, REJECT, actor=bob)
    assert open_gate(refund.run) == "Wire 5000?"


@pytest.mark.parametrize(
    "wrong",
    [
        waits.Answer("perhaps"),
        waits.Answer("approve", values={"amount": "much"}),
        waits.Answer("approve", "x" * 10_001),
    ],
    ids=["decision", "value", "note"],
)
def test_the_invalid_answer_does_not_hide_the_gate(refund, bob, wrong):
    with pytest.raises(Misfit):
        waits.answer(refund, wrong, actor=bob)
    assert Run.objects.get(pk=refund.run_id).status == "waiting"
    assert open_gate(refund.run) == "Refund 5?"
    waits.answer(refund, APPROVE, actor=bob)
    assert played(refund.run).status == "waiting"
    assert paid == ["refund"]


def test_new_input_does_not_replace_the_gate(bank, alice, bob):
    pay = bank.workflows.get(slug="pay")
    body = {"input": {"amount": 5}}
    run = intake.request(pay, input={"amount": 5}, actor=alice, key="order 1", body=body)
    gate = Wait.objects.get(run=played(run))
    with pytest.raises(KeyReused):
        intake.request(pay, input={"amount": 9000}, actor=alice, key="order 1", body={"input": {"amount": 9000}})
    assert intake.request(pay, input={"amount": 5}, actor=alice, key="order 1", body=body).pk == run.pk
    other = played(intake.request(pay, input={"amount": 9000}, actor=alice))
    waits.answer(Wait.objects.get(run=other), APPROVE, actor=bob)
    execution.perform(run.id)
    assert (again(gate).status, again(gate).payload) == ("pending", {"amount": 5})
    assert leases.take(run.id) is None


def test_the_state_edit_does_not_bypass_the_gate(refund, bob):
    with pytest.raises(NotForkable, match="has not finished; fork before it"):
        forks.fork(refund.run, step_id=refund.step_id, values={"small": "approve"}, actor=bob)
    edited = played(forks.fork(refund.run, step_id=refund.step_id, values={"small": "approve"}, before=True, actor=bob))
    assert (open_gate(edited), open_gate(refund.run)) == ("Refund 5?", "Refund 5?")
    with pytest.raises(NotRetryable):
        intake.retry(refund.run, actor=bob)
    assert paid == []


def test_the_retry_does_not_answer_a_nodes_second_question_with_the_first_ones_yes(bank, bob):
    run = played(started(bank, "graph"))
    first = Wait.objects.select_related("run").get(run=run)
    world["broken"] = True
    waits.answer(first, answered(first), actor=bob)
    assert played(run).status == "failed"
    world["broken"] = False
    intake.retry(run, actor=bob)
    run = played(run)
    assert (run.status, open_gate(run)) == ("waiting", "Wire 5000?")
    waits.answer(again(first), answered(first), actor=bob)
    execution.perform(run.id)
    assert open_gate(run) == "Wire 5000?"
    second = Wait.objects.pending().select_related("run").get(run=run)
    waits.answer(second, waits.Answer("answer", values={"answer": "no"}), actor=bob)
    assert played(run).output == {"first": "yes", "second": "no"}


def test_the_crash_does_not_answer_a_nodes_second_question_with_the_first_ones_yes(bank, bob):
    run = played(started(bank, "graph"))
    first = Wait.objects.select_related("run").get(run=run)
    waits.answer(first, answered(first), actor=bob)
    for _ in range(2):
        # A worker takes the run, and dies before it has committed anything.
        assert leases.take(run.id) is not None
        Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        clock.tick()
    run = played(run)
    assert (run.status, open_gate(run)) == ("waiting", "Wire 5000?")


def test_a_cancelled_answer_leaves_no_gate_that_looks_open(refund, alice, bob):
    waits.answer(refund, APPROVE, actor=bob)
    intake.cancel(refund.run, actor=alice)
    execution.perform(refund.run_id)
    assert not Wait.objects.pending().filter(run=refund.run_id).exists()
    assert (paid, thread(refund.run).last().kind) == ([], "run.cancelled")
