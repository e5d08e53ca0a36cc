"""Runs and waits against a small model of them, in any order of events that hypothesis can think of.

The model knows where a run stands and what each act must do to it. Whatever else an act changes, the invariants find.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from openvibe import outcomes
from operators import clock, definitions
from operators.errors import (
    AlreadyDecided,
    Misfit,
    NotAsked,
    NotRetryable,
    NotWaiting,
    QuoteMismatch,
    RunAlreadyEnded,
)
from operators.models import Checkpoint, CheckpointWrite, Effect, Run, Wait
from operators.services import compiled, intake, leases, registration, waits
from tests.domain.lab import started, thread
from tests.domain.walker import APPROVERS, Model, Walker, Worker, world

MOST_LOSSES = 3
ENDED = {"completed", "failed", "cancelled"}
BOUNDS = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    database=None,
    print_blob=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


class Runs(RuleBasedStateMachine):
    """One run, and everybody who does something to it."""

    operator: Any
    actor: Any

    def __init__(self) -> None:
        super().__init__()
        self._transaction = transaction.atomic()
        self._transaction.__enter__()
        self.workers: list[Worker] = []
        self._begin()

    def teardown(self) -> None:
        self._send_home()
        transaction.set_rollback(True)
        self._transaction.__exit__(None, None, None)

    @rule(often=st.sampled_from(range(3)))
    def go_the_usual_way(self, often: int) -> None:
        """Without it hardly any run would come to its end."""
        for _ in range(often + 1):
            match self.model.status:
                case "queued":
                    self.claim(broken=False)
                case "running":
                    self.play_on_until_it_stops()
                case "waiting" if self.model.waits_for == "verdict":
                    self.answer("approve", wrong={}, stale=False)
                case "waiting" if self.model.waits_for == "review":
                    self.vote(min({0, 1, 2} - set(self.model.votes)), "approve", again=False)
                case "waiting":
                    self.let_the_deadline_pass(clocks=1)
                case "failed" if self.model.retryable:
                    self.retry()
                case _:
                    self.find_that_it_rests()

    @precondition(lambda self: self.model.status == "queued")
    @rule(broken=st.booleans())
    def claim(self, broken: bool) -> None:
        world["broken"] = broken
        claimed = leases.take(self.run.id)
        assert claimed is not None
        self.model.go("running")
        self.model.epoch += 1
        assert claimed.epoch == self.model.epoch
        self.workers.append(Worker(claimed))

    @precondition(lambda self: self.model.status not in ("queued", "running"))
    @rule()
    def find_that_it_rests(self) -> None:
        """Bells and clocks do nothing to what waits or has ended; and what has ended for good has."""
        before = self._everything()
        assert leases.take(self.run.id) is None
        self._tick()
        if self.model.status in ENDED:
            with pytest.raises(RunAlreadyEnded):
                intake.cancel(self.run, actor=self.actor)
        if not self.model.retryable:
            with pytest.raises(NotRetryable):
                intake.retry(Run.objects.get(pk=self.run.pk), actor=self.actor)
        assert self._everything() == before
        if self.model.status in ENDED and not self.model.retryable:
            self._send_home()
            self._begin()

    @precondition(lambda self: any(not worker.over and not worker.holds_a_part for worker in self.workers))
    @rule(data=st.data())
    def play(self, data: st.DataObject) -> None:
        able = [worker for worker in self.workers if not worker.over and not worker.holds_a_part]
        self._play(data.draw(st.sampled_from(able)))

    @precondition(lambda self: any(worker.holds_a_part for worker in self.workers))
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        self._commit(data.draw(st.sampled_from([worker for worker in self.workers if worker.holds_a_part])))

    @precondition(lambda self: self.model.status == "running" and not self.workers[-1].holds_a_part)
    @rule(meanwhile=st.sampled_from(["lost", "claimed", "played", "cancelled"]))
    def come_too_late(self, meanwhile: str) -> None:
        late = self.workers[-1]
        self._play(late)
        if meanwhile == "cancelled":
            self.cancel()
        else:
            self.lose_the_lease()
        if meanwhile in ("claimed", "played") and self.model.status == "queued":
            self.claim(broken=False)
            if meanwhile == "played":
                self.play_on_until_it_stops()
        if late.holds_a_part:
            self._commit(late)

    @precondition(lambda self: self.model.status == "running")
    @rule()
    def play_on_until_it_stops(self) -> None:
        worker = self.workers[-1]
        while not worker.over:
            if not worker.holds_a_part:
                self._play(worker)
            if worker.holds_a_part:
                self._commit(worker)
        assert self.model.status != "running"

    @precondition(lambda self: Wait.objects.filter(run=self.run, node="verdict").exists())
    @rule(
        decision=st.sampled_from(["approve", "approve", "later", "reject", "perhaps"]),
        wrong=st.sampled_from([{}, {}, {}, {"version": 2}, {"payload_sha256": "0" * 64}]),
        stale=st.booleans(),
    )
    def answer(self, decision: str, wrong: dict[str, Any], stale: bool) -> None:
        gate = Wait.objects.select_related("run").get(run=self.run, node="verdict")
        given = waits.Answer(decision, **{"version": gate.version, "payload_sha256": gate.payload_sha256, **wrong})
        seen = self.seen if stale and self.seen is not None else gate
        was_open = gate.pending
        fault = self._refusal(gate, given, quoted=not wrong, looked_open=seen.pending)
        # Of what comes after the end the thread tells, and nothing else changes.
        told = fault in (QuoteMismatch, AlreadyDecided, NotWaiting) and self.model.status in ENDED
        besides = "answer.refused" if told else "nothing"
        before = self._everything(without=besides)
        if fault is None:
            decided = waits.answer(seen, given, actor=self.actor)
            assert (decided.status, decided.decision) == ("resolved", decision)
            if was_open:
                self._passed("verdict", decision)
            else:
                assert self._everything() == before
            return
        with pytest.raises(fault):
            waits.answer(seen, given, actor=self.actor)
        assert self._everything(without=besides) == before

    @precondition(lambda self: Wait.objects.filter(run=self.run, node="review").exists())
    @rule(place=st.integers(0, 2), decision=st.sampled_from(["approve", "approve", "reject"]), again=st.booleans())
    def vote(self, place: int, decision: str, again: bool) -> None:
        seat = Wait.objects.select_related("run").get(run=self.run, node="review", seat=place)
        fault = self._vote_refused(seat, decision)
        counts = seat.pending
        if again and counts and self.model.votes:
            # Who has answered in one place tries another one.
            with pytest.raises(NotAsked):
                waits.answer(seat, waits.Answer(decision), actor=None, decider=APPROVERS[min(self.model.votes)])
            assert Wait.objects.get(pk=seat.pk).pending
        besides = "answer.refused" if fault and self.model.status in ENDED else "nothing"
        before = self._everything(without=besides)
        with pytest.raises(fault) if fault else contextlib.nullcontext():
            waits.answer(seat, waits.Answer(decision), actor=None, decider=seat.approver)
        if counts:
            self.model.votes[place] = decision
            if self.model.agreed:
                self._passed("review", "")
        else:
            assert self._everything(without=besides) == before

    @precondition(lambda self: self.model.waits_for)
    @rule(clocks=st.integers(1, 2))
    def let_the_deadline_pass(self, clocks: int) -> None:
        waits_for = self.model.waits_for
        rows = Wait.objects.pending().filter(run=self.run)
        silent = list(rows.values_list("seat", flat=True))
        assert rows.update(deadline=timezone.now() - timedelta(seconds=1)) == len(silent)
        for _ in range(clocks):
            self._tick()
        while waits_for == "review" and not self.model.agreed:
            self.model.votes[silent.pop(0)] = "approve"
        self._passed(waits_for, "approve" if waits_for == "verdict" else "")

    @precondition(lambda self: self.model.status not in ENDED and len(self.workers) > 1)
    @rule()
    def cancel(self) -> None:
        intake.cancel(self.run, actor=self.actor)
        self.model.go("cancelled")
        self.model.waits_for = ""

    @precondition(lambda self: self.model.retryable)
    @rule()
    def retry(self) -> None:
        intake.retry(self.run, actor=self.actor)
        self.model.go("queued")
        self.model.losses = 0

    @precondition(lambda self: self.model.status == "running")
    @rule()
    def lose_the_lease(self) -> None:
        Run.objects.filter(pk=self.run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        self._tick()
        self.model.losses += 1
        if self.model.losses < MOST_LOSSES:
            self.model.go("queued")
        else:
            self.model.go("failed")
            self.model.broken_by = "losses"

    @invariant()
    def the_run_is_where_the_model_says(self) -> None:
        run = Run.objects.get(pk=self.run.pk)
        assert (run.status, run.epoch) == (self.model.status, self.model.epoch)
        assert (run.lease_until is not None) == (run.status == "running")
        assert (run.ended_at is not None) == (run.status in ENDED)
        assert (run.error is not None) == (run.status == "failed")

    @invariant()
    def a_run_waits_if_and_only_if_something_is_open(self) -> None:
        pending = list(Wait.objects.pending().filter(run=self.run).values_list("node", flat=True))
        among = len(APPROVERS) - len(self.model.votes) if self.model.waits_for == "review" else 1
        assert pending == ([self.model.waits_for] * among if self.model.waits_for else [])
        assert bool(pending) == (self.model.status == "waiting")

    @invariant()
    def the_thread_has_no_hole_and_tells_everything_once(self) -> None:
        events = list(thread(self.run))
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert Run.objects.get(pk=self.run.pk).last_seq == len(events)
        for kind in ("step.started", "step.finished"):
            steps = [event.step_id for event in events if event.kind == kind]
            assert len(steps) == len(set(steps)), kind
        ends = [event.kind for event in events if event.kind.removeprefix("run.") in ENDED]
        assert len(ends) == sum(event.kind == "run.retried" for event in events) + (self.model.status in ENDED)
        told = [event.data["wait_id"] for event in events if event.kind in CLOSED]
        closed = Wait.objects.filter(run=self.run, status__in=("resolved", "expired")).values_list("id", flat=True)
        assert sorted(told) == sorted(closed)

    @invariant()
    def the_world_was_acted_on_once_at_most(self) -> None:
        assert world["acts"] <= 1
        assert Effect.objects.filter(run=self.run, state="confirmed").count() == world["acts"]

    def _begin(self) -> None:
        world.update(broken=False, acts=0)
        self.run = started(self.operator, "walk")
        self.model = Model()
        self.seen: Wait | None = None

    def _send_home(self) -> None:
        for worker in self.workers:
            worker.leave()
        self.workers.clear()

    def _tick(self) -> None:
        # Another thread announces; it would wait for the lock that this transaction holds.
        Run.objects.filter(pk=self.run.pk).update(announced_seq=F("last_seq"))
        clock.tick()

    def _play(self, worker: Worker) -> None:
        """What is played and not committed changes nothing, but for effects, which are fenced on their own."""
        before = self._everything(without="effect.")
        worker.play()
        assert self._everything(without="effect.") == before

    def _commit(self, worker: Worker) -> None:
        if worker.epoch != self.model.epoch or self.model.status != "running":
            before = self._everything()
            with contextlib.suppress(leases.ClaimLost):
                worker.commit()
            assert self._everything() == before
            return
        following = self.model.following()
        progress = worker.commit()
        if progress.figures.nodes_executed:
            self.model.losses = 0
        match progress.outcome:
            case None:
                return
            case outcomes.Paused(places):
                assert [place.request.node for place in places] == [following] * (3 if following == "review" else 1)
                self.model.go("waiting")
                self.model.waits_for = following
                self.seen = Wait.objects.select_related("run").filter(run=self.run, node="verdict").first()
            case outcomes.Failed() as failed:
                assert following == {"GateRejected": "rejected", "RuntimeError": "broken"}[failed.kind]
                self.model.go("failed")
                self.model.broken_by = following
            case outcomes.Completed(output):
                assert (following, output["count"], output["verdict"]) == ("end", 3, self.model.decision)
                self.model.go("completed")

    def _passed(self, place: str, decision: str) -> None:
        self.model.go("queued")
        self.model.waits_for = ""
        self.model.passed.append(place)
        self.model.decision = decision or self.model.decision

    def _refusal(self, gate: Wait, given: waits.Answer, *, quoted: bool, looked_open: bool) -> type[Exception] | None:
        if not quoted:
            return QuoteMismatch
        if looked_open and given.decision == "perhaps":
            return Misfit
        if gate.pending or (gate.status, gate.decision) == ("resolved", given.decision):
            return None
        return NotWaiting if gate.status == "cancelled" else AlreadyDecided

    def _vote_refused(self, seat: Wait, decision: str) -> type[Exception] | None:
        if seat.pending or (seat.status, seat.decision) == ("resolved", decision):
            return None
        ended_at = Run.objects.values_list("ended_at", flat=True).get(pk=self.run.pk)
        return NotWaiting if seat.status == "cancelled" and seat.closed_at == ended_at else AlreadyDecided

    def _everything(self, *, without: str = "nothing") -> dict[str, Any]:
        """Return all that the database holds of the run, but for events of some kind and their numbers."""
        run = Run.objects.filter(pk=self.run.pk).values().get()
        counted = {"announced_seq"}
        if without != "nothing":
            counted |= {"last_seq", "updated_at", "lease_until", "running_seconds"}
        return {
            "run": {name: value for name, value in run.items() if name not in counted},
            "events": [row for row in thread(self.run).values() if not row["kind"].startswith(without)],
            "waits": list(Wait.objects.filter(run=self.run).values()),
            "checkpoints": list(Checkpoint.objects.filter(thread_id=self.run.id).values("checkpoint_id")),
            "writes": list(CheckpointWrite.objects.filter(thread_id=self.run.id).values("checkpoint_id", "idx")),
        }


CLOSED = ("gate.decided", "gate.expired", "timer.fired")


@pytest.mark.timeout(400)  # finding the shortest example takes its time
def test_runs_and_waits_do_what_the_model_says(project, alice, settings) -> None:
    settings.OPENVIBE = replace(settings.OPENVIBE, most_losses=MOST_LOSSES)
    row = registration.register(project, definitions.registry.register(Walker))
    try:
        run_state_machine_as_test(type("Machine", (Runs,), {"operator": row, "actor": alice}), settings=BOUNDS)
    finally:
        definitions.registry.remove("walker")
        compiled.workflow.cache_clear()
