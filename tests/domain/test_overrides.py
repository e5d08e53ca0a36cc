# long: what an override must leave alone is as much as what it does
"""Overrides: the state of a run that stands at an open gate is changed by those who may, and the gate is asked anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import orjson
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from openvibe.bus.memory import MemoryBus
from openvibe.protocol import sessions
from openvibe.protocol.streams import STREAMS
from openvibe.registry import define
from operators import clock, definitions
from operators.errors import (
    DomainError,
    Misfit,
    NotEntitled,
    NotForkable,
    NotOverridable,
    NotWaiting,
    QuoteMismatch,
)
from operators.link import link
from operators.models import Effect, Membership, Operator, Project, Run, Wait
from operators.services import compiled, deliveries, execution, forks, intake, leases, overrides, registration, waits
from operators.services.execution import Performance
from tests.domain.lab import kinds, played, rung, started, thread
from tests.domain.treasury import UNLUCKY, Treasury, done, luck

APPROVE = waits.Answer("approve")


@pytest.fixture
def treasury(project: Project) -> Iterator[Operator]:
    made = definitions.registry.add(define(Treasury))
    yield registration.register(project, made)
    definitions.registry.remove("treasury")
    compiled.workflow.cache_clear()
    done.clear()
    luck["mended"] = False


@pytest.fixture
def alice(alice: User) -> User:
    Membership.objects.filter(user=alice).update(may_override=True)
    return alice


@pytest.fixture
def gate(treasury: Operator) -> Wait:
    """The open gate of a run that is about to pay 5."""
    return opened(played(started(treasury, "pay", amount=5)))


@pytest.fixture
def group(treasury: Operator) -> list[Wait]:
    """The open gates at which Alice and Bob are asked whether 5 may be granted."""
    run = played(started(treasury, "grant", amount=5))
    return list(Wait.objects.select_related("run__operator", "run__workflow").filter(run=run).order_by("seat"))


def opened(run: Run) -> Wait:
    return Wait.objects.pending().select_related("run__operator", "run__workflow").get(run=run)


def again(wait: Wait) -> Wait:
    return Wait.objects.select_related("run__operator", "run__workflow").get(pk=wait.pk)


def override(wait: Wait, actor: User, *, version: int | None = None, reason: str = "a typo", **values: Any) -> None:
    seen = wait.version if version is None else version
    overrides.override(again(wait), values=values, reason=reason, version=seen, actor=actor)


def quote(wait: Wait) -> waits.Answer:
    return waits.Answer("approve", version=wait.version, payload_sha256=wait.payload_sha256)


@pytest.mark.django_db(transaction=True)
def test_the_gate_stays_open_and_asks_about_the_new_state(gate, alice, bob):
    rung()
    override(gate, alice, amount=7)
    assert rung() == [gate.run_id]

    run = played(gate.run)

    now = opened(run)
    assert (run.status, now.id, now.version, now.payload) == ("waiting", gate.id, 2, {"amount": 7})
    assert now.payload_sha256 != gate.payload_sha256
    assert Wait.objects.filter(run=run).count() == 1
    waits.answer(now, quote(now), actor=bob)
    assert played(run).output["amount"] == 7
    assert done == ["reserved", ("ada", 7)]


def test_what_was_quoted_before_is_refused(gate, alice, bob):
    seen = quote(gate)
    override(gate, alice, amount=7)
    run = played(gate.run)

    for stale in (
        seen,
        waits.Answer("approve", version=1),
        waits.Answer("approve", payload_sha256=gate.payload_sha256),
    ):
        with pytest.raises(QuoteMismatch):
            waits.answer(again(gate), stale, actor=bob)

    assert (opened(run).id, done) == (gate.id, ["reserved"])


def test_a_decision_that_quotes_nothing_may_be_about_the_old_state_and_is_refused(gate, alice, bob):
    override(gate, alice, payee="eve")
    played(gate.run)

    with pytest.raises(QuoteMismatch, match="quote the version"):
        waits.answer(again(gate), APPROVE, actor=bob)

    assert waits.answer(again(gate), waits.Answer("approve", version=2), actor=bob).decision == "approve"


def test_nobody_decides_between_the_override_and_the_new_question(gate, alice, bob):
    stale = again(gate)
    override(gate, alice, amount=7)

    for wait in (stale, again(gate)):
        with pytest.raises(QuoteMismatch, match="asked anew"):
            waits.answer(wait, quote(gate), actor=bob)
    with pytest.raises(NotWaiting, match="not open"):
        override(gate, alice, amount=8)

    assert (played(gate.run).status, opened(gate.run).payload) == ("waiting", {"amount": 7})


def test_the_timeline_tells_who_changed_what_and_why(gate, alice):
    override(gate, alice, amount=7, payee="eve", reason="the bill says 7")
    played(gate.run)

    told = thread(gate.run).get(kind="gate.overridden")
    assert (told.actor, told.node, told.step_id) == ("alice", "judged", gate.step_id)
    assert told.data == {
        "wait_id": gate.id, "version": 1, "fields": ["amount", "payee"], "values": {"amount": 7, "payee": "eve"},
        "reason": "the bill says 7",
    }  # fmt: skip
    assert kinds(gate.run)[-5:] == ["gate.opened", "gate.overridden", "run.resumed", "step.started", "gate.opened"]
    anew = thread(gate.run).last()
    assert (anew.data["wait_id"], anew.data["version"], anew.step_id != gate.step_id) == (gate.id, 2, True)


def test_what_was_done_before_the_gate_is_not_done_again(gate, alice):
    override(gate, alice, amount=7)
    played(gate.run)

    assert done == ["reserved"]
    assert Effect.objects.filter(run=gate.run).count() == 1
    assert [event.node for event in thread(gate.run).filter(kind="step.finished")] == ["prepare"]


@pytest.mark.parametrize("role", ["owner", "operator", "viewer"])
def test_no_role_brings_the_right(gate, bob, role):
    Membership.objects.filter(user=bob).update(role=role)

    with pytest.raises(NotEntitled):
        override(gate, bob, amount=7)

    assert (again(gate).pending, "gate.overridden" in kinds(gate.run)) == (True, False)


def test_the_right_counts_in_its_own_project_and_for_those_who_may_change_runs(gate, bob, vera, charlie):
    Membership.objects.filter(user__in=[vera, charlie]).update(may_override=True)
    for stranger in (vera, charlie):
        with pytest.raises(NotEntitled):
            override(gate, stranger, amount=7)

    override(gate, User.objects.create_superuser("root"), amount=7)

    assert played(gate.run).waits.get().version == 2


@pytest.mark.parametrize(
    ("values", "field"),
    [({"amount": "much"}, "values.amount"), ({"colour": 1}, "values.colour"), ({}, "values")],
)
def test_values_that_do_not_fit_change_nothing(gate, alice, values, field):
    with pytest.raises(Misfit) as caught:
        override(gate, alice, **values)

    assert [item["field"] for item in caught.value.detail["errors"]] == [field]
    assert (again(gate).pending, again(gate).version) == (True, 1)


def test_a_request_that_comes_twice_changes_the_state_once(gate, alice):
    override(gate, alice, amount=7)
    played(gate.run)

    with pytest.raises(QuoteMismatch, match="version 2"):
        override(gate, alice, version=1, amount=7)

    assert (opened(gate.run).version, kinds(gate.run).count("gate.overridden")) == (2, 1)


def test_a_gate_is_overridden_as_often_as_it_takes(gate, alice):
    for number in (7, 8, 9):
        override(again(gate), alice, amount=number)
        played(gate.run)

    assert (opened(gate.run).version, opened(gate.run).payload) == (4, {"amount": 9})


def test_answers_of_others_count_no_more_when_the_state_has_changed(group, alice, bob):
    first, second = group
    waits.answer(first, APPROVE, actor=alice)
    override(second, alice, amount=7)
    run = played(first.run)

    now = [(wait.id, wait.version, wait.status, wait.decider, wait.payload) for wait in map(again, group)]
    assert now == [(wait.id, 2, "pending", "", {"amount": 7}) for wait in group]
    waits.answer(again(second), quote(again(second)), actor=bob)
    assert Run.objects.get(pk=run.pk).status == "waiting"
    waits.answer(again(first), quote(again(first)), actor=alice)
    assert (played(run).status, done) == ("completed", [("ada", 7)])


def test_the_time_of_a_gate_begins_anew(gate, alice):
    Wait.objects.filter(pk=gate.pk).update(deadline=timezone.now() - timedelta(seconds=1))
    clock.tick()
    assert again(gate).assignee == "bob"
    Wait.objects.filter(pk=gate.pk).update(deadline=timezone.now() + timedelta(seconds=1))

    override(gate, alice, amount=7)
    played(gate.run)

    now = again(gate)
    assert (now.assignee, now.deadline > timezone.now() + timedelta(minutes=59)) == ("", True)


def test_whoever_is_told_of_gates_on_the_bus_is_told_anew(gate, alice):
    heard: list[dict[str, Any]] = []
    link.use(bus := MemoryBus())

    async def hear(message):
        heard.append(orjson.loads(message.data))

    async def listen():
        await bus.connect()
        await bus.ensure(STREAMS)
        await bus.subscribe(sessions.subject(gate.run_id, "approvals"), hear)

    link.submit(listen()).result(5)
    deliveries.ask(gate.id)
    override(gate, alice, amount=7)
    played(gate.run)
    deliveries.ask(gate.id)

    told = [(item["payload"]["gate_id"], item["payload"]["version"]) for item in heard]
    assert told == [(gate.id, 1), (gate.id, 2)]
    assert len({item["id"] for item in heard}) == 2


def test_a_worker_that_dies_on_the_way_back_to_the_gate_loses_nothing(gate, alice):
    override(gate, alice, amount=7)
    claim = leases.take(gate.run_id)
    parts = (dead := Performance(claim))._progress(dead._workflow)
    dead._commit(next(parts))
    parts.close()
    Run.objects.filter(pk=gate.run_id).update(lease_until=timezone.now() - timedelta(seconds=1))
    clock.tick()

    run = played(gate.run)

    assert (run.status, opened(run).id, opened(run).version) == ("waiting", gate.id, 2)
    assert kinds(run).count("step.started") == 3


def test_a_gate_that_breaks_with_the_new_state_is_asked_under_its_own_id_after_a_retry(gate, alice, bob):
    override(gate, alice, amount=UNLUCKY)
    run = played(gate.run)
    assert run.status == "failed"
    with pytest.raises(NotWaiting, match="its run was failed"):
        waits.answer(again(gate), quote(gate), actor=bob)

    luck["mended"] = True
    run = played(intake.retry(run, actor=bob))

    assert (run.status, opened(run).id, opened(run).version) == ("waiting", gate.id, 2)


def test_a_run_that_is_cancelled_on_the_way_back_leaves_no_gate(gate, alice, bob):
    override(gate, alice, amount=7)
    intake.cancel(gate.run, actor=bob)
    execution.perform(gate.run_id)

    assert not Wait.objects.pending().filter(run=gate.run).exists()
    with pytest.raises(NotWaiting, match="its run was cancelled"):
        waits.answer(again(gate), quote(gate), actor=bob)


def test_a_question_about_an_effect_is_no_gate_to_override(treasury, alice):
    run = started(treasury, "doubt", amount=5)
    claim = leases.take(run.id)
    step = Performance(claim)
    parts = step._progress(step._workflow)
    step._commit(next(parts))
    parts.close()
    begun = thread(run).get(kind="step.started")
    run.effects.create(node="wire", step_id=begun.step_id, key="wire", state="attempted", attempted_at=timezone.now())
    Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    clock.tick()
    doubt = opened(played(run))
    assert doubt.form == "effect"

    with pytest.raises(NotOverridable, match="fork it before"):
        override(doubt, alice, amount=7)


def test_a_graph_that_was_brought_as_it_is_has_no_gate_to_override(treasury, alice):
    with pytest.raises(NotOverridable, match="fork it before"):
        override(opened(played(started(treasury, "graph"))), alice, amount=7)


def test_the_state_before_an_override_is_still_there_to_be_forked(gate, alice, bob):
    override(gate, alice, amount=7)
    played(gate.run)

    with pytest.raises(NotForkable, match="has not finished"):
        forks.fork(gate.run, step_id=gate.step_id, actor=bob)
    old = played(forks.fork(gate.run, step_id=gate.step_id, before=True, actor=bob))
    new = played(forks.fork(gate.run, step_id=again(gate).step_id, before=True, actor=bob))

    assert (opened(old).payload, opened(new).payload) == ({"amount": 5}, {"amount": 7})
    assert {opened(old).version, opened(new).version} == {1}


@pytest.fixture
def granted(group, alice, bob) -> Run:
    """A run that was granted by both who are asked, and has paid."""
    for wait, person in zip(group, (alice, bob), strict=True):
        waits.answer(again(wait), APPROVE, actor=person)
    run = played(group[0].run)
    assert done == [("ada", 5)]
    return run


def step(run: Run, node: str) -> str:
    return thread(run).filter(kind="step.started", node=node).last().step_id


@pytest.mark.parametrize(("node", "before"), [("agreed", False), ("note", True), ("note", False), ("pay", True)])
def test_no_fork_takes_other_values_past_the_people_who_were_asked(granted, bob, node, before):
    with pytest.raises(NotForkable, match="alice, bob have been asked") as caught:
        forks.fork(granted, step_id=step(granted, node), before=before, values={"amount": 500}, actor=bob)

    assert caught.value.detail["approvers"] == ["alice", "bob"]
    assert (Run.objects.count(), done) == (1, [("ada", 5)])


def test_a_fork_before_the_people_who_are_asked_asks_them_about_its_values(granted, bob):
    fork = played(
        forks.fork(granted, step_id=step(granted, "agreed"), before=True, values={"amount": 500}, actor=bob)
    )  # fmt: skip

    assert [wait.payload for wait in Wait.objects.pending().filter(run=fork)] == [{"amount": 500}] * 2
    assert done == [("ada", 5)]


def test_a_fork_with_the_values_that_were_approved_needs_no_right(granted, bob):
    fork = played(forks.fork(granted, step_id=step(granted, "note"), actor=bob))

    assert (fork.status, done) == ("completed", [("ada", 5)] * 2)


def test_a_fork_of_a_fork_is_no_way_around_the_people_who_were_asked(granted, bob):
    fork = played(forks.fork(granted, step_id=step(granted, "agreed"), actor=bob))

    with pytest.raises(NotForkable, match="alice, bob have been asked"):
        forks.fork(fork, step_id=step(fork, "note"), before=True, values={"amount": 500}, actor=bob)


def test_whoever_may_override_takes_other_values_past_them_and_both_timelines_tell(granted, alice):
    fork = played(forks.fork(granted, step_id=step(granted, "note"), values={"amount": 6}, actor=alice))

    assert done == [("ada", 5), ("ada", 6)]
    told = thread(granted).get(kind="run.forked")
    assert (told.actor, told.data["override"], told.data["fields"]) == ("alice", True, ["amount"])
    own = thread(fork).get(kind="run.forked").data
    assert (own["override"], own["gates"], own["approvers"]) == (True, ["agreed"], ["alice", "bob"])


def test_a_gate_that_its_deadline_decided_has_asked_people_too(group, bob):
    Wait.objects.update(deadline=timezone.now() - timedelta(seconds=1))
    clock.tick()
    run = played(group[0].run)
    assert done == [("ada", 5)]

    with pytest.raises(NotForkable, match="alice, bob have been asked"):
        forks.fork(run, step_id=step(run, "note"), values={"amount": 500}, actor=bob)


@pytest.mark.django_db(transaction=True)
def test_a_decision_and_an_override_at_once_are_one_or_the_other(gate, alice, bob):
    acts: list[Callable[[], Any]] = [
        lambda: waits.answer(again(gate), quote(gate), actor=bob), lambda: override(gate, alice, amount=7)
    ] * 4  # fmt: skip
    with ThreadPoolExecutor(len(acts)) as pool:
        told = list(pool.map(_tried, acts))

    run = played(gate.run)

    decided = kinds(run).count("gate.decided")
    assert decided + kinds(run).count("gate.overridden") == 1
    assert done == (["reserved", ("ada", 5)] if decided else ["reserved"])
    assert all(isinstance(item, (DomainError, Wait, type(None))) for item in told)


def _tried(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except DomainError as error:
        return error
    finally:
        connection.close()
