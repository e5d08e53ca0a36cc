# long: one village, and all that goes between its runs or pauses them
"""What goes from run to run: events, requests, the shared context; and pauses that no person ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from openvibe.bus.memory import MemoryBus
from openvibe.ctx import MOST_KEY
from openvibe.protocol import headers, subjects
from openvibe.protocol.streams import STREAMS
from openvibe.registry import define
from operators import clock, definitions
from operators.errors import AlreadyDecided, NotRetryable, RevisionMoved, RunAlreadyEnded
from operators.link import link
from operators.models import Card, ContextRevision, Effect, Emission, Operator, Project, Run, Wait
from operators.services import (
    announcements,
    compiled,
    context,
    deliveries,
    inbox,
    intake,
    recalls,
    registration,
    waits,
)
from operators.services.inbox import Inbound
from tests.domain.lab import kinds, played, started, thread
from tests.domain.village import Baker, Crossroads, Grocer, accidents, orders


@pytest.fixture
def village(project: Project) -> Iterator[dict[str, Operator]]:
    made = [define(cls) for cls in (Baker, Grocer, Crossroads)]
    for item in made:
        definitions.registry.add(item)
    yield {item.spec.id: registration.register(project, item) for item in made}
    for item in made:
        definitions.registry.remove(item.spec.id)
    compiled.workflow.cache_clear()
    orders.clear()
    accidents.clear()


def delivered() -> None:
    for emission in Emission.objects.filter(delivered_at=None):
        deliveries.deliver(emission.id)


def children(run: Run) -> list[Run]:
    return list(Run.objects.filter(parent=run).select_related("operator", "workflow").order_by("id"))


def test_an_emitted_event_starts_the_workflows_that_listen_to_it(village):
    run = played(started(village["baker"], "bake", flour=50))
    assert run.status == "completed", run.error
    [emission] = Emission.objects.all()
    assert (emission.name, emission.payload["loaves"]) == ("baker.bread_ready", 5)
    assert kinds(run)[-2:] == ["event.emitted", "run.completed"]

    delivered()
    [child] = children(run)
    assert (child.workflow.slug, child.trigger, child.input, child.depth) == (
        "sell", "event:baker.bread_ready", {"loaves": 5}, 1,
    )  # fmt: skip
    assert child.traceparent == run.traceparent
    assert played(child).output["sold"] == 55


def test_an_event_that_is_delivered_twice_starts_each_listener_once(village):
    run = played(started(village["baker"], "bake", flour=50))
    [emission] = Emission.objects.all()
    deliveries.deliver(emission.id)
    Emission.objects.update(delivered_at=None)
    deliveries.deliver(emission.id)
    assert len(children(run)) == 1


def test_a_listener_hears_only_the_payloads_that_it_asked_for(village):
    for flour, stores in ((150, 0), (200, 1)):
        run = played(started(village["baker"], "bake", flour=flour))
        delivered()
        heard = [child for child in children(run) if child.workflow.slug == "store"]
        assert len(heard) == stores
    assert heard[0].input == {"loaves": 200}


def test_an_event_that_nobody_delivered_is_delivered_by_the_clock(village):
    run = played(started(village["baker"], "bake", flour=50))
    Emission.objects.update(emitted_at=timezone.now() - timedelta(minutes=1))
    clock.tick()
    assert len(children(run)) == 1
    assert Emission.objects.get().delivered_at is not None


def test_a_listener_that_is_switched_off_is_not_started(village):
    Operator.objects.filter(slug="grocer").update(enabled=False)
    run = played(started(village["baker"], "bake", flour=50))
    delivered()
    assert children(run) == []


def test_an_event_that_would_go_round_for_ever_is_refused_and_said_so(village):
    run = started(village["baker"], "bake", flour=50)
    Run.objects.filter(id=run.id).update(depth=headers.MOST_DEPTH - 1)
    run = played(run)
    delivered()
    assert children(run) == []
    refused = thread(run).get(kind="event.refused")
    assert refused.data["code"] == "recursion_depth_exceeded"


def test_a_request_is_answered_by_a_run_and_the_asker_goes_on(village):
    run = played(started(village["baker"], "ask", loaves=3))
    assert run.status == "waiting"
    wait = run.waits.get()
    assert (wait.kind, kinds(run)[-1]) == ("reply", "reply.requested")

    deliveries.ask(wait.id)
    [child] = children(run)
    assert (child.workflow.slug, child.input) == ("quote", {"loaves": 3})
    played(child)
    deliveries.reply(child.id)
    run = played(run)
    assert run.status == "completed", run.error
    assert run.output["price"] == "6 coins"
    assert "reply.answered" in kinds(run)


def test_who_answers_a_run_has_its_place_in_the_line(village):
    quote = village["grocer"].workflows.get(slug="quote")
    Operator.objects.filter(pk=village["grocer"].pk).update(max_running=1)
    early = intake.request(quote, input={"loaves": 1}, actor=None, priority=1)
    asker = village["baker"].workflows.get(slug="ask")
    run = played(intake.request(asker, input={"loaves": 3}, actor=None, priority=5))
    deliveries.ask(run.waits.get().id)
    [child] = children(run)
    played(early)
    early.refresh_from_db()
    child.refresh_from_db()
    assert (child.priority, child.status, early.status) == (5, "completed", "queued")


def test_a_node_may_ask_twice(village):
    run = played(started(village["baker"], "ask_twice", loaves=3))
    for asked in (1, 2):
        wait = run.waits.get(status="pending")
        deliveries.ask(wait.id)
        child = children(run)[-1] if asked == 1 else next(item for item in children(run) if item.active)
        played(child)
        deliveries.reply(child.id)
        run = played(run)
    assert run.status == "completed", run.error
    assert run.output["price"] == "6 coins, 8 coins"


def test_a_request_that_fails_fails_the_asker_with_the_reason(village):
    run = played(started(village["baker"], "ask", loaves=2000))
    deliveries.ask(run.waits.get().id)
    [child] = children(run)
    played(child)
    deliveries.reply(child.id)
    run = played(run)
    assert run.status == "failed"
    assert "too much bread" in run.error["message"]


def test_a_request_for_what_nobody_offers_fails_at_once(village):
    village["grocer"].workflows.update(retired=True)
    bus = MemoryBus()
    asyncio.run(bus.connect())
    link.use(bus)
    run = played(started(village["baker"], "ask", loaves=3))
    deliveries.ask(run.waits.get().id)
    run = played(run)
    assert run.status == "failed"
    assert "nobody offers 'price' of 'grocer'" in run.error["message"]


def test_a_lost_answer_is_brought_by_the_clock(village):
    run = played(started(village["baker"], "ask", loaves=3))
    long_ago = timezone.now() - timedelta(minutes=1)
    Wait.objects.update(opened_at=long_ago)
    clock.tick()
    [child] = children(run)
    played(child)
    Run.objects.filter(id=child.id).update(ended_at=long_ago)
    clock.tick()
    assert played(run).status == "completed"


def test_a_rest_holds_nothing_and_ends_when_the_clock_says_so(village):
    run = played(started(village["baker"], "rest", flour=1))
    assert (run.status, run.lease_until) == ("waiting", None)
    wait = run.waits.get()
    assert wait.kind == "timer"
    assert abs((wait.deadline - wait.opened_at) - timedelta(days=2)) < timedelta(seconds=1)
    assert kinds(run)[-1] == "timer.set"

    clock.tick()
    assert Run.objects.get(id=run.id).status == "waiting"
    Wait.objects.update(deadline=timezone.now())
    clock.tick()
    clock.tick()
    run = played(run)
    assert run.status == "completed", run.error
    assert run.output["loaves"] == 2
    assert kinds(run).count("timer.fired") == 1
    begun = [event.node for event in thread(run) if event.kind == "step.started"]
    assert begun == ["rise", "bake"]


def test_a_worker_that_dies_after_a_rest_tells_no_step_twice(village):
    run = played(started(village["baker"], "rest", flour=1))
    Wait.objects.update(deadline=timezone.now())
    clock.tick()
    first = Run.objects.get(id=run.id)
    assert first.status == "queued"
    run = played(run)
    assert kinds(run).count("step.started") == kinds(run).count("step.finished") == 2


def test_an_effect_is_noted_before_it_is_tried_and_confirmed_after(village):
    run = played(started(village["baker"], "buy", flour=1))
    assert run.output["receipt"] == {"order": "flour"}
    row = Effect.objects.get()
    assert (row.state, row.attempts, row.result) == ("confirmed", 1, {"order": "flour"})
    assert [kind for kind in kinds(run) if "effect" in kind] == ["effect.attempted", "effect.confirmed"]


def killed_in_the_middle(run: Run) -> Run:
    """Play a run and lose its worker just after the effect has happened."""
    accidents.append(lambda: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        played(run)
    accidents.clear()
    Run.objects.filter(id=run.id).update(lease_until=timezone.now() - timedelta(seconds=1))
    clock.tick()
    return Run.objects.get(id=run.id)


def test_the_database_has_room_for_every_key_of_an_effect():
    assert Effect._meta.get_field("key").max_length == MOST_KEY


def test_an_effect_that_a_crash_left_unknown_is_asked_about_and_not_repeated(village, alice):
    run = killed_in_the_middle(started(village["baker"], "buy", flour=1))
    run = played(run)
    assert run.status == "waiting"
    gate = run.waits.get()
    assert (gate.kind, gate.form) == ("approval", "effect")
    assert "Did this happen?" in gate.prompt

    waits.answer(gate, waits.Answer("it_happened", values={"result": {"order": "seen"}}), actor=alice)
    run = played(run)
    assert run.status == "completed", run.error
    assert run.output["receipt"] == {"order": "seen"}
    assert orders == ["flour"]
    assert "effect.unknown" in kinds(run)


def test_an_effect_that_did_not_happen_is_tried_again(village, alice):
    run = played(killed_in_the_middle(started(village["baker"], "buy", flour=1)))
    waits.answer(run.waits.get(), waits.Answer("it_did_not_happen"), actor=alice)
    run = played(run)
    assert run.status == "completed", run.error
    assert orders == ["flour", "flour"]
    assert Effect.objects.get().attempts == 2


def test_a_gate_is_escalated_once_and_then_decided_by_its_default(village):
    run = played(started(village["baker"], "judged", loaves=1))
    for expected in ("gate.escalated", "gate.expired"):
        Wait.objects.update(deadline=timezone.now())
        clock.tick()
        assert kinds(run)[-1] == expected
    gate = Wait.objects.get()
    assert (gate.assignee, gate.decision, gate.status) == ("mayor", "reject", "expired")
    assert played(run).status == "failed"


def test_an_escalated_gate_can_still_be_decided_by_a_person(village, alice):
    run = played(started(village["baker"], "judged", loaves=1))
    Wait.objects.update(deadline=timezone.now())
    clock.tick()
    waits.answer(Wait.objects.get(), waits.Answer("approve"), actor=alice)
    assert played(run).output["verdict"] == "approve"


def test_an_external_agents_result_ends_the_wait_for_work(village):
    run = played(started(village["baker"], "remote", loaves=1))
    wait = run.waits.get()
    assert (wait.kind, wait.payload) == ("work", {"role": "tasting", "task": {"loaves": 1}})
    assert waits.settle(wait, result="delicious", by="taster")
    assert not waits.settle(wait, result="bland", by="another")
    run = played(run)
    assert run.output["verdict"] == "delicious"
    assert [event.kind for event in thread(run) if event.actor == "taster"] == ["work.answered"]


def test_an_agent_that_says_nothing_in_time_fails_the_run(village):
    run = played(started(village["baker"], "remote", loaves=1))
    Wait.objects.update(deadline=timezone.now())
    clock.tick()
    run = played(run)
    assert run.status == "failed"
    assert "Nobody answered before" in run.error["message"]


def test_a_remote_tools_result_goes_to_the_model(village):
    run = played(started(village["baker"], "advised", loaves=1))
    assert run.status == "waiting", run.error
    wait = run.waits.get()
    assert (wait.kind, wait.payload["tool"]) == ("tool", "taste")
    waits.settle(wait, result={"taste": "nutty"}, by="taster")
    run = played(run)
    assert run.status == "completed", run.error
    assert run.output["verdict"]
    [told] = [event for event in thread(run) if event.kind == "step.finished" and event.node == "advise.tools"]
    assert told.data["result"] == '{"taste":"nutty"}'


def test_a_remote_tools_call_goes_to_the_bus_with_its_arguments_in_a_card(village):
    bus = MemoryBus()

    async def furnish():
        await bus.connect()
        await bus.ensure(STREAMS)

    async def heard():
        pull = await bus.pull("cg_cmd_v1", durable="taster", patterns=["cg.v1.*.*.cmd.tool.taste.call"])
        return await pull.fetch(10, timeout=1)

    link.submit(furnish()).result(5)
    link.use(bus)
    run = played(started(village["baker"], "advised", loaves=1))
    wait = run.waits.get()
    deliveries.ask(wait.id)
    deliveries.ask(wait.id)
    [message] = link.submit(heard()).result(5)
    payload = json.loads(message.data)["payload"]
    assert (payload["tool_name"], payload["tool_call_id"]) == ("taste", wait.payload["tool_call_id"])
    assert Card.objects.get(sha256=payload["tool_call_card_id"]).content == wait.payload["arguments"]
    assert message.headers["OpenVibe-Answer-To"].endswith(f"t_{run.id}.cmd.sys.reply.{wait.id}")

    answer = Inbound(run.project_id, inbox.REPLY, wait.id, "", {"wait_id": wait.id, "payload": {"result": "nutty"}})
    for item in inbox.receive([answer]):
        inbox.apply(item)
    assert played(run).status == "completed"


def test_a_run_whose_steps_take_longer_than_its_workflow_allows_fails(village):
    run = played(started(village["baker"], "patient", loaves=0))
    assert run.status == "failed"
    assert "longer than" in run.error["message"]
    assert "second" not in [event.node for event in thread(run) if event.kind == "step.finished"]


def test_a_run_whose_time_was_over_has_it_once_more_when_it_is_let_try_again(village, alice):
    run = started(village["baker"], "hourly", loaves=1)
    Run.objects.filter(id=run.id).update(running_seconds=4000)
    run = played(run)
    assert (run.status, run.error["kind"]) == ("failed", "WorkflowTimeout")
    intake.retry(run, actor=alice)
    run = played(run)
    assert (run.status, run.output["loaves"]) == ("completed", 3)


def test_a_workflow_without_checkpoints_starts_over_after_a_crash(village):
    run = played(started(village["baker"], "forgetful", loaves=1))
    assert run.output["loaves"] == 3
    assert kinds(run).count("step.finished") == 2


def test_both_gates_of_a_branching_graph_are_open_and_answered_in_any_order(village, alice):
    run = played(started(village["crossroads"], "both"))
    assert run.status == "waiting", run.error
    left, right = sorted(run.waits.all(), key=lambda wait: wait.node)
    waits.answer(right, waits.Answer("answer", values={"answer": "r"}), actor=alice)
    run = played(run)
    assert run.status == "waiting"
    assert kinds(run).count("gate.opened") == 2
    waits.answer(left, waits.Answer("answer", values={"answer": "l"}), actor=alice)
    run = played(run)
    assert run.status == "completed", run.error
    assert run.output == {"left": "l", "right": "r"}


def test_a_gate_that_is_answered_while_another_branch_goes_on_is_not_forgotten(village, alice):
    run = played(started(village["crossroads"], "both"))
    left, right = sorted(run.waits.all(), key=lambda wait: wait.node)
    waits.answer(right, waits.Answer("answer", values={"answer": "r"}), actor=alice)
    waits.answer(left, waits.Answer("answer", values={"answer": "l"}), actor=alice)
    run = played(run)
    assert run.status == "completed", run.error
    with pytest.raises((RunAlreadyEnded, AlreadyDecided)):
        waits.answer(left, waits.Answer("answer", values={"answer": "x"}), actor=alice)


def test_a_shared_value_has_revisions_and_a_stale_writer_is_refused(village, project):
    played(started(village["baker"], "bake", flour=50))
    assert context.value(project.id, "companies", "village/flour") == 50
    context.put(project.id, "companies", "village/flour", 60, author="alice", revision=1)
    with pytest.raises(RevisionMoved):
        context.put(project.id, "companies", "village/flour", 70, author="bob", revision=1)
    context.delete(project.id, "companies", "village/flour", author="alice")
    assert context.value(project.id, "companies", "village/flour") is None
    assert context.keys(project.id, "companies") == []
    history = ContextRevision.objects.values_list("revision", "value", "deleted", "author")
    assert list(history) == [(3, None, True, "alice"), (2, 60, False, "alice"), (1, 50, False, "baker.bake")]


def test_a_run_that_lives_longer_than_its_days_is_ended_wherever_it_stands(village):
    run = played(started(village["baker"], "long", loaves=1))
    assert run.expires_at - run.created_at == timedelta(days=3)
    clock.tick()
    assert Run.objects.get(id=run.id).status == "waiting"
    Run.objects.update(expires_at=timezone.now())
    clock.tick()
    clock.tick()
    run = Run.objects.get(id=run.id)
    assert (run.status, run.error["kind"]) == ("failed", "RunOutlived")
    assert not Wait.objects.pending().exists()
    assert kinds(run).count("run.failed") == 1
    with pytest.raises(NotRetryable):
        intake.retry(run, actor=None)


def test_a_cancelled_answerer_fails_the_asker(village, alice):
    run = played(started(village["baker"], "ask", loaves=3))
    deliveries.ask(run.waits.get().id)
    [child] = children(run)
    intake.cancel(child, actor=alice)
    deliveries.reply(child.id)
    run = played(run)
    assert run.status == "failed"
    assert "cancelled" in run.error["message"]


def cancelled(run: Run, actor: User) -> None:
    """Cancel a run, and hear the bell that calls back what it has others do."""
    intake.cancel(run, actor=actor)
    recalls.recall_all(run.id)


def test_cancelling_a_run_cancels_the_one_that_was_to_answer_it_and_both_timelines_tell(village, alice):
    run = played(started(village["baker"], "ask", loaves=3))
    wait = run.waits.get()
    deliveries.ask(wait.id)
    [child] = children(run)
    bystander = started(village["grocer"], "quote", loaves=1)

    cancelled(run, alice)
    recalls.recall_all(run.id)

    child.refresh_from_db()
    assert child.status == "cancelled"
    assert run.id in thread(child).get(kind="run.cancelled").data["reason"]
    told = thread(run).get(kind="reply.cancelled")
    assert (told.node, told.step_id, told.data) == ("ask", wait.step_id, {"wait_id": wait.id, "run_id": child.id})
    assert [event.seq for event in thread(run)] == list(range(1, Run.objects.get(pk=run.pk).last_seq + 1))
    assert Run.objects.get(pk=bystander.pk).status == "queued"


def test_a_run_whose_answer_comes_too_late_is_called_back_before_the_question_is_asked_anew(village, alice):
    run = played(started(village["baker"], "ask", loaves=3))
    wait = run.waits.get()
    deliveries.ask(wait.id)
    [late] = children(run)
    Wait.objects.filter(id=wait.id).update(deadline=timezone.now())
    clock.tick()
    run = played(run)
    assert (run.status, "Nobody answered" in run.error["message"]) == ("failed", True)

    intake.retry(run, actor=alice)
    recalls.recall_all(run.id)
    run = played(run)
    deliveries.ask(run.waits.get(status="pending").id)

    assert {child.id == late.id: child.status for child in children(run)} == {True: "cancelled", False: "queued"}
    told = thread(run).get(kind="reply.cancelled")
    assert told.data == {"wait_id": wait.id, "run_id": late.id}


def test_a_run_that_has_given_its_answer_is_not_cancelled_with_the_one_that_asked(village, alice):
    run = played(started(village["baker"], "ask_twice", loaves=3))
    deliveries.ask(run.waits.get().id)
    [first] = children(run)
    deliveries.reply(played(first).id)
    run = played(run)
    deliveries.ask(run.waits.get(status="pending").id)

    cancelled(run, alice)

    assert sorted(child.status for child in children(run)) == ["cancelled", "completed"]
    assert kinds(run).count("reply.cancelled") == 1


def test_a_whole_chain_of_questions_is_called_back_by_the_clock_without_the_bus(village, alice):
    chain = [played(started(village["baker"], "ask", loaves=3))]
    for _ in range(2):
        deliveries.ask(chain[-1].waits.get().id)
        [child] = children(chain[-1])
        # In this village nobody who is asked asks on; so somebody who does takes his place.
        Run.objects.filter(pk=child.pk).update(workflow=chain[0].workflow, operator=chain[0].operator, input={})
        chain.append(played(child))
    assert {run.status for run in chain} == {"waiting"}

    intake.cancel(chain[0], actor=alice)
    for _ in chain:
        Wait.objects.filter(status="cancelled").update(closed_at=timezone.now() - timedelta(minutes=1))
        clock.tick()

    assert [Run.objects.get(pk=run.pk).status for run in chain] == ["cancelled"] * 3
    assert not Wait.objects.pending().exists()


@pytest.mark.django_db(transaction=True)
def test_a_question_that_is_asked_while_its_run_is_cancelled_leaves_no_run_behind(village, alice):
    for _ in range(5):
        run = played(started(village["baker"], "ask", loaves=3))
        wait = run.waits.get()

        def act(number, run=run, wait=wait):
            try:
                return deliveries.ask(wait.id) if number else cancelled(run, alice)
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(act, range(2)))

        assert all(child.status == "cancelled" for child in children(run))


def test_a_question_whose_run_has_ended_meanwhile_starts_nothing(village, alice):
    run = played(started(village["baker"], "ask", loaves=3))
    wait = Wait.objects.select_related("run").get(run=run)
    cancelled(run, alice)

    # It was read before the end.
    assert deliveries._request(wait)

    assert children(run) == []


def test_a_question_and_that_it_was_sent_are_one_commit(village, alice):
    run = played(started(village["baker"], "ask", loaves=3))
    wait = Wait.objects.select_related("run").get(run=run)

    # The process dies after this, before it can note anything else.
    deliveries._request(wait)
    cancelled(run, alice)

    assert [child.status for child in children(run)] == ["cancelled"]


@pytest.mark.django_db(transaction=True)
def test_an_asynchronous_node_reaches_the_database_through_its_ctx(village):
    run = played(started(village["baker"], "awaited", flour=1))
    assert run.status == "completed", run.error
    assert {"log", "effect.attempted", "effect.confirmed"} <= set(kinds(run))
    assert context.value(run.project_id, "companies", "village/bought") == []


def test_a_workflow_that_keeps_nothing_cannot_wait(village):
    run = played(started(village["baker"], "sleepless", loaves=0))
    assert run.status == "failed"
    assert "checkpointed=False" in run.error["message"]


@pytest.mark.django_db(transaction=True)
def test_lists_are_told_when_a_run_falls_asleep_and_when_it_goes_on(village):
    bus, heard = MemoryBus(), []

    async def listen():
        await bus.connect()
        await bus.ensure(STREAMS)
        await bus.subscribe("cg.v1.default.public.str.>", hear)

    async def hear(message):
        heard.append(message.subject)

    def told():
        assert announcements.settle(20)
        # What is cast is on its way still; whoever asks for more afterwards is served behind it.
        for _ in range(5):
            link.submit(asyncio.sleep(0)).result(5)
        return heard

    link.submit(listen()).result(5)
    link.use(bus)
    run = played(started(village["baker"], "rest", flour=1))
    assert told() == [subjects.stirred("default")]
    waits.expire(run.waits.get())
    assert len(told()) == 1
    played(run)
    assert told() == [subjects.stirred("default")] * 2
