from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import InterfaceError, InternalError, OperationalError, connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from langgraph.graph import START, StateGraph

from openvibe import operator, workflow
from operators.models import Card, Checkpoint, CheckpointWrite, Node, Run
from operators.services import intake, leases, waits
from tests.domain.lab import kinds, meddling, played, served, started, thread


def test_a_run_is_played_to_its_gate_and_then_holds_nothing(engagement):
    run = played(engagement)

    assert run.status == "waiting"
    assert run.lease_until is None
    wait = run.waits.get()
    assert (wait.node, wait.status, wait.kind) == ("review_sequence", "pending", "approval")
    assert (wait.deadline - wait.opened_at).total_seconds() == 24 * 3600
    assert kinds(run)[:3] == ["run.queued", "run.started", "step.started"]
    assert kinds(run)[-1] == "gate.opened"


def test_an_approved_run_is_completed_with_its_result(gate, bob):
    waits.answer(gate, waits.Answer("approve"), actor=bob)
    run = played(gate.run)

    assert run.status == "completed"
    assert run.output["final_plan"]["status"] == "ready"
    assert run.output["review_sequence"] == "approve"
    assert kinds(run)[-1] == "run.completed"
    assert run.ended_at is not None


def test_a_rejected_run_fails_with_the_reason(gate, bob):
    waits.answer(gate, waits.Answer("reject", notes="too pushy"), actor=bob)
    run = played(gate.run)

    assert run.status == "failed"
    assert run.error["message"] == "Rejected at review_sequence: too pushy"
    assert run.error["traceback"] == ""
    assert kinds(run)[-1] == "run.failed"


def test_research_is_completed_with_figures(registered):
    run = played(started(registered["company_intel"], "research", company_name="Stripe"))

    assert run.status == "completed", run.error
    assert run.output["prospect_quality"] in ("high", "medium", "low")
    assert (run.nodes_executed, run.nodes_failed, run.llm_calls) == (4, 0, 2)
    assert run.tokens_in > 0
    assert run.tokens_out > 0
    assert run.cost == Decimal(0)
    assert run.running_seconds > 0
    assert run.duration_seconds(run.ended_at) == (run.ended_at - run.started_at).total_seconds()


def test_each_step_is_told_once_from_start_to_finish(lab):
    run = played(started(lab, "four"))

    steps = [(event.kind, event.node) for event in thread(run) if event.kind.startswith("step.")]
    assert steps == [(kind, node) for node in ("one", "two", "three", "four") for kind in _BOTH]


_BOTH = ("step.started", "step.finished")


def test_a_second_bell_does_nothing(lab):
    run = played(started(lab, "four"))
    told, ended = kinds(run), run.updated_at

    again = played(run)

    assert (kinds(again), again.updated_at, again.epoch) == (told, ended, 1)


def test_a_bell_for_no_run_does_nothing(db):
    assert leases.take("run_nowhere") is None


@pytest.mark.django_db(transaction=True)
def test_a_claim_that_is_lost_changes_nothing_any_more(lab, while_playing):
    run = started(lab, "meddled")
    seen = {}

    def somebody_else_claims():
        Run.objects.filter(id=run.id).update(epoch=F("epoch") + 1)
        seen.update(_everything(run))

    while_playing(somebody_else_claims)
    played(run)

    assert _everything(run) == seen
    assert seen["run"]["status"] == "running"


def test_a_claim_that_is_lost_leaves_no_card_behind(lab, while_playing):
    run = started(lab, "large")
    while_playing(lambda: Run.objects.filter(id=run.id).update(epoch=F("epoch") + 1))
    played(run)
    assert not Card.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "fault",
    [OperationalError("the database is away"), InterfaceError("closed already"), InternalError("the session idled")],
)
def test_a_database_that_is_away_in_the_middle_of_a_step_does_not_fail_the_run(lab, while_playing, fault):
    run = started(lab, "meddled")

    def lose_the_database():
        meddling.clear()
        raise fault

    while_playing(lose_the_database)
    with pytest.raises(type(fault)):
        played(run)

    run.refresh_from_db()
    assert run.status == "running"
    assert "step.failed" not in kinds(run)
    Run.objects.filter(pk=run.pk).update(status="queued")
    assert played(run).output == {"number": 3}


def _everything(run):
    return {
        "run": Run.objects.filter(id=run.id).values().get(),
        "events": list(thread(run).values()),
        "checkpoints": list(Checkpoint.objects.filter(thread_id=run.id).values("checkpoint_id")),
        "writes": list(CheckpointWrite.objects.filter(thread_id=run.id).values("checkpoint_id", "idx")),
    }


@pytest.mark.django_db(transaction=True)
def test_a_cancelled_run_ignores_what_its_worker_still_does(lab, alice, while_playing):
    run = started(lab, "meddled")
    while_playing(lambda: intake.cancel(run, actor=alice))

    run = played(run)

    assert run.status == "cancelled"
    assert run.output is None
    assert kinds(run)[-1] == "run.cancelled"


def test_a_stopping_worker_hands_its_run_back_and_the_next_goes_on(lab, while_playing):
    run = started(lab, "meddled")
    while_playing(leases.stopping.set)

    run = played(run)
    assert (run.status, run.lease_until) == ("queued", None)
    assert kinds(run)[-1] == "run.handed_back"

    leases.stopping.clear()
    run = played(run)
    assert run.status == "completed"
    assert run.output["number"] == 3
    steps = [(event.kind, event.node) for event in thread(run) if event.kind.startswith("step.")]
    assert steps == [(kind, node) for node in ("before", "meddle", "after") for kind in _BOTH]
    assert "run.resumed" in kinds(run)


