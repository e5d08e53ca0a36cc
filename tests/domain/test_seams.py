"""What two features make of each other: forks and open effects, pauses between tries and timeouts, ends and retries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from openvibe import Retry, node, operator, workflow
from operators import clock
from operators.errors import NotRetryable
from operators.models import Effect, Operator, Project, Run, Wait
from operators.services import forks, intake, waits
from tests.domain.lab import kinds, played, served, started

#: What was paid; and what happens in the middle of a payment.
paid: list[str] = []
accidents: list[Callable[[], Any]] = []
HOUR = timedelta(hours=1)


def pay(ctx: Any) -> int:
    paid.append(ctx.run_id)
    if accidents:
        accidents.pop()()
    return len(paid)


@operator(id="clerk")
class Clerk:
    number: int = 0

    @workflow(id="pays", inputs=())
    class Pays:
        @node
        def prepare(self, state):
            return {"number": 1}

        @node
        def pay(self, state, ctx):
            return {"number": ctx.effect("pay", lambda: pay(ctx))}

    @workflow(id="insists", inputs=(), timeout=HOUR)
    class Insists:
        @node(retry=Retry(attempts=3, pause=HOUR, longest=HOUR))
        def insist(self, state):
            if accidents:
                accidents.pop()()
            return {"number": 1}


@pytest.fixture
def clerk(project: Project) -> Iterator[Operator]:
    with served(project, Clerk) as found:
        yield found
    paid.clear()
    accidents.clear()


def in_doubt(clerk: Operator) -> tuple[Run, Wait]:
    """Return a run that waits because nobody knows whether it has paid, and the question."""
    run = started(clerk, "pays")
    accidents.append(lambda: Run.objects.filter(id=run.id).update(status="queued", lease_until=None))
    run = played(played(run))
    return run, Wait.objects.pending().select_related("run").get(run=run)


def test_a_fork_before_an_open_effect_pays_for_itself_and_leaves_the_question_open(clerk, alice: User):
    run, question = in_doubt(clerk)
    fork = played(forks.fork(run, step_id=question.step_id, before=True, actor=alice))
    assert (fork.status, paid) == ("completed", [run.id, fork.id])
    question.refresh_from_db()
    assert question.pending
    waits.answer(question, waits.Answer("it_happened", values={"result": 7}), actor=alice)
    assert played(run).output["number"] == 7
    assert sorted(Effect.objects.values_list("run_id", "state")) == sorted(
        [(run.id, "confirmed"), (fork.id, "confirmed")]
    )


def test_a_run_that_was_cancelled_with_an_open_effect_does_nothing_more(clerk, alice: User):
    run, _ = in_doubt(clerk)
    intake.cancel(run, actor=alice)
    run.refresh_from_db()
    with pytest.raises(NotRetryable, match="it is cancelled"):
        intake.retry(run, actor=alice)
    run = played(run)
    assert (run.status, paid, Effect.objects.get().state) == ("cancelled", [run.id], "attempted")


def test_pauses_between_tries_are_no_running_time(clerk):
    def fail() -> None:
        raise ConnectionError("nobody answers")

    accidents.extend([fail, fail])
    run = played(started(clerk, "insists"))
    for _ in range(2):
        Run.objects.update(started_at=timezone.now() - 3 * HOUR, updated_at=timezone.now() - HOUR)
        Wait.objects.pending().update(opened_at=timezone.now() - HOUR, deadline=timezone.now())
        clock.tick()
        run = played(run)
    assert (run.status, kinds(run).count("attempt.failed")) == ("completed", 2)
    assert run.running_seconds < 60
