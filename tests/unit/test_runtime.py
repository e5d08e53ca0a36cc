# long: what a script may do with a run stands in one place
"""The runtime: runs in a script from activation to their end, their gates, rests and hooks."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from openvibe import (
    OperatorRuntime,
    RunError,
    SetupError,
    durable,
    human_in_the_loop,
    llm_node,
    node,
    workflow,
)
from openvibe.errors import InputError
from openvibe.llm import LLMResponse
from openvibe.llm.scripted import ScriptedProvider
from openvibe.testing import MemoryHost, SettableClock
from tests.unit.desks import Ask, Write, desk, timed, told

NOON = datetime(2026, 2, 16, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def runtime():
    with OperatorRuntime(llm="simulated") as made:
        yield made


@pytest.fixture
def heard(runtime):
    """Every event that the runtime tells, words of models left out."""
    events = []
    runtime.on("*")(lambda event: events.append(event) if event.kind != "words" else None)
    return events


def test_a_run_is_played_to_its_end(runtime):
    runtime.register(desk(Write))
    run = runtime.activate("desk", "write", {"amount": 2})
    assert (run.status, run.output, run.error) == ("completed", {"letter": "Dear all", "amount": 2}, "")
    assert runtime.run(run.id) == run
    assert runtime.get_run(run.id) == run
    assert runtime.runs("desk") == [run]
    assert runtime.runs("other") == []


def test_a_run_is_shown_as_the_api_shows_it(runtime):
    runtime.register(desk(Write))
    shown = runtime.activate("desk", "write").to_dict()
    assert shown["status"] == "completed"
    assert (shown["operator_id"], shown["workflow_id"]) == ("desk", "write")
    assert shown["output"] == {"letter": "Dear all"}
    assert shown["metrics"]["nodes_executed"] == 1
    assert set(shown["metrics"]) == {
        "duration_seconds", "running_seconds", "tokens_in", "tokens_out", "cost_usd", "nodes_executed",
        "nodes_failed", "llm_calls",
    }  # fmt: skip
    assert shown["run_id"].startswith("run_")
    assert shown["created_at"].endswith("Z")
    assert shown["error"] is None


def test_a_workflow_is_started_by_its_triggers_id_too(runtime):
    @workflow(id="write", trigger_id="monday")
    class Named:
        step = Write.draft

    runtime.register_from_class(desk(Named))
    assert runtime.activate("desk", "monday").workflow_id == "write"
    assert runtime.activate("desk", "write").workflow_id == "write"


@pytest.mark.parametrize(
    ("operator_id", "trigger", "parts"),
    [("disk", "write", ["'disk'", "desk"]), ("desk", "wriet", ["'wriet'", "write"])],
)
def test_what_is_not_registered_is_named_with_what_is(runtime, operator_id, trigger, parts):
    runtime.register(desk(Write))
    with pytest.raises(RunError) as caught:
        runtime.activate(operator_id, trigger)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_input_that_does_not_fit_starts_nothing(runtime):
    runtime.register(desk(Write))
    with pytest.raises(InputError, match="amount"):
        runtime.activate("desk", "write", {"amount": "many"})
    assert runtime.runs() == []


def test_a_failing_node_fails_the_run_and_says_where(runtime, heard):
    @workflow(id="write")
    class Broken:
        @node
        def draft(self, state):
            raise KeyError("pen")

    runtime.register(desk(Broken))
    run = runtime.activate("desk", "write")
    assert (run.status, run.error, run.error_kind, run.failed_node) == ("failed", "'pen'", "KeyError", "draft")
    assert "KeyError" in run.traceback
    assert run.to_dict()["error"] == {"message": "'pen'", "kind": "KeyError", "node": "draft"}
    assert run.metrics.nodes_failed == 1
    assert "node.error draft" in told(heard)


def test_metrics_add_up_over_the_whole_run():
    answers = [LLMResponse("a", 10, 5, "m", 1), LLMResponse("b", 20, 7, "m", 2)]

    @workflow(id="write")
    class Two:
        @llm_node()
        def one(self, state):
            return {"user": "1", "output_key": "letter"}

        @human_in_the_loop(prompt="Go on?")
        def review(self, state):
            return {}

        @llm_node()
        def two(self, state):
            return {"user": "2", "output_key": "letter"}

    with OperatorRuntime(llm=ScriptedProvider(answers)) as runtime:
        runtime.register(desk(Two))
        run = runtime.resume(runtime.activate("desk", "write").id, "approve")
    metrics = run.metrics
    assert (metrics.llm_calls, metrics.tokens_in, metrics.tokens_out, metrics.cost_usd) == (2, 30, 12, 3)
    assert metrics.nodes_executed == 3


def test_an_unknown_price_makes_the_cost_unknown_and_never_zero():
    @workflow(id="write")
    class One:
        @llm_node()
        def one(self, state):
            return {"user": "1", "output_key": "letter"}

    with OperatorRuntime(llm=ScriptedProvider([LLMResponse("a", 10, 5, "m", None)])) as runtime:
        runtime.register(desk(One))
        run = runtime.activate("desk", "write")
    assert run.metrics.cost_usd is None
    assert run.to_dict()["metrics"]["cost_usd"] is None


async def test_runs_are_played_beside_an_event_loop():
    with OperatorRuntime() as runtime:
        runtime.register(desk(Ask))
        runs = await asyncio.gather(*(runtime.activate_async("desk", "ask") for _ in range(3)))
        ended = [await runtime.resume_async(run.id, "approve") for run in runs]
    assert [run.output["letter"] for run in ended] == ["Dear all, sent"] * 3


def test_a_gate_waits_for_a_decision_and_takes_edits(runtime, heard):
    runtime.register(desk(Ask))
    run = runtime.activate("desk", "ask")
    [gate] = run.open_waits
    assert (run.status, gate.kind, gate.prompt, gate.node) == ("waiting", "approval", "Send it?", "review")
    assert gate.payload == {"letter": "Dear all", "amount": 0}
    run = runtime.resume(run.id, "approve", notes="fine", values={"letter": "Dear Ada"}, wait_id=gate.id)
    assert run.output["letter"] == "Dear Ada, sent"
    assert told(heard) == [
        "run.started", "node.started draft", "node.finished draft", "node.started review", "gate.opened review",
        "run.waiting", "gate.decided review", "run.resumed", "node.finished review", "node.started send",
        "node.finished send", "run.completed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("decision", "values", "part"),
    [
        ("maybe", {}, "approve, reject"),
        ("approve", {"lettre": "x"}, "lettre"),
        ("approve", {"amount": "many"}, "amount"),
    ],
)
def test_a_decision_that_does_not_fit_leaves_the_gate_open(runtime, decision, values, part):
    runtime.register(desk(Ask))
    run = runtime.activate("desk", "ask")
    with pytest.raises(InputError, match=part):
        runtime.resume(run.id, decision, values=values)
    assert runtime.run(run.id) == run
    assert runtime.resume(run.id, "approve").status == "completed"


def test_the_same_decision_again_changes_nothing_and_another_one_is_refused(runtime):
    runtime.register(desk(Ask))
    run = runtime.activate("desk", "ask")
    [gate] = run.open_waits
    ended = runtime.resume(run.id, "approve")
    assert runtime.resume(run.id, "approve", wait_id=gate.id) == ended
    with pytest.raises(RunError, match="closed"):
        runtime.resume(run.id, "reject", wait_id=gate.id)
    with pytest.raises(RunError, match="at no gate"):
        runtime.resume(run.id, "approve")


def test_two_people_who_decide_at_once_are_one_decision(runtime):
    runtime.register(desk(Ask))
    run = runtime.activate("desk", "ask")
    outcomes, start = [], threading.Barrier(2)

    def decide(decision):
        start.wait()
        try:
            outcomes.append(runtime.resume(run.id, decision, wait_id=run.open_waits[0].id).status)
        except RunError:
            outcomes.append("refused")

    threads = [threading.Thread(target=decide, args=(word,)) for word in ("approve", "reject")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outcomes.count("refused") == 1
    assert runtime.run(run.id).ended


def test_a_rejection_fails_the_run_with_its_reason(runtime):
    runtime.register(desk(Ask))
    run = runtime.resume(runtime.activate("desk", "ask").id, "reject", notes="Too short")
    assert (run.status, run.error) == ("failed", "Rejected at review: Too short")


def test_a_cancelled_run_takes_no_decision(runtime, heard):
    runtime.register(desk(Ask))
    run = runtime.cancel(runtime.activate("desk", "ask").id)
    assert run.status == "cancelled"
    assert [wait.status for wait in run.waits] == ["cancelled"]
    with pytest.raises(RunError):
        runtime.resume(run.id, "approve")
    with pytest.raises(RunError, match="ended already"):
        runtime.cancel(run.id)
    assert told(heard)[-1] == "run.cancelled"


def test_a_run_that_is_cancelled_while_it_is_played_stores_nothing_more(runtime):
    @workflow(id="write")
    class Long:
        @node
        def draft(self, state, ctx):
            runtime.cancel(ctx.run_id)
            ctx.context.put("content", "letter", "written")
            return {"letter": "x"}

        @node
        def send(self, state):
            raise AssertionError("a cancelled run goes on")

    runtime.register(desk(Long))
    run = runtime.activate("desk", "write")
    assert (run.status, run.output, run.metrics.nodes_executed) == ("cancelled", None, 0)


def test_cancelling_ends_what_a_run_awaits_at_once(runtime):
    asked, ended, runs = threading.Event(), threading.Event(), []

    @workflow(id="write")
    class Long:
        @node
        async def draft(self, state, ctx):
            runs.append(ctx.run_id)
            asked.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

    runtime.register(desk(Long))
    with ThreadPoolExecutor(1) as thread:
        played = thread.submit(runtime.activate, "desk", "write")
        assert asked.wait(30)
        runtime.cancel(runs[0])
        assert played.result(30).status == "cancelled"
    assert ended.wait(30)


def test_a_gate_decides_by_itself_when_its_time_is_up(runtime, heard):
    runtime.register(timed(on_timeout="approve"))
    run = runtime.activate("desk", "ask")
    assert runtime.advance(timedelta(hours=23)) == []
    [changed] = runtime.advance(timedelta(hours=2))
    assert (changed.id, changed.status, changed.output["review"]) == (run.id, "completed", "approve")
    assert [wait.status for wait in changed.waits] == ["expired"]
    assert "gate.expired review" in told(heard)


def test_a_gate_asks_somebody_else_once_before_it_decides(runtime, heard):
    runtime.register(timed(on_timeout="approve", escalate_to="owner"))
    run = runtime.activate("desk", "ask")
    runtime.advance(timedelta(hours=25))
    [gate] = runtime.run(run.id).open_waits
    assert gate.assigned_to == "owner"
    runtime.advance(timedelta(hours=24))
    assert runtime.run(run.id).status == "completed"
    assert [kind for kind in told(heard) if kind.startswith("gate.e")] == [
        "gate.escalated review",
        "gate.expired review",
    ]


def test_a_resting_run_waits_and_goes_on_when_its_time_has_come():
    clock = SettableClock(NOON)
    seen = []

    @workflow(id="write")
    class Rests:
        @node
        def rest(self, state):
            return {"wait_duration": 3 * DAY}

        @node
        def wake(self, state, ctx):
            seen.append(ctx.now())
            return {}

    with OperatorRuntime(host=MemoryHost(clock=clock)) as runtime:
        runtime.register(desk(Rests))
        run = runtime.activate("desk", "write")
        assert (run.status, run.open_waits[0].deadline) == ("waiting", NOON + 3 * DAY)
        assert runtime.tick() == []
        clock.advance(3 * DAY)
        [run] = runtime.tick()
        assert run.status == "completed"
        assert run.metrics.duration_seconds == 3 * 86400
    assert seen == [NOON + 3 * DAY]


def test_what_falls_due_while_time_advances_happens_in_its_order():
    woken = []

    @workflow(id="loop")
    class Loop:
        @node
        def rest(self, state):
            return {"wait_duration": DAY, "amount": state["amount"] + 1}

        @node
        def wake(self, state, ctx):
            woken.append((ctx.now() - NOON).days)
            return {"wait_duration": timedelta()} if state["amount"] < 3 else {}

        @human_in_the_loop(prompt="Enough?", timeout=DAY, on_timeout="approve")
        def review(self, state):
            return {}

    with OperatorRuntime(host=MemoryHost(clock=SettableClock(NOON))) as runtime:
        runtime.register(desk(Loop))
        runtime.activate("desk", "loop")
        runtime.tick(NOON + DAY / 2)
        runtime.activate("desk", "loop")
        runtime.advance(4 * DAY)
        assert [run.status for run in runtime.runs()] == ["completed", "completed"]
    assert woken == [1, 1]


def test_a_durable_run_ends_after_its_days(runtime):
    @workflow(id="ask")
    @durable(max_days=14)
    class Long:
        @human_in_the_loop(prompt="Send it?")
        def review(self, state):
            return {}

    runtime.register(desk(Long))
    run = runtime.activate("desk", "ask")
    runtime.advance(13 * DAY)
    assert runtime.run(run.id).status == "waiting"
    runtime.advance(2 * DAY)
    run = runtime.run(run.id)
    assert (run.status, run.error_kind) == ("failed", "RunOutlived")
    assert [wait.status for wait in run.waits] == ["cancelled"]


def test_a_workflows_timeout_counts_running_time_and_no_waiting(runtime):
    @workflow(id="write", timeout=timedelta(seconds=0.2))
    class Slow:
        @node
        def rest(self, state):
            return {"wait_duration": DAY}

        @node
        def slow(self, state):
            time.sleep(0.3)
            return {}

        @node
        def never(self, state):
            return {"letter": "never"}

    runtime.register(desk(Slow))
    run = runtime.activate("desk", "write")
    assert run.status == "waiting"
    [run] = runtime.advance(2 * DAY)
    assert (run.status, run.error_kind, run.output) == ("failed", "WorkflowTimeout", None)


def test_a_step_that_hangs_ends_when_its_workflows_time_is_over(runtime):
    morning = threading.Event()

    @workflow(id="write", timeout=timedelta(seconds=0.2))
    class Hanging:
        @node
        def hang(self, state):
            morning.wait(60)

    runtime.register(desk(Hanging))
    try:
        run = runtime.activate("desk", "write")
    finally:
        morning.set()
    assert (run.status, run.error_kind) == ("failed", "WorkflowTimeout")


def test_cron_triggers_start_runs_while_time_advances():
    @workflow(id="write", trigger="cron:0 9 * * *")
    class Daily:
        @node
        def note(self, state, ctx):
            return {"letter": ctx.now().isoformat()}

    with OperatorRuntime(host=MemoryHost(clock=SettableClock(NOON))) as runtime:
        runtime.register(desk(Daily))
        runtime.advance(2 * DAY)
        letters = [run.output["letter"] for run in runtime.runs()]
        assert {run.trigger for run in runtime.runs()} == {"cron:0 9 * * *"}
        assert runtime.activate("desk", "write").trigger == "on_demand"
    assert letters == ["2026-02-17T09:00:00+00:00", "2026-02-18T09:00:00+00:00"]


class AsyncScheduler:
    """A scheduler of somebody's own, whose methods are coroutines."""

    def __init__(self):
        self.calls, self.started, self.stopped = {}, False, False

    async def every(self, id, cron, call, *, timezone="UTC"):
        self.calls[id] = (cron, call)

    async def start(self):
        self.started = True

    async def stop(self):
        self.stopped = True