def test_a_worker_that_stops_at_the_start_hands_the_run_back_unspoilt(lab):
    leases.stopping.set()
    run = played(started(lab, "meddled"))
    assert run.status == "queued"

    leases.stopping.clear()
    assert played(run).output["number"] == 3


def test_a_run_that_was_lost_before_its_first_step_starts_from_its_input(lab):
    run = started(lab, "meddled", number=10)
    assert leases.take(run.id).fresh
    Run.objects.filter(id=run.id).update(status="queued")

    assert played(run).output["number"] == 13


def test_a_workflow_whose_code_is_unknown_fails_with_a_sentence(lab):
    run = started(lab, "four")
    run.workflow.slug = "gone"
    run.workflow.save()

    run = played(run)

    assert run.status == "failed"
    assert run.error["message"] == "No worker knows the workflow lab.gone; is its module in OPENVIBE_OPERATORS?"


def test_a_node_that_raises_fails_the_run_with_its_traceback(lab, while_playing):
    def break_down():
        raise ZeroDivisionError("no such number")

    while_playing(break_down)
    run = played(started(lab, "meddled"))

    assert (run.status, run.nodes_failed) == ("failed", 1)
    assert (run.error["message"], run.error["kind"], run.error["node"]) == (
        "no such number",
        "ZeroDivisionError",
        "meddle",
    )
    assert "break_down" in run.error["traceback"]


def test_words_that_no_database_keeps_do_not_break_a_run(lab, while_playing):
    def break_down():
        raise ValueError("half a character \ud800, a NUL \0")

    while_playing(break_down)
    run = played(started(lab, "meddled"))

    assert run.status == "failed"
    assert run.error["message"] == "half a character ?, a NUL \N{REPLACEMENT CHARACTER}"


def test_a_run_whose_workflow_cannot_be_compiled_fails_at_once_with_the_reason(project):
    class Wrapped:
        """A graph as some instrumentation hands it out: it looks like one."""

        def __getattr__(self, name):
            return getattr(graph, name)

    made = StateGraph(dict)
    made.add_node("only", lambda state: state)
    made.add_edge(START, "only")
    graph = made.compile()

    @operator(id="maze")
    class Maze:
        @workflow(id="wrapped", graph=Wrapped())
        class InWraps: ...

    with served(project, Maze) as maze:
        run = played(started(maze, "wrapped"))

    assert (run.status, run.error["kind"], run.epoch, run.lease_until) == ("failed", "SetupError", 1, None)
    assert "takes a LangGraph StateGraph, not Wrapped" in run.error["message"]


def test_a_run_that_breaks_outside_of_its_nodes_fails_instead_of_looping(lab, while_playing):
    run = started(lab, "meddled")
    while_playing(leases.stopping.set)
    played(run)
    leases.stopping.clear()
    Checkpoint.objects.filter(thread_id=run.id).update(type="nonsense")

    run = played(run)

    assert run.status == "failed"
    assert run.error["message"].startswith("OpenVibe could not go on with this run: ")
    assert kinds(run)[-1] == "run.failed"


def test_a_threads_numbers_have_no_hole_and_no_twin(gate, bob):
    waits.answer(gate, waits.Answer("approve"), actor=bob)
    run = played(gate.run)

    numbers = list(thread(run).values_list("seq", flat=True))
    assert numbers == list(range(1, len(numbers) + 1))
    assert run.last_seq == len(numbers)


def test_a_large_value_becomes_a_card_that_events_point_at(lab):
    run = played(started(lab, "large"))

    card = Card.objects.get(content="x" * 40_000)
    update = thread(run).get(kind="step.finished").data["update"]
    assert update["text"] == {"card": card.sha256, "size": card.size}
    assert thread(run).get(kind="run.completed").data["output"]["text"] == update["text"]


def test_an_administrators_model_reaches_the_provider(registered):
    Node.objects.filter(slug="research").update(model="claude-opus-4-1")

    run = played(started(registered["company_intel"], "research", company_name="Stripe"))

    finished = {event.node: event.data for event in thread(run).filter(kind="step.finished")}
    assert finished["research"]["usage"]["model"] == "claude-opus-4-1"
    assert "haiku" in finished["analyze"]["usage"]["model"]
    assert finished["analyze"]["usage"]["simulated"] is True


@pytest.mark.django_db(transaction=True)
def test_a_step_costs_one_transaction_of_at_most_four_statements(lab):
    run = started(lab, "four")

    with CaptureQueriesContext(connection) as captured:
        assert played(run).status == "completed"

    inside, outside = _transactions([query["sql"] for query in captured])
    # The first boundary lies before the first node, and takes the run; the last commit ends it.
    assert len(inside) == 5
    *commits, ending = inside
    assert sum(map(len, commits)) / len(commits) <= 4
    # The end closes what may still wait, and keeps what the run delivered.
    assert len(ending) <= 6
    # The administrator's models, and this test's own look at the result.
    assert len(outside) <= 2, outside


def _transactions(statements):
    inside, outside, current = [], [], None
    for statement in statements:
        if statement.startswith("WITH changed") and current is None:
            # A stroke is a transaction of its own.
            inside.append([statement])
        elif statement.startswith("BEGIN"):
            current = []
        elif statement == "COMMIT":
            inside.append(current)
            current = None
        else:
            (outside if current is None else current).append(statement)
    return inside, outside
