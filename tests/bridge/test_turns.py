"""What agents of the dialect `cg` hear of our own runs' turns: every required field, once, and nothing comes back."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User

from openvibe.bus import Message
from openvibe.bus.nats import NatsBus
from openvibe.protocol import headers
from openvibe.protocol.turns import REQUIRED
from operators import definitions
from operators.models import Box, Card, DeadLetter, Event, Operator, Project, Run
from operators.services import announcements, compiled, execution, intake, registration, waits
from tests.bridge.conftest import SOON, Bridge, eventually
from tests.domain.lab import Lab
from tests.domain.test_retry import BROKEN, Shaky

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def streams(bridge: Bridge) -> str:
    """The address of a server that has its streams: what is said before that is told later, in another order."""
    bridge.send()
    return bridge.server.url


@pytest.fixture
def lab(project: Project) -> Iterator[Operator]:
    yield registration.register(project, definitions.registry.register(Lab))
    definitions.registry.remove("lab")
    compiled.workflow.cache_clear()


@pytest.fixture
def shaky(project: Project) -> Iterator[Operator]:
    yield registration.register(project, definitions.registry.register(Shaky))
    definitions.registry.remove("shaky")
    compiled.workflow.cache_clear()
    BROKEN.clear()
    BROKEN.add("second")


def kept(url: str, pattern: str, wanted: int) -> list[Message]:
    """Return what the stream of events keeps on a pattern, as soon as it is so many."""

    async def read() -> list[Message]:
        bus = NatsBus(url, name="reader")
        await bus.connect()
        pull = await bus.pull("cg_evt_v1", durable=f"reader-{abs(hash(pattern))}-{wanted}", patterns=[pattern])
        found: list[Message] = []
        async with asyncio.timeout(SOON):
            while len(found) < wanted:
                found += await pull.fetch(100, timeout=1)
        found += await pull.fetch(100, timeout=0.5)
        await bus.close()
        return found

    return asyncio.run(read())


def bodies(messages: list[Message], family: str) -> list[dict[str, Any]]:
    return [json.loads(item.data) for item in messages if item.subject.endswith(f".{family}")]


def played(operator: Operator, slug: str = "four") -> Run:
    run = intake.request(operator.workflows.get(slug=slug), input={}, actor=None)
    execution.perform(run.id)
    run.refresh_from_db()
    return run


def pattern(run: Run) -> str:
    return f"cg.v1.default.t_{run.id}.evt.agent.*.>"


def test_a_runs_turn_is_told_with_every_required_field(streams: str, lab: Operator) -> None:
    run = played(lab)
    # Four steps that begin and end, three states, one end.
    messages = kept(streams, pattern(run), 12)

    assert len(messages) == 12
    for family in ("step", "task", "state"):
        for body in bodies(messages, family):
            assert all(body[name] not in (None, "") for name in REQUIRED[f"evt.agent.{family}"])
            assert all(body["payload"][name] == body[name] for name in REQUIRED[f"evt.agent.{family}"])
            assert (body["agent_turn_id"], body["agent_id"]) == (f"{run.id}-0", "lab")
    phases = Counter(body["phase"] for body in bodies(messages, "step"))
    assert phases == {"started": 4, "completed": 4}
    states = [(body["status"], body["turn_epoch"]) for body in bodies(messages, "state")]
    assert states == [("dispatched", 0), ("running", 1), ("idle", 1)]
    (task,) = bodies(messages, "task")
    assert task["status"] == "success"


def test_what_a_turn_delivered_lies_in_a_box_that_its_task_points_at(streams: str, lab: Operator) -> None:
    run = played(lab, "large")
    (task,) = bodies(kept(streams, f"cg.v1.default.t_{run.id}.evt.agent.lab.task", 1), "task")

    assert task["output_box_id"] == f"{run.id}-0-output"
    assert Box.objects.get(name=task["output_box_id"]).cards == [task["deliverable_card_id"]]
    # A text over the limit is a card of its own, as in the run's events.
    deliverable = Card.objects.get(sha256=task["deliverable_card_id"]).content
    assert Card.objects.get(sha256=deliverable["text"]["card"]).content == "x" * 40_000
    (instruction,) = Box.objects.get(name=f"{run.id}-context").cards
    assert Card.objects.get(sha256=instruction).content == run.input


def test_steps_may_be_left_out(streams: str, lab: Operator, settings: Any) -> None:
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, turn_steps=False)
    run = played(lab)
    messages = kept(streams, pattern(run), 4)
    assert bodies(messages, "step") == []
    assert len(bodies(messages, "state")) == 3
    assert len(bodies(messages, "task")) == 1


def test_headers_of_a_turns_messages_are_complete_and_go_on_in_the_runs_trace(streams: str, lab: Operator) -> None:
    run = played(lab)
    for message in kept(streams, pattern(run), 12):
        assert message.headers["traceparent"] == run.traceparent
        assert message.headers[headers.DEPTH] == "0"
        assert {"CG-Timestamp", "CG-Version", "CG-Msg-Type", "CG-Sender", "Nats-Msg-Id"} <= set(message.headers)


def test_each_turn_ends_in_exactly_one_task(streams: str, shaky: Operator, alice: User) -> None:
    run = played(shaky, "steps")
    BROKEN.clear()
    intake.retry(run, actor=alice)
    execution.perform(run.id)
    tasks = bodies(kept(streams, f"cg.v1.default.t_{run.id}.evt.agent.shaky.task", 2), "task")

    assert [(body["agent_turn_id"], body["status"]) for body in tasks] == [
        (f"{run.id}-0", "failed"), (f"{run.id}-1", "success"),
    ]  # fmt: skip
    assert (tasks[0]["error_code"], tasks[0]["error"]) == ("RuntimeError", "the outside world is away")


def test_a_run_that_never_began_ends_its_turn_too(streams: str, lab: Operator, alice: User) -> None:
    run = intake.request(lab.workflows.get(slug="four"), input={}, actor=None)
    intake.cancel(run, actor=alice)
    (task,) = bodies(kept(streams, f"cg.v1.default.t_{run.id}.evt.agent.lab.task", 1), "task")
    assert (task["agent_turn_id"], task["status"]) == (f"{run.id}-0", "canceled")


def test_what_is_announced_again_is_kept_once_and_says_the_same(streams: str, shaky: Operator, alice: User) -> None:
    run = played(shaky, "steps")
    BROKEN.clear()
    intake.retry(run, actor=alice)
    execution.perform(run.id)
    first = kept(streams, pattern(run), 14)
    events = list(Event.objects.after("default", f"t_{run.id}", 0))
    # As another process would, from the middle, and everything once more.
    for part in (events[7:], events[3:], events):
        announcements.tell(part)
        assert announcements.settle(SOON)

    again = kept(streams, f"cg.v1.default.t_{run.id}.evt.agent.*.*", len(first))
    assert [item.data for item in again] == [item.data for item in first]


def test_what_was_played_while_nats_was_away_is_told_once_when_it_is_back(
    bridge: Bridge, streams: str, lab: Operator
) -> None:
    bridge.server.stop()
    run = played(lab)
    assert announcements.settle(SOON)
    bridge.server.start()
    # The clock announces what the bus did not take.
    messages = kept(streams, pattern(run), 12)

    assert len(messages) == 12
    assert Counter(item.subject.rpartition(".")[2] for item in messages) == {"step": 8, "state": 3, "task": 1}


def test_a_turn_that_a_command_asked_for_bears_the_callers_name_of_it(streams: str, lab: Operator) -> None:
    run = intake.request(lab.workflows.get(slug="four"), input={}, actor=None, trigger="turn:theirs-1")
    (state,) = bodies(kept(streams, pattern(run), 1), "state")
    assert (state["correlation_id"], state["agent_turn_id"]) == ("theirs-1", f"{run.id}-0")


def test_our_own_turns_do_not_come_back(bridge: Bridge, streams: str, lab: Operator) -> None:
    run = played(lab)
    kept(streams, pattern(run), 12)
    bridge.send(("cg.v1.default.public.evt.agent.scout.message", {"id": "last", "content": "the last one"}))
    eventually(lambda: Event.objects.filter(channel="public", kind="agent.message").exists())

    assert not Event.objects.filter(run=run, kind__startswith="agent.").exists()
    assert not DeadLetter.objects.exists()


def test_a_gate_suspends_its_turn(streams: str, registered: dict[str, Operator], alice: User) -> None:
    flow = registered["revenue_ops"].workflows.get(slug="engagement")
    run = intake.request(flow, input=flow.sample_input, actor=alice)
    execution.perform(run.id)
    waits.answer(run.waits.select_related("run").get(), waits.Answer("approve"), actor=alice)
    execution.perform(run.id)
    states = bodies(kept(streams, f"cg.v1.default.t_{run.id}.evt.agent.*.state", 5), "state")

    assert [(body["status"], body["turn_epoch"]) for body in states] == [
        ("dispatched", 0), ("running", 1), ("suspended", 1), ("running", 2), ("idle", 2),
    ]  # fmt: skip
