"""A group that goes on after each answer: the others stay asked, and no answer is lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from openvibe import conditional, node, operator, remote_node, workflow
from openvibe.registry import define
from operators import definitions
from operators.errors import NotWaiting
from operators.models import Operator, Project, Run, Wait
from operators.services import compiled, doorbell, intake, registration, waits
from tests.domain.lab import kinds, played, started, thread

#: What happens while the node `take` is being played.
meanwhile: list[Callable[[], None]] = []


@operator(id="crew")
class Crew:
    left: list[str] = []
    instead: dict[str, list[str]] = {}
    heard: list[str] = []
    answers: dict[str, Any] = {}

    @workflow(id="pick", inputs=("left", "instead"))
    class Pick:
        @remote_node(roles=("picking", "packing"))
        def work(self, state):
            asks = {name: {"role": "picking", "task": {"chunk_id": name}} for name in state["left"]}
            if "gate" in asks:
                asks["gate"] = {"prompt": "Enough?", "payload": {"heard": state["heard"]}, "node": "enough"}
            return {"asks": asks, "output_key": "answers"}

        @node
        def take(self, state):
            while meanwhile:
                meanwhile.pop()()
            told = [
                f"{name}: {given.get('result') or given.get('error') or given.get('decision')}"
                for name, given in state["answers"].items()
            ]
            gone = {*state["answers"], *(name for done in state["answers"] for name in state["instead"].get(done, ()))}
            return {"heard": [*state["heard"], *told], "left": [name for name in state["left"] if name not in gone]}

        @conditional(routes={"work": lambda s: s["left"], "end": lambda _: True})
        def more(self, state):
            return {}

    @workflow(id="gather", inputs=("left",))
    class Gather:
        @remote_node(roles=("picking",))
        def work(self, state):
            asks = {name: {"role": "picking", "task": {"chunk_id": name}} for name in state["left"]}
            return {"asks": asks, "output_key": "answers"}

        @node
        def take(self, state):
            while meanwhile:
                meanwhile.pop()()
            return {"heard": [*state["heard"], ",".join(sorted(state["answers"]))]}

        @conditional(routes={"work": lambda s: len(s["answers"]) < len(s["left"]), "end": lambda _: True})
        def more(self, state):
            return {}


@pytest.fixture
def crew(project: Project) -> Iterator[Operator]:
    made = define(Crew)
    definitions.registry.add(made)
    yield registration.register(project, made)
    definitions.registry.remove("crew")
    compiled.workflow.cache_clear()
    meanwhile.clear()


def asked(crew: Operator, *names: str, **more: Any) -> Run:
    run = played(started(crew, "pick", left=list(names), **more))
    assert run.status == "waiting", run.error
    return run


def wait(run: Run, name: str) -> Wait:
    return Wait.objects.select_related("run__operator").get(run=run, name=name)


def settle(run: Run, name: str, result: str = "done") -> bool:
    return waits.settle(wait(run, name), result=result, by="ada")


def statuses(run: Run) -> dict[str, str]:
    return dict(Wait.objects.filter(run=run).values_list("name", "status"))


def test_a_run_goes_on_after_each_answer_and_disturbs_nobody_else(crew):
    run = asked(crew, "a", "b", "c")
    before = {item.name: (item.id, item.payload_sha256, item.step_id) for item in run.waits.all()}
    assert settle(run, "b")
    run = played(run)
    assert (run.status, statuses(run)) == ("waiting", {"a": "pending", "b": "resolved", "c": "pending"})
    assert {item.name: (item.id, item.payload_sha256, item.step_id) for item in run.waits.all()} == before
    for name in ("c", "a"):
        assert settle(run, name)
        run = played(run)
    assert (run.status, run.output["heard"]) == ("completed", ["b: done", "c: done", "a: done"])
    assert (kinds(run).count("work.requested"), kinds(run).count("work.answered")) == (3, 3)


def test_answers_that_come_together_are_taken_together(crew):
    run = asked(crew, "a", "b")
    assert settle(run, "b")
    assert settle(run, "a")
    assert not settle(run, "a", "again")
    run = played(run)
    assert (run.status, sorted(run.output["heard"])) == ("completed", ["a: done", "b: done"])


def test_an_answer_that_comes_while_the_run_is_being_played_is_there_when_it_asks_again(crew):
    run = asked(crew, "a", "b", "c")
    meanwhile.append(lambda: settle(run, "b"))
    assert settle(run, "a")
    run = played(run)
    assert run.status == "queued"
    run = played(run)
    assert (run.status, statuses(run)["c"]) == ("waiting", "pending")
    assert settle(run, "c")
    run = played(run)
    assert (run.status, run.output["heard"]) == ("completed", ["a: done", "b: done", "c: done"])


@pytest.mark.django_db(transaction=True)
def test_of_many_answers_at_once_each_is_taken_once(crew):
    names = [f"n{number}" for number in range(20)]
    run = asked(crew, *names)

    def answer(name: str) -> bool:
        try:
            return settle(run, name)
        finally:
            connection.close()

    with ThreadPoolExecutor(10) as pool:
        told = [pool.submit(answer, name) for name in [*names, *names]]
        for _ in range(50):
            run = played(run)
            if run.status == "completed":
                break
        assert sum(item.result() for item in told) == 20
    for _ in range(20):
        run = played(run)
    assert (run.status, sorted(run.output["heard"])) == ("completed", sorted(f"{name}: done" for name in names))
    assert [event.seq for event in thread(run)] == list(range(1, run.last_seq + 1))


@pytest.mark.django_db(transaction=True)
def test_who_is_left_out_is_not_asked_any_more_and_is_told(crew, bells):
    run = asked(crew, "a", "b", "c", instead={"a": ["b"]})
    Wait.objects.update(sent_at=run.created_at)
    assert settle(run, "a")
    bells()
    assert played(run).status == "waiting"
    assert statuses(run) == {"a": "resolved", "b": "cancelled", "c": "pending"}
    assert (doorbell.RECALL, run.id) in [bell[1:] for bell in bells()]
    assert [item.name for item in Wait.objects.unrecalled()] == ["b"]
    assert not settle(run, "b")
    assert settle(run, "c")
    assert played(run).output["heard"] == ["a: done", "c: done"]


@pytest.mark.django_db(transaction=True)
def test_who_is_asked_still_when_a_run_has_come_to_its_own_end_is_told(crew, bells):
    run = asked(crew, "a", "b", "c", "d", instead={"a": ["b", "c", "d"]})
    # One was told, of another the worker died before it noted that, and a third one was never told.
    Wait.objects.filter(run=run, name="b").update(sent_at=run.created_at)
    Wait.objects.filter(run=run, name="c").update(tried_at=run.created_at)
    assert settle(run, "a")
    bells()
    run = played(run)
    assert (run.status, statuses(run)) == ("completed", {"a": "resolved", **dict.fromkeys("bcd", "cancelled")})
    assert (doorbell.RECALL, run.id) in [bell[1:] for bell in bells()]
    assert sorted(item.name for item in Wait.objects.unrecalled()) == ["b", "c"]


def test_a_run_that_is_tried_again_asks_those_anew_whom_its_failure_sent_home(crew, alice):
    def fail() -> None:
        raise ValueError("a slip")

    run = asked(crew, "a", "b")
    meanwhile.append(fail)
    assert settle(run, "a")
    assert played(run).status == "failed"
    assert statuses(run) == {"a": "resolved", "b": "cancelled"}
    run = played(intake.retry(run, actor=alice))
    assert run.status == "waiting"
    [again] = Wait.objects.select_related("run__operator").pending().filter(run=run, name="b")
    assert waits.settle(again, result="done", by="ada")
    assert played(run).output["heard"] == ["a: done", "b: done"]


def test_a_person_may_be_asked_beside_agents(crew, bob):
    run = asked(crew, "a", "gate")
    gate = wait(run, "gate")
    assert (gate.kind, gate.node, gate.decisions, gate.payload) == (
        "approval",
        "enough",
        ["approve", "reject"],
        {"heard": []},
    )
    waits.answer(gate, waits.Answer("reject", notes="no"), actor=bob)
    run = played(run)
    assert (run.status, statuses(run)) == ("waiting", {"a": "pending", "gate": "resolved"})
    assert waits.answer(wait(run, "gate"), waits.Answer("reject", notes="no"), actor=bob).decision == "reject"
    assert settle(run, "a")
    assert played(run).output["heard"] == ["gate: reject", "a: done"]


def test_a_cancelled_run_asks_nobody_any_more(crew, alice):
    run = asked(crew, "a", "gate")
    intake.cancel(run, actor=alice)
    assert set(statuses(run).values()) == {"cancelled"}
    with pytest.raises(NotWaiting):
        waits.answer(wait(run, "gate"), waits.Answer("approve"), actor=alice)


@pytest.mark.parametrize("asks", [
    {}, {"a": {"role": "baking", "task": {}}}, {"a": {"task": {}}},
    {"a": {"role": "picking", "task": {}, "prompt": "?"}}, {"": {"role": "picking", "task": {}}},
    {"x" * 201: {"role": "picking", "task": {}}},
])  # fmt: skip
def test_asks_that_make_no_sense_are_refused(project, asks):
    @operator(id="fool")
    class Fool:
        answers: dict[str, Any] = {}

        @workflow(id="ask")
        class Ask:
            @remote_node(roles=("picking",))
            def work(self, state):
                return {"asks": asks, "output_key": "answers"}

    made = define(Fool)
    definitions.registry.add(made)
    try:
        run = played(started(registration.register(project, made), "ask"))
    finally:
        definitions.registry.remove("fool")
        compiled.workflow.cache_clear()
    assert (run.status, run.error["kind"]) == ("failed", "WrongUpdate")


def test_who_asks_all_of_them_again_waits_for_those_who_have_not_answered(crew: Operator) -> None:
    run = played(started(crew, "gather", left=["a", "b", "c"]))
    waits.settle(run.waits.get(name="b"), result="two")
    run = played(run)
    assert (run.status, run.waits.pending().count()) == ("waiting", 2)
    meanwhile.append(lambda: waits.settle(Wait.objects.get(run=run, name="c"), result="three"))
    waits.settle(run.waits.get(name="a"), result="one")
    run = played(run)
    # What came while it was played is news.
    assert run.status == "queued"
    run = played(run)
    assert (run.status, run.output["heard"]) == ("completed", ["b", "a,b", "a,b,c"])
    assert {name: told["result"] for name, told in run.output["answers"].items()} == {
        "a": "one", "b": "two", "c": "three"
    }  # fmt: skip
