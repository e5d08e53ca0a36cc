"""Long pauses between tries hold no thread: the run waits, and the number of tries survives whatever happens."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from openvibe import Retry, configuration, configure, llm_node, node, operator, workflow
from openvibe.errors import TransientModelError
from openvibe.llm.scripted import ScriptedProvider
from operators import clock, definitions
from operators.models import Run, Wait
from operators.services import compiled, execution, intake, registration
from tests.domain.lab import kinds, played, started, thread

#: What happens at each try of the mill, in order; nothing left: it works.
faults: list[BaseException] = []
LONG = Retry(attempts=3, pause=timedelta(seconds=30))
SHORT = Retry(attempts=4, pause=timedelta(milliseconds=1))


@operator(id="mill", name="Mill")
class Mill:
    flour: int = 0
    text: str = ""

    @workflow(id="grind", inputs=("flour",))
    class Grind:
        @node
        def fill(self, state):
            return None

        @node(retry=LONG)
        def grind(self, state):
            return _turned(state)

    @workflow(id="hasty", inputs=("flour",))
    class Hasty:
        @node(retry=SHORT)
        def grind(self, state):
            return _turned(state)

    @workflow(id="advised", inputs=("flour",))
    class Advised:
        @llm_node(model="haiku")
        def advise(self, state):
            return {"system": "You know mills.", "user": "How?", "output_key": "text"}


def _turned(state):
    if faults:
        raise faults.pop(0)
    return {"flour": state["flour"] + 1}


@pytest.fixture
def mill(project):
    faults.clear()
    yield registration.register(project, definitions.registry.register(Mill))
    definitions.registry.remove("mill")
    compiled.workflow.cache_clear()


@pytest.fixture
def answering():
    """Say what the model answers, or raises, at each call."""
    before = configuration.current()

    def answer(*script):
        provider = ScriptedProvider(script)
        configure(llm=provider)
        definitions.provider.cache_clear()
        return provider

    yield answer
    configuration.restore(before)
    definitions.provider.cache_clear()


def due(run: Run) -> Run:
    """Let the pause be over, and play on."""
    Wait.objects.pending().filter(run=run).update(deadline=timezone.now() - timedelta(seconds=1))
    clock.tick()
    assert Run.objects.get(pk=run.pk).status == "queued"
    return played(run)


def tries(run: Run) -> list[tuple[int, float]]:
    return [(event.data["attempt"], event.data["pause"]) for event in thread(run).filter(kind="attempt.failed")]


def test_a_long_pause_is_a_wait_and_then_the_step_is_tried_again(mill):
    faults.append(ValueError("stuck"))
    run = played(started(mill, "grind", flour=1))

    wait = run.waits.get()
    assert (run.status, run.lease_until, wait.kind, wait.node) == ("waiting", None, "timer", "grind")
    assert (wait.deadline - wait.opened_at).total_seconds() == 30
    assert tries(run) == [(1, 30.0)]
    assert "step.failed" not in kinds(run)

    run = due(run)

    assert (run.status, run.output["flour"], run.nodes_failed) == ("completed", 2, 0)
    assert kinds(run).count("step.started") == kinds(run).count("step.finished") == 2


def test_tries_are_counted_over_all_pauses(mill):
    faults.extend(ValueError(str(number)) for number in range(5))

    run = due(due(played(started(mill, "grind", flour=1))))

    assert (run.status, run.error["message"], run.error["attempt"]) == ("failed", "2", 3)
    assert tries(run) == [(1, 30.0), (2, 60.0)]
    assert len({wait.interrupt_id for wait in run.waits.all()}) == 2


def test_a_crash_in_the_middle_of_short_pauses_forgets_no_try(mill):
    class Killed(BaseException):
        pass

    faults.extend([ValueError("1"), ValueError("2"), Killed(), ValueError("3"), ValueError("4")])
    run = started(mill, "hasty", flour=1)
    with pytest.raises(Killed):
        execution.perform(run.id)
    Run.objects.filter(pk=run.pk).update(status="queued")

    run = played(run)

    assert (run.status, run.error["message"], run.error["attempt"]) == ("failed", "4", 4)
    assert [attempt for attempt, _ in tries(run)] == [1, 2, 3]


def test_a_retried_run_has_all_its_tries_again(mill, alice):
    faults.extend(ValueError(str(number)) for number in range(3))
    run = due(due(played(started(mill, "grind", flour=1))))
    assert run.status == "failed"
    faults.append(ValueError("once more"))

    run = played(intake.retry(run, actor=alice))
    assert (run.status, tries(run)[-1]) == ("waiting", (1, 30.0))
    assert due(run).status == "completed"


def test_a_provider_that_asks_for_patience_gets_it(mill, answering):
    provider = answering(TransientModelError("busy", 3600.0), TransientModelError("still busy", 7.5), "Slowly.")
    run = played(started(mill, "advised", flour=1))

    first = run.waits.get()
    assert (run.status, (first.deadline - first.opened_at).total_seconds()) == ("waiting", 3600)
    run = due(run)
    assert run.waits.count() == 2
    run = due(run)

    assert (run.status, run.output["text"]) == ("completed", "Slowly.")
    assert len(provider.calls) == 3
    assert tries(run) == [(1, 3600.0), (2, 7.5)]


def test_a_provider_is_asked_as_often_as_the_node_allows(mill, answering):
    answering(*[TransientModelError(f"busy {number}", 3600.0) for number in range(5)])

    run = due(due(played(started(mill, "advised", flour=1))))

    assert (run.status, run.error["kind"], run.error["attempt"]) == ("failed", "OutOfTries", 3)
    assert run.error["message"].endswith("3 times: busy 2")


def test_a_run_that_is_cancelled_in_a_pause_is_tried_no_more(mill, alice):
    faults.append(ValueError("stuck"))
    run = played(started(mill, "grind", flour=1))
    intake.cancel(run, actor=alice)
    Wait.objects.filter(run=run).update(deadline=timezone.now() - timedelta(seconds=1))

    clock.tick()

    assert played(run).status == "cancelled"
    assert run.waits.get().status == "cancelled"
