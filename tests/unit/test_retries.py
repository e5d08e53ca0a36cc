# long: tries and time limits share one way to make a run
"""Further tries and time limits: what is tried again, what is shown of it, and that a late thread is not heard."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from openvibe import Retry, SetupError, conditional, human_in_the_loop, llm_node, node, remote_node
from openvibe.errors import StepTimeout, WrongUpdate
from openvibe.host import Effect
from openvibe.outcomes import Completed, Failed, Paused
from tests.unit.players import Diary, Priced, Run, compiled

SOON = timedelta(milliseconds=1)
SHORT = timedelta(milliseconds=50)
DEADLINE = 10.0


class Gone(Exception):
    """The run belongs to somebody else."""


def trying(act: Callable[[Any], Any], **options: Any) -> Run:
    """Return a run of one node that calls `act` with its ctx and keeps the result."""

    class Write:
        @node(**options)
        def step(self, state, ctx):
            return {"letter": str(act(ctx))}

    return Run(compiled(Write))


def failing(*errors: Exception) -> Callable[[Any], str]:
    """Return an act that raises these errors in turn, then says how many times it was called."""
    calls: list[Any] = []

    def act(ctx):
        calls.append(ctx)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return len(calls)

    return act


def shown(run: Run) -> list[dict[str, Any]]:
    return [dict(event.data) for event in run.host.recorded if event.kind == "attempt.failed"]


# ── tries ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_that_fails_is_tried_again_until_it_succeeds():
    run = trying(failing(ValueError("no"), ValueError("not yet")), retry=Retry(attempts=3, pause=SOON))
    assert run.play(start={}).output["letter"] == "3"
    assert run.told == ["step.started step", "step.finished step"]


def test_every_failed_try_but_the_last_is_shown_with_the_pause_that_follows():
    run = trying(failing(ValueError("no"), ValueError("not yet")), retry=Retry(attempts=3, pause=SOON))
    run.play(start={})
    assert shown(run) == [
        {"of": "step", "attempt": 1, "attempts": 3, "error": "ValueError: no", "pause": 0.001},
        {"of": "step", "attempt": 2, "attempts": 3, "error": "ValueError: not yet", "pause": 0.002},
    ]
    assert {(event.node, event.step_id) for event in run.host.recorded} == {("step", run.events[0].step_id)}


def test_the_last_try_fails_the_step_with_its_own_error():
    run = trying(failing(*[ValueError(str(number)) for number in (1, 2, 3)]), retry=Retry(attempts=2, pause=SOON))
    assert run.play(start={}).error == "2"
    assert len(shown(run)) == 1
    assert run.told == ["step.started step", "step.failed step"]


def test_a_node_without_a_policy_has_one_try():
    run = trying(failing(ValueError("no")))
    assert run.play(start={}).error == "no"
    assert shown(run) == []


def test_an_error_that_the_policy_does_not_cover_fails_at_once():
    run = trying(failing(ConnectionError("away"), ValueError("no")), retry=Retry(attempts=9, pause=SOON, on=(OSError,)))
    assert run.play(start={}).error == "no"
    assert [item["error"] for item in shown(run)] == ["ConnectionError: away"]


@pytest.mark.parametrize("on", [(ConnectionError,), "ConnectionError", ConnectionError, ("OSError", KeyError)])
def test_a_policy_names_errors_by_class_or_by_name_and_covers_their_kin(on):
    retry = Retry(on=on)
    assert retry.covers(ConnectionRefusedError()) == retry.covers(ConnectionError()) is True
    assert not retry.covers(ValueError())


def test_pauses_double_up_to_the_longest():
    retry = Retry(attempts=9, pause=timedelta(seconds=1), longest=timedelta(seconds=5))
    assert [retry.pause_after(attempt) for attempt in (1, 2, 3, 4, 99)] == [1, 2, 4, 5, 5]


def test_an_error_outside_of_the_run_is_raised_and_never_tried_again():
    calls: list[int] = []

    def act(ctx):
        calls.append(1)
        raise Gone("somebody else plays it")

    run = trying(act, retry=Retry(attempts=5, pause=SOON))
    run.outside = (Gone,)
    with pytest.raises(Gone):
        run.play(start={})
    assert (len(calls), shown(run)) == (1, [])
    assert run.told == ["step.started step"]


def test_a_host_that_refuses_a_log_ends_the_play_whatever_the_policy_says():
    class Refusing(Diary):
        def record(self, event):
            raise Gone("somebody else plays it")

    run = trying(lambda ctx: ctx.log("hello"), retry=Retry(attempts=5, pause=SOON))
    run.host, run.outside = Refusing(), (Gone,)
    with pytest.raises(Gone):
        run.play(start={})


def test_an_update_that_does_not_fit_is_not_tried_again():
    class Write:
        @node(retry=Retry(attempts=5, pause=SOON))
        def step(self, state):
            return {"lettre": "x"}

    run = Run(compiled(Write))
    assert run.play(start={}).kind == WrongUpdate.__name__
    assert shown(run) == []


def test_a_try_sees_the_state_as_the_first_one_did():
    seen: list[list[str]] = []

    class Write:
        @node
        def before(self, state):
            return {"tags": ["a"]}

        @node(retry=Retry(attempts=3, pause=SOON))
        def step(self, state):
            state["tags"].append("changed in place")
            seen.append([*state["tags"]])
            if len(seen) < 3:
                raise ValueError("no")
            return {"letter": "sent"}

    run = Run(compiled(Write))
    assert run.play(start={}).output["tags"] == ["a"]
    assert seen == [["a", "changed in place"]] * 3


def test_what_the_model_calls_of_a_failed_try_used_stays_counted():
    class Write:
        @llm_node(output_format="json", attempts=2)
        def step(self, state):
            return {"user": "How many?", "output_key": "amount"}

    run = Run(compiled(Write), provider=Priced(["none", '{"amount": 7}']))
    run.play(start={})
    assert sum(part.figures.llm_calls for part in run.seen) == 2


def test_the_method_of_remote_work_is_tried_again_too():
    calls: list[int] = []

    class Write:
        @remote_node(role="coding", retry=Retry(attempts=3, pause=SOON))
        def step(self, state):
            calls.append(1)
            if len(calls) == 1:
                raise ConnectionError("away")
            return {"task": "write it", "output_key": "letter"}

    run = Run(compiled(Write))
    assert isinstance(run.play(start={}), Paused)
    assert [item["error"] for item in shown(run)] == ["ConnectionError: away"]


def test_a_further_try_has_the_answers_that_the_first_one_got():
    tries: list[Any] = []

    def act(ctx):
        tries.append([ctx.request("intel", "research"), ctx.request("intel", "news")])
        if len(tries) == 1:
            raise ConnectionError("away")
        return tries[-1]

    run = trying(act, retry=Retry(attempts=2, pause=SOON))
    [wait] = run.play(start={}).waits
    [wait] = run.play(answers={wait.interrupt_id: {"result": "old"}}).waits
    outcome = run.play(answers={wait.interrupt_id: {"result": "new"}})
    assert outcome.output["letter"] == "['old', 'new']"
    assert tries == [["old", "new"]] * 2


@pytest.mark.parametrize("attempts", [0, 101])
def test_a_policy_of_no_try_or_of_too_many_is_refused(attempts):
    with pytest.raises(SetupError, match="Retry: attempts="):
        Retry(attempts=attempts)


@pytest.mark.parametrize("options", [{"pause": timedelta(seconds=-1)}, {"longest": timedelta(seconds=-1)}])
def test_a_policy_with_a_negative_pause_is_refused(options):
    with pytest.raises(SetupError, match="greater than or equal to 0"):
        Retry(**options)


# ── time limits ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_in_time_is_as_any_other():
    run = trying(failing(), timeout=timedelta(seconds=DEADLINE))
    assert run.play(start={}).output["letter"] == "1"
    assert run.sessions[0].abandoned == []


def test_an_error_within_the_time_limit_is_the_steps_own():
    run = trying(failing(ValueError("no")), timeout=timedelta(seconds=DEADLINE))
    outcome = run.play(start={})
    assert (outcome.kind, outcome.error) == ("ValueError", "no")
    assert "raise errors" in outcome.traceback


def test_a_step_that_takes_too_long_fails_and_its_thread_is_left_alone():
    go_on = threading.Event()
    run = trying(lambda ctx: go_on.wait(DEADLINE), timeout=SHORT)
    outcome = run.play(start={})
    assert (outcome.kind, outcome.node) == (StepTimeout.__name__, "step")
    assert "took longer than 0:00:00.05" in outcome.error
    [thread] = run.sessions[0].abandoned
    assert thread.is_alive()
    finish(thread, go_on)


def test_a_step_that_takes_too_long_is_tried_again_where_its_policy_says_so():
    go_on, calls = threading.Event(), []

    def act(ctx):
        calls.append(1)
        if len(calls) == 1:
            go_on.wait(DEADLINE)
        return f"call {len(calls)}"

    run = trying(act, timeout=SHORT, retry=Retry(attempts=2, pause=SOON, on=StepTimeout))
    assert run.play(start={}).output["letter"] == "call 2"
    assert [item["error"].split(":")[0] for item in shown(run)] == ["StepTimeout"]
    finish(run.sessions[0].abandoned[0], go_on)


def test_an_awaited_step_that_takes_too_long_is_cancelled():
    heard = threading.Event()

    class Write:
        @node(timeout=SHORT)
        async def step(self, state):
            try:
                await asyncio.sleep(DEADLINE)
            except asyncio.CancelledError:
                heard.set()
                raise

    run = Run(compiled(Write))
    assert run.play(start={}).kind == StepTimeout.__name__
    assert heard.wait(DEADLINE)
    assert run.sessions[0].abandoned == []


def test_a_late_thread_says_keeps_and_does_nothing_any_more():
    go_on, calls, refused = threading.Event(), [], []

    def act(ctx):
        calls.append(1)
        ctx.emit("tried", {"number": len(calls)})
        ctx.context.put("leads", "ada", len(calls))
        if len(calls) > 1:
            return "in time"
        go_on.wait(DEADLINE)
        ctx.emit("late")
        ctx.context.put("leads", "late", 1)
        for late in (
            lambda: ctx.log("late"),
            lambda: ctx.effect("charge", lambda: calls.append("charged")),
            lambda: ctx.request("intel", "research"),
        ):
            try:
                late()
            except StepTimeout as error:
                refused.append(str(error))

    run = trying(act, timeout=SHORT, retry=Retry(attempts=2, pause=SOON))
    assert run.play(start={}).output["letter"] == "in time"
    finish(run.sessions[0].abandoned[0], go_on)
    assert len(refused) == 3
    assert calls == [1, 1]
    assert run.host.logged == []
    assert run.host.effects == {}
    assert [item.payload for item in run.emitted] == [{"number": 2}]
    assert run.host.buckets == {"leads": {"ada": 2}}


def test_a_late_thread_is_not_heard_by_the_try_that_runs_then():
    go_on, second, calls = threading.Event(), threading.Event(), []

    def act(ctx):
        calls.append(1)
        if len(calls) == 1:
            go_on.wait(DEADLINE)
            ctx.emit("late")
            second.set()
            return "late"
        go_on.set()
        second.wait(DEADLINE)
        return "in time"

    run = trying(act, timeout=timedelta(milliseconds=300), retry=Retry(attempts=2, pause=SOON))
    assert run.play(start={}).output["letter"] == "in time"
    assert run.emitted == []


def test_an_effect_that_a_late_thread_had_begun_is_settled_by_it():
    go_on = threading.Event()

    def charge():
        go_on.wait(DEADLINE)
        return "paid"

    run = trying(lambda ctx: ctx.effect("charge", charge), timeout=SHORT)
    assert run.play(start={}).kind == StepTimeout.__name__
    finish(run.sessions[0].abandoned[0], go_on)
    assert list(run.host.effects.values()) == [Effect("confirmed", "paid")]
    assert run.play().output["letter"] == "paid"


def test_an_effect_that_is_still_under_way_when_the_step_is_tried_again_asks_a_person():
    go_on = threading.Event()
    run = trying(
        lambda ctx: ctx.effect("charge", lambda: go_on.wait(DEADLINE)),
        timeout=SHORT,
        retry=Retry(attempts=3, pause=SOON),
    )
    outcome = run.play(start={})
    assert [wait.request.form for wait in outcome.waits] == ["effect"]
    finish(run.sessions[0].abandoned[0], go_on)


def test_the_words_and_the_usage_of_a_late_model_call_are_told_apart():
    go_on = threading.Event()

    class Slow(Priced):
        def complete(self, **options):
            if len(self.script) == 2:
                super().complete(**{**options, "on_words": None})
                go_on.wait(DEADLINE)
                options["on_words"]("late")
            return super().complete(**options)

    class Write:
        @llm_node(timeout=SHORT)
        def step(self, state):
            return {"user": "Write.", "output_key": "letter"}

    run = Run(compiled(Write), provider=Slow(["first", "second"]))
    assert run.play(start={}).kind == StepTimeout.__name__
    finish(run.sessions[0].abandoned[0], go_on)
    assert run.host.said == []


def test_the_usage_of_a_try_that_took_too_long_stays_counted():
    go_on = threading.Event()

    class Slow(Priced):
        def complete(self, **options):
            if len(self.script) == 1:
                go_on.wait(DEADLINE)
            return super().complete(**options)

    class Write:
        @llm_node(output_format="json", timeout=SHORT)
        def step(self, state):
            return {"user": "How many?", "output_key": "amount"}

    run = Run(compiled(Write), provider=Slow(["none", '{"amount": 7}']))
    assert run.play(start={}).kind == StepTimeout.__name__
    finish(run.sessions[0].abandoned[0], go_on)
    assert sum(part.figures.llm_calls for part in run.seen) == 1


def test_a_gate_beside_time_limits_waits_as_long_as_it_needs():
    class Write:
        @node(timeout=timedelta(seconds=DEADLINE), retry=Retry(attempts=3))
        def before(self, state):
            return {"letter": "written"}

        @human_in_the_loop(prompt="Send?")
        def review(self, state):
            return None

        @conditional(routes={"send": lambda s: True})
        def choose(self, state):
            return None

        @node(timeout=timedelta(seconds=DEADLINE), retry=Retry(attempts=3))
        def send(self, state, ctx):
            return {"letter": ctx.request("post", "send")}

    run = Run(compiled(Write))
    assert isinstance(run.play(start={}), Paused)
    [wait] = run.answer("approve").waits
    assert wait.request.kind == "reply"
    assert run.play(answers={wait.interrupt_id: {"result": "sent"}}) == Completed(
        {"letter": "sent", "review": "approve"}
    )
    assert shown(run) == []


def test_a_failed_run_that_is_played_again_has_all_its_tries_again():
    run = trying(failing(*[ValueError("no")] * 3), retry=Retry(attempts=2, pause=SOON))
    assert isinstance(run.play(start={}), Failed)
    assert isinstance(run.play(), Completed)
    assert [item["attempt"] for item in shown(run)] == [1, 1]


def finish(thread: threading.Thread, go_on: threading.Event) -> None:
    """Let an abandoned thread run to its end."""
    go_on.set()
    thread.join(DEADLINE)
    assert not thread.is_alive()
