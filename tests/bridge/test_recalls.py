"""Who does something for a run is told when nobody waits for it any more: also single waits of a group."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from openvibe.bus.memory import MemoryBus
from openvibe.protocol import sessions
from openvibe.protocol.streams import STREAMS
from operators import clock
from operators.link import link
from operators.models import Run, Wait
from operators.services import deliveries, doorbell, forgotten, intake, recalls, waits

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]

numbers = itertools.count(1)
CODING = {"role": "coding", "task": {"chunk_id": "c1", "description": "Write it"}}


@pytest.fixture
def waiting(run: Run, memory: MemoryBus) -> Run:
    """A run that waits, for nothing yet."""
    Run.objects.filter(id=run.id).update(status=Run.Status.WAITING)
    run.refresh_from_db()
    return run


def sent(run: Run, *kinds: tuple[str, dict[str, Any]], rule: str = "", needed: int = 0) -> list[Wait]:
    """Waits of one interrupt, which those who are to answer know of."""
    made = [
        Wait.objects.create(
            id=f"wait_{kind}_{seat}", run=run, kind=kind, node="ask", step_id="s1", interrupt_id="i1", seat=seat,
            rule=rule, needed=needed, payload_sha256="0" * 64, prompt="?", payload=payload, opened_at=timezone.now(),
        )
        for seat, (kind, payload) in enumerate(kinds)
    ]  # fmt: skip
    for wait in made:
        assert deliveries.ask(wait.id)
    return made


def heard(stream: str, pattern: str) -> list[dict[str, Any]]:
    async def read() -> list[dict[str, Any]]:
        bus: Any = await link.bus()
        pull = await bus.pull(stream, durable=f"recalls-{next(numbers)}", patterns=[pattern])
        return [json.loads(item.data) for item in await pull.fetch(20, timeout=0.2)]

    return link.submit(read()).result(10)


def emptied() -> MemoryBus:
    """A bus that knows of nothing that was said before."""
    bus = MemoryBus()

    async def made_ready() -> None:
        await bus.connect()
        await bus.ensure(STREAMS)

    link.submit(made_ready()).result(10)
    return bus


def withdrawn() -> list[dict[str, Any]]:
    found = heard("sessions", "sessions.*.events")
    for item in found:
        sessions.check(item["type"], item["payload"])
    return [item for item in found if item["type"] == "event.work.cancelled"]


def test_an_agent_hears_once_that_the_run_whose_work_it_does_was_cancelled(waiting: Run, alice: Any) -> None:
    [wait] = sent(waiting, ("work", CODING))
    intake.cancel(waiting, actor=alice)
    recalls.recall_all(waiting.id)
    recalls.recall_all(waiting.id)
    [told] = withdrawn()
    assert told["session_id"] == waiting.id
    assert {name: told["payload"][name] for name in ("work_id", "chunk_id", "role")} == {
        "work_id": wait.id, "chunk_id": "c1", "role": "coding"
    }  # fmt: skip
    assert "the run cancelled" in told["payload"]["reason"]


def test_of_a_group_whose_rule_is_met_those_who_are_not_needed_are_told_while_the_run_goes_on(
    waiting: Run, bells: Callable[[], list[tuple[str, str, str]]]
) -> None:
    taste = {"tool": "taste", "tool_call_id": "t1", "arguments": {}}
    first, second, third = sent(waiting, ("work", CODING), ("work", CODING), ("tool", taste), rule="any", needed=1)
    assert waits.settle(second, result={"summary": "done"}, by="ada")
    assert sorted(bell[1:] for bell in bells()) == [(doorbell.PERFORM, waiting.id), (doorbell.RECALL, waiting.id)]
    recalls.recall_all(waiting.id)
    assert [item["payload"]["work_id"] for item in withdrawn()] == [first.id]
    [tool] = heard("cg_cmd_v1", "cg.v1.*.*.cmd.tool.taste.cancel")
    assert tool["tool_call_id"] == "t1"
    waiting.refresh_from_db()
    assert waiting.status == "queued"
    third.refresh_from_db()
    assert third.recalled_at is not None


def test_a_clock_tells_an_agent_whose_time_is_up_or_whose_bell_was_lost(waiting: Run) -> None:
    [wait] = sent(waiting, ("work", CODING))
    Wait.objects.filter(id=wait.id).update(deadline=timezone.now() - timedelta(seconds=1))
    clock.tick()
    assert withdrawn() == []
    Wait.objects.filter(id=wait.id).update(closed_at=timezone.now() - timedelta(minutes=1))
    clock.tick()
    clock.tick()
    [told] = withdrawn()
    assert "expired" in told["payload"]["reason"]


def test_an_agent_that_was_never_asked_hears_nothing(waiting: Run, alice: Any) -> None:
    [wait] = sent(waiting, ("work", CODING))
    Wait.objects.filter(id=wait.id).update(sent_at=None, tried_at=None)
    intake.cancel(waiting, actor=alice)
    recalls.recall_all(waiting.id)
    assert withdrawn() == []


TASTE = {"tool": "taste", "tool_call_id": "t1", "arguments": {}}


@pytest.mark.parametrize(
    ("kind", "payload", "hours", "stream", "pattern"),
    [
        ("work", CODING, 7 * 24, "sessions", "sessions.*.work"),
        ("tool", TASTE, 24, "cg_cmd_v1", "cg.v1.*.*.cmd.tool.taste.call"),
    ],
)
def test_what_the_bus_has_forgotten_unanswered_is_asked_again(
    waiting: Run, kind: str, payload: Any, hours: int, stream: str, pattern: str
) -> None:
    [wait] = sent(waiting, (kind, payload))
    [before] = heard(stream, pattern)
    for ago, again in ((timedelta(hours=hours - 1), False), (timedelta(hours=hours + 1), True)):
        Wait.objects.filter(id=wait.id).update(sent_at=timezone.now() - ago, opened_at=timezone.now() - ago)
        link.use(emptied())
        forgotten.ask_again(timezone.now())
        clock.tick()
        told = heard(stream, pattern)
        assert [item["id"] for item in told] == ([before["id"]] if again else [])
    wait.refresh_from_db()
    assert timezone.now() - wait.sent_at < timedelta(hours=1)


@pytest.mark.parametrize("ending", ["cancelled", "expired", "not needed"])
def test_an_agent_whose_worker_died_when_it_had_asked_hears_of_the_end_too(
    waiting: Run, alice: Any, ending: str
) -> None:
    first, second = sent(waiting, ("work", CODING), ("work", CODING), rule="any", needed=1)
    # What the worker did not come to note.
    Wait.objects.filter(id=first.id).update(sent_at=None)
    match ending:
        case "cancelled":
            Wait.objects.filter(id=second.id).delete()
            intake.cancel(waiting, actor=alice)
        case "expired":
            Wait.objects.filter(id=second.id).delete()
            Wait.objects.filter(id=first.id).update(deadline=timezone.now())
            clock.meet_deadlines()
        case _:
            assert waits.settle(second, result={"summary": "done"}, by="ada")
    recalls.recall_all(waiting.id)
    assert [item["payload"]["work_id"] for item in withdrawn()] == [first.id]