def test_a_scheduler_of_ones_own_may_be_asynchronous():
    @workflow(id="write", trigger="cron:0 9 * * *")
    class Daily:
        step = Write.draft

    scheduler = AsyncScheduler()
    with OperatorRuntime(scheduler=scheduler) as runtime:
        runtime.register(desk(Daily))
        assert scheduler.started
        cron, call = scheduler.calls["desk.write"]
        assert cron == "0 9 * * *"
        call(datetime(2026, 2, 17, 9, tzinfo=UTC))
        assert [run.status for run in runtime.runs()] == ["completed"]
    assert scheduler.stopped


def test_with_a_scheduler_rests_end_by_themselves():
    @workflow(id="write")
    class Rests:
        @node
        def rest(self, state):
            return {"wait_duration": timedelta(seconds=0.05)}

    with OperatorRuntime(scheduler="apscheduler") as runtime:
        runtime.register(desk(Rests))
        run = runtime.activate("desk", "write")
        deadline = time.monotonic() + 10
        while runtime.run(run.id).status != "completed" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert runtime.run(run.id).status == "completed"


def test_a_failing_hook_is_logged_and_breaks_nothing(runtime, caplog):
    @runtime.on("run.started")
    def broken(event):
        raise ValueError("no pager")

    runtime.register(desk(Write))
    assert runtime.activate("desk", "write").status == "completed"
    assert "no pager" in caplog.text


def test_a_hook_may_be_asynchronous_and_go_by_the_engines_word(runtime):
    seen = []

    @runtime.on("step.finished")
    async def hear(event):
        seen.append((event.kind, event.node_id, event.duration >= 0, event.data["update"]))

    runtime.register(desk(Write))
    runtime.activate("desk", "write")
    assert seen == [("node.finished", "draft", True, {"letter": "Dear all"})]


def test_a_hook_on_nothing_is_refused(runtime):
    with pytest.raises(SetupError, match=r"run\.finish.*run\.completed"):
        runtime.on("run.finish")


def test_a_node_logs_and_a_model_speaks_to_the_hooks(runtime):
    said, logged = [], []
    runtime.on("words")(lambda event: said.append(event.data["text"]))
    runtime.on("log")(lambda event: logged.append(event.data))

    @workflow(id="write")
    class Talks:
        @llm_node()
        def speak(self, state):
            return {"user": "Speak", "output_key": "letter"}

        @node
        def note(self, state, ctx):
            ctx.log("Noted", pages=2)

    runtime.register(desk(Talks))
    run = runtime.activate("desk", "write")
    assert "".join(said) == run.output["letter"]
    assert logged == [{"message": "Noted", "pages": 2}]
