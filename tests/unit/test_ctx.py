# long: what a step may do stands in one place
"""The third parameter of a node: what a step says, keeps and does, and that it counts once, with the step's commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from openvibe import NOT_DONE, Retry, human_in_the_loop, llm_node, node
from openvibe.ctx import MOST_KEY
from openvibe.errors import SetupError, UncertainServiceError
from openvibe.host import Effect
from openvibe.outcomes import Completed, Failed, Paused
from openvibe.session import RunInfo
from tests.unit.players import Diary, Priced, Run, compiled

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def acting(act: Callable[[Any], Any], *, retry: Retry | None = None, timeout: timedelta | None = None) -> Run:
    """Return a run of the nodes `before`, `step` (which calls `act` with its ctx and keeps the result) and `after`."""

    class Write:
        @node
        def before(self, state):
            return {"research": "done"}

        @node(retry=retry, timeout=timeout)
        def step(self, state, ctx):
            return {"letter": str(act(ctx))}

        @node
        def after(self, state):
            return None

    return Run(compiled(Write))


def of(run: Run, what: str) -> list[tuple[list[str], Any]]:
    """Return, for each commit that brings some, its events beside what it brings."""
    found = [([f"{event.kind} {event.node}" for event in part.events], getattr(part, what)) for part in run.seen]
    return [(told, brought) for told, brought in found if brought]


# ── who and when ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_node_may_take_ctx_or_not_and_may_be_awaited():
    class Write:
        @node
        def plain(self, state):
            return {"tags": [*state["tags"], "plain"]}

        @node
        def told(self, state, ctx):
            return {"tags": [*state["tags"], ctx.node]}

        @node
        async def awaited(self, state):
            await asyncio.sleep(0)
            return {"tags": [*state["tags"], "awaited"]}

        @node
        async def both(self, state, ctx):
            await asyncio.sleep(0)
            return {"tags": [*state["tags"], ctx.node]}

    assert Run(compiled(Write)).play(start={}).output["tags"] == ["plain", "told", "awaited", "both"]


def test_a_model_node_and_a_gate_take_ctx_too():
    class Write:
        @llm_node()
        async def draft(self, state, ctx):
            return {"user": f"Write for {ctx.node}", "output_key": "draft"}

        @human_in_the_loop(prompt="Send?")
        def review(self, state, ctx):
            return {"at": ctx.now().isoformat()}

    run = Run(compiled(Write), provider=Priced(["words"]), host=Diary(clock=lambda: NOON))
    [gate] = run.play(start={}).waits
    assert gate.request.payload == {"at": "2026-03-01T12:00:00+00:00"}
    assert run.answer("approve").output["draft"] == "words"


def test_a_step_knows_whose_it_is():
    class Write:
        @node
        def step(self, state, ctx):
            return {"tags": [ctx.run_id, ctx.operator_id, ctx.workflow_id, ctx.node, ctx.step_id]}

    run = Run(compiled(Write), info=RunInfo("run_1", "desk", "write"))
    output = run.play(start={}).output
    assert output["tags"] == ["run_1", "desk", "write", "step", run.events[-1].step_id]


def test_a_step_reads_the_hosts_clock():
    run = acting(lambda ctx: ctx.now())
    run.host.clock = lambda: NOON
    assert run.play(start={}).output["letter"] == str(NOON)


def test_an_exception_of_an_awaited_node_fails_the_run_with_the_line_that_raised_it():
    class Write:
        @node
        async def step(self, state):
            raise ValueError("no postage")

    outcome = Run(compiled(Write)).play(start={})
    assert (outcome.kind, outcome.node, outcome.error) == ("ValueError", "step", "no postage")
    assert 'raise ValueError("no postage")' in outcome.traceback


# ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_log_is_heard_at_once_with_its_data_as_json():
    heard: list[int] = []

    def act(ctx):
        ctx.log("sending", to={"Ada"}, big=2**60)
        heard.append(len(run.host.recorded))

    run = acting(act)
    run.play(start={})
    assert heard == [1]
    [event] = run.host.recorded
    assert (event.kind, event.node) == ("log", "step")
    assert event.data == {"message": "sending", "to": ["Ada"], "big": str(2**60)}
    assert event.step_id in {told.step_id for told in run.events if told.node == "step"}


def test_an_emission_is_told_with_the_commit_of_its_step_and_not_before():
    def act(ctx):
        ctx.emit("lead.qualified", {"lead": "Ada", "at": NOON})
        ctx.emit("looked_at")

    run = acting(act)
    run.play(start={})
    [(told, brought)] = of(run, "emissions")
    assert told == ["step.finished step", "step.started after"]
    assert [(item.name, item.payload) for item in brought] == [
        ("operator.lead_qualified", {"lead": "Ada", "at": "2026-03-01T12:00:00+00:00"}),
        ("operator.looked_at", {}),
    ]


def test_each_emission_has_a_source_of_its_own_that_stays_on_a_replay():
    def act(ctx):
        ctx.emit("one")
        ctx.emit("one")

    run = acting(act)
    parts = run.parts(start={})
    while not run.emitted:
        next(parts)
    parts.close()
    first = [item.source for item in run.emitted]
    assert len(set(first)) == 2
    again = acting(act)
    again.rows = run.rows
    again.play()
    assert again.emitted == []


def test_an_event_type_of_wrong_form_fails_the_step_naming_it():
    outcome = acting(lambda ctx: ctx.emit("Lead Qualified!")).play(start={})
    assert (outcome.kind, outcome.node) == ("WrongUpdate", "step")
    assert "'Lead Qualified!'" in outcome.error


def test_what_a_workflow_emits_at_its_end_comes_with_the_completion_and_bears_the_output():
    class Write:
        @node
        def step(self, state):
            return {"letter": "sent"}

    run = Run(compiled(Write, emits=("letter_sent",)))
    run.play(start={"topic": "cake"})
    [(_, [emission])] = of(run, "emissions")
    assert run.seen[-1].emissions == [emission]
    assert (emission.name, emission.payload) == ("desk.letter_sent", {"topic": "cake", "letter": "sent"})


def test_a_failed_workflow_emits_no_end():
    class Write:
        @node
        def step(self, state):
            raise ValueError("no")

    run = Run(compiled(Write, emits=("letter_sent",)))
    run.play(start={})
    assert run.emitted == []


def test_a_gates_body_that_runs_twice_emits_once():
    class Write:
        @human_in_the_loop(prompt="Send?")
        def review(self, state, ctx):
            ctx.emit("asked")
            ctx.context.put("leads", "ada", 1)

    run = Run(compiled(Write))
    run.play(start={})
    assert (run.emitted, run.host.buckets) == ([], {})
    run.answer("approve")
    assert [item.name for item in run.emitted] == ["operator.asked"]
    assert run.host.value("leads", "ada") == 1


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_put_is_seen_by_its_own_step_at_once_and_by_others_with_the_commit():
    seen: list[Any] = []

    def act(ctx):
        ctx.context.put("leads", "ada/score", {"fit": 7})
        seen.append((ctx.context.get("leads", "ada/score"), ctx.context.keys("leads"), dict(run.host.buckets)))

    run = acting(act)
    run.play(start={})
    assert seen == [({"fit": 7}, ["ada/score"], {})]
    [(told, puts)] = of(run, "puts")
    assert told == ["step.finished step", "step.started after"]
    assert puts == {("leads", "ada/score"): {"fit": 7}}
    assert run.host.value("leads", "ada/score") == {"fit": 7}


def test_a_value_that_is_changed_after_the_put_stays_as_it_was_put():
    def act(ctx):
        value = {"tags": ["a"]}
        ctx.context.put("leads", "ada", value)
        value["tags"].append("b")
        ctx.context.get("leads", "ada")["tags"].append("c")

    run = acting(act)
    run.play(start={})
    assert run.host.value("leads", "ada") == {"tags": ["a"]}


def test_what_nobody_put_is_the_default():
    run = acting(lambda ctx: [ctx.context.get("leads", "ada"), ctx.context.get("leads", "ada", 3)])
    assert run.play(start={}).output["letter"] == "[None, 3]"


def test_a_put_of_none_is_the_default_in_its_own_step_as_in_the_next():
    def act(ctx):
        ctx.context.put("leads", "ada", None)
        return ctx.context.get("leads", "ada", "nobody")

    assert acting(act).play(start={}).output["letter"] == "nobody"


def test_keys_are_those_of_the_bucket_that_begin_so_in_order():
    def act(ctx):
        ctx.context.put("leads", "ada/new", 1)
        ctx.context.put("market", "ada/other", 1)
        return ctx.context.keys("leads", "ada/")

    run = acting(act)
    run.host.put({("leads", "ada/score"): 1, ("leads", "bob/score"): 1})
    assert run.play(start={}).output["letter"] == "['ada/new', 'ada/score']"


@pytest.mark.parametrize("use", ["get", "keys", "put"])
def test_an_unknown_bucket_is_refused_naming_those_that_there_are(use):
    more = {"get": ("key",), "keys": (), "put": ("key", 1)}[use]
    outcome = acting(lambda ctx: getattr(ctx.context, use)("people", *more)).play(start={})
    assert "'people'" in outcome.error
    assert "companies, leads, content, accounts, market" in outcome.error


def test_a_failed_try_forgets_what_it_emitted_and_put():
    tries: list[Any] = []

    def act(ctx):
        tries.append(ctx.context.get("leads", "ada"))
        ctx.emit("tried", {"number": len(tries)})
        ctx.context.put("leads", "ada", len(tries))
        if len(tries) < 3:
            raise ConnectionError("away")

    run = acting(act, retry=Retry(attempts=3, pause=timedelta(milliseconds=1)))
    run.play(start={})
    assert tries == [None, None, None]
    assert [item.payload for item in run.emitted] == [{"number": 3}]
    assert run.host.value("leads", "ada") == 3


def test_a_failed_step_emits_and_puts_nothing():
    def act(ctx):
        ctx.emit("tried")
        ctx.context.put("leads", "ada", 1)
        raise ValueError("no")

    run = acting(act)
    assert isinstance(run.play(start={}), Failed)
    assert (run.emitted, run.host.buckets) == ([], {})


# ── what is done once ────────────────────────────────────────────────────────────────────────────────────────────────


def charging(calls: list[str], **options: Any) -> Run:
    """Return a run whose step charges a card as an effect; `calls` hears of each charge."""

    def charge() -> dict[str, Any]:
        calls.append("charge")
        return {"receipt": len(calls)}

    return acting(lambda ctx: ctx.effect("charge", charge, **options)["receipt"])


def test_an_effect_is_done_and_its_result_is_returned():
    calls: list[str] = []
    run = charging(calls)
    assert run.play(start={}).output["letter"] == "1"
    assert calls == ["charge"]
    assert list(run.host.effects.values()) == [Effect("confirmed", {"receipt": 1})]


def test_an_effects_result_is_the_same_json_the_first_time_and_on_a_replay():
    results: list[Any] = []

    def act(ctx):
        results.append(ctx.effect("book", lambda: {"at": NOON, "seats": (1, 2)}))
        if len(results) == 1:
            raise ValueError("fell over")

    run = acting(act)
    run.play(start={})
    run.play()
    assert results == [{"at": "2026-03-01T12:00:00+00:00", "seats": [1, 2]}] * 2


def test_a_confirmed_effect_is_not_done_again_by_a_step_that_is_played_again():
    calls: list[str] = []

    def act(ctx):
        ctx.effect("charge", lambda: calls.append("charge"))
        if not broken:
            return "done"
        raise ValueError(broken.pop())

    broken = ["fell over"]
    run = acting(act)
    assert isinstance(run.play(start={}), Failed)
    assert isinstance(run.play(), Completed)
    assert calls == ["charge"]


def test_a_step_whose_commit_was_lost_does_its_effect_once():
    calls: list[str] = []
    run = charging(calls)
    parts = run.parts(start={})
    next(item for item in parts if "step.started step" in [f"{event.kind} {event.node}" for event in item.events])
    kept = run.rows.drain()
    run.rows.save(*kept)
    next(parts)
    parts.close()
    run.rows.drain()
    run.rows.save(*kept)
    assert run.play().output["letter"] == "1"
    assert calls == ["charge"]


def test_an_effect_may_be_awaited():
    async def charge():
        await asyncio.sleep(0)
        return "paid"

    assert acting(lambda ctx: ctx.effect("charge", charge)).play(start={}).output["letter"] == "paid"


def test_an_awaited_node_does_an_effect_of_plain_code():
    class Write:
        @node
        async def step(self, state, ctx):
            return {"letter": ctx.effect("charge", lambda: "paid")}

    assert Run(compiled(Write)).play(start={}).output["letter"] == "paid"


def test_an_awaited_node_that_has_an_effect_awaited_is_told_how_to_do_it():
    async def charge():
        return "paid"

    class Write:
        @node
        async def step(self, state, ctx):
            return {"letter": ctx.effect("charge", charge)}

    run = Run(compiled(Write))
    outcome = run.play(start={})
    assert outcome.kind == SetupError.__name__
    assert run.host.effects == {}


def test_an_effect_that_raises_is_done_again_with_its_step():
    calls: list[str] = []

    def charge():
        calls.append("charge")
        if len(calls) == 1:
            raise ConnectionError("refused")
        return "paid"

    run = acting(lambda ctx: ctx.effect("charge", charge))
    assert run.play(start={}).error == "refused"
    assert run.host.effects == {}
    assert run.play().output["letter"] == "paid"


def test_two_effects_of_one_step_are_told_apart_by_their_keys():
    run = acting(lambda ctx: [ctx.effect(key, lambda key=key: key.upper()) for key in ("a", "b", "a")])
    assert run.play(start={}).output["letter"] == "['A', 'B', 'A']"


def unsettled(run: Run, *, key: str = "charge") -> None:
    """Let the run's worker die in the middle of the effect: it was begun, and nobody knows how it came out."""
    parts = run.parts(start={})
    begun = next(event for part in parts for event in part.events if (event.kind, event.node) == BEGUN)
    parts.close()
    assert run.host.effect(node="step", step_id=begun.step_id, key=key).state == "new"


BEGUN = ("step.started", "step")


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("k" * (MOST_KEY + 1), "in 201 characters; a key has at most 200"),
        ("a\x00b", "a NUL"),
        ("\ud800", "half a char"),
    ],
    ids=["long", "NUL", "half"],
)
def test_a_key_that_no_database_keeps_is_refused_before_anything_is_done(key, told):
    calls: list[str] = []
    run = acting(lambda ctx: ctx.effect(key, lambda: calls.append("done")))
    outcome = run.play(start={})
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.node, told in outcome.error) == ("RunError", "step", True)
    assert (calls, run.host.effects) == ([], {})


def test_a_key_of_the_longest_kind_is_taken():
    assert acting(lambda ctx: ctx.effect("k" * MOST_KEY, lambda: "done")).play(start={}).output["letter"] == "done"


def test_the_questions_about_two_effects_whose_long_keys_begin_alike_are_told_apart():
    asked = set()
    for end in ("a", "b"):
        key = "k" * (MOST_KEY - 1) + end
        run = acting(lambda ctx, key=key: ctx.effect(key, lambda: "done"))
        unsettled(run, key=key)
        [wait] = run.play().waits
        asked.add(wait.interrupt_id.removeprefix(f"effect/{wait.step_id}"))
        assert len(wait.interrupt_id) <= 200
    assert len(asked) == 2


def test_an_unknown_effect_that_reconcile_finds_is_not_done_again():
    calls: list[str] = []
    run = charging(calls, reconcile=lambda: {"receipt": "found"})
    unsettled(run)
    assert run.play().output["letter"] == "found"
    assert calls == []
    assert [item.state for item in run.host.effects.values()] == ["confirmed"]


def test_a_reconcile_that_is_awaited_is_asked_too():
    async def look():
        return {"receipt": "found"}

    run = charging([], reconcile=look)
    unsettled(run)
    assert run.play().output["letter"] == "found"


def test_an_unknown_effect_that_reconcile_knows_not_to_have_happened_is_done():
    calls: list[str] = []
    run = charging(calls, reconcile=lambda: NOT_DONE)
    unsettled(run)
    assert run.play().output["letter"] == "1"
    assert calls == ["charge"]


@pytest.mark.parametrize("options", [{}, {"reconcile": lambda: None}], ids=["no hook", "a hook that cannot tell"])
def test_an_unknown_effect_that_nobody_can_tell_of_pauses_the_run_for_a_person(options):
    calls: list[str] = []
    run = charging(calls, **options)
    unsettled(run)
    outcome = run.play()
    assert isinstance(outcome, Paused)
    [wait] = outcome.waits
    assert (wait.request.kind, wait.request.form, wait.request.node) == ("approval", "effect", "step")
    assert wait.request.prompt.startswith("Did this happen?")
    assert "'charge'" in wait.request.prompt
    assert wait.request.decisions == ["it_happened", "it_did_not_happen"]
    assert wait.request.payload["effect"] == "charge"
    assert wait.step_id == run.events[-1].step_id
    assert calls == []


def test_a_pause_for_an_unknown_effect_is_no_failure_of_its_step():
    run = charging([])
    unsettled(run)
    run.play()
    assert run.told == ["step.started before", "step.finished before", "step.started step"]
    assert sum(part.figures.nodes_failed for part in run.seen) == 0


def test_two_unknown_effects_are_asked_about_in_places_of_their_own():
    waits = []
    for key in ("a", "b"):
        run = acting(lambda ctx, key=key: ctx.effect(key, lambda: 1))
        unsettled(run, key=key)
        waits += run.play().waits
    assert len({wait.interrupt_id for wait in waits}) == 2


def test_a_run_whose_effect_a_person_settled_goes_on_with_the_result():
    calls: list[str] = []
    run = charging(calls)
    unsettled(run)
    [wait] = run.play().waits
    run.host.settle(node="step", step_id=wait.step_id, key="charge", state="confirmed", result={"receipt": "by hand"})
    assert run.play().output["letter"] == "by hand"
    assert calls == []
    assert run.told.count("step.started step") == 1


def test_a_run_whose_effect_a_person_denied_does_it():
    calls: list[str] = []
    run = charging(calls)
    unsettled(run)
    [wait] = run.play().waits
    run.host.settle(node="step", step_id=wait.step_id, key="charge", state="failed")
    assert run.play().output["letter"] == "1"
    assert calls == ["charge"]


def test_an_unknown_effect_is_not_tried_again_by_a_retry():
    calls: list[str] = []
    run = acting(
        lambda ctx: ctx.effect("charge", lambda: calls.append("charge")),
        retry=Retry(attempts=3, pause=timedelta(milliseconds=1)),
    )
    unsettled(run)
    assert isinstance(run.play(), Paused)
    assert (calls, run.host.recorded) == ([], [])


def test_a_reconcile_that_raises_fails_the_step_and_leaves_the_effect_unknown():
    def look():
        raise ConnectionError("the bank is away")

    calls: list[str] = []
    run = charging(calls, reconcile=look)
    unsettled(run)
    assert run.play().error == "the bank is away"
    assert [item.state for item in run.host.effects.values()] == ["unknown"]
    assert calls == []


def test_an_idempotency_key_is_one_text_per_run_step_and_key():
    keys: list[str] = []

    def act(ctx):
        keys.extend(ctx.idempotency_key(name) for name in ("a", "a", "b"))
        if len(keys) == 3:
            raise ValueError("once more")

    run = acting(act)
    run.play(start={})
    run.play()
    assert keys[0] == keys[1] == keys[3] == keys[4]
    assert keys[0] != keys[2]
    other = Run(run.workflow, info=RunInfo("run_2"))
    other.play(start={})
    assert keys[6] != keys[0]
    assert all(key.startswith("openvibe-") and len(key) < 64 for key in keys)


# ── what is asked of another operator ────────────────────────────────────────────────────────────────────────────────


def test_a_request_pauses_the_run_until_the_other_operator_has_answered():
    run = acting(
        lambda ctx: ctx.request("intel", "research", {"company": "Acme", "at": NOON}, timeout=timedelta(hours=1))
    )
    [wait] = run.play(start={}).waits
    assert (wait.request.kind, wait.request.node, wait.request.timeout_seconds) == ("reply", "step", 3600)
    assert wait.request.payload == {
        "operator": "intel",
        "capability": "research",
        "payload": {"company": "Acme", "at": "2026-03-01T12:00:00+00:00"},
    }
    assert run.play(answers={wait.interrupt_id: {"result": 7}}).output["letter"] == "7"


def test_a_request_that_fails_fails_the_step_naming_operator_and_capability():
    run = acting(lambda ctx: ctx.request("intel", "research"))
    [wait] = run.play(start={}).waits
    outcome = run.play(answers={wait.interrupt_id: {"error": "nobody serves it"}})
    assert outcome.error == "Node 'step' asked intel for research: nobody serves it"


def test_an_awaited_node_may_ask_another_operator_too():
    class Write:
        @node
        async def step(self, state, ctx):
            return {"letter": ctx.request("intel", "research")}

    run = Run(compiled(Write))
    [wait] = run.play(start={}).waits
    assert run.play(answers={wait.interrupt_id: {"result": "all of it"}}).output["letter"] == "all of it"


def test_a_request_passes_through_retry_and_time_limit():
    run = acting(lambda ctx: ctx.request("intel", "research"), retry=Retry(attempts=3), timeout=timedelta(seconds=30))
    [wait] = run.play(start={}).waits
    assert run.host.recorded == []
    assert run.play(answers={wait.interrupt_id: {"result": "here"}}).output["letter"] == "here"


@pytest.mark.parametrize(
    ("reconcile", "state"), [(None, "unknown"), (lambda: None, "unknown"), (lambda: {"receipt": 7}, "confirmed")]
)
def test_an_effect_of_which_its_service_cannot_say_is_in_doubt_at_once(reconcile, state):
    def charge():
        raise UncertainServiceError("the connection broke off", None)

    run = acting(lambda ctx: ctx.effect("charge", charge, reconcile=reconcile))
    outcome = run.play(start={})
    assert [item.state for item in run.host.effects.values()] == [state]
    if state == "unknown":
        assert outcome.waits[0].request.form == "effect"
    else:
        assert isinstance(outcome, Completed)


def test_an_uncertain_effect_that_did_not_happen_fails_its_try():
    def charge():
        raise UncertainServiceError("the connection broke off", None)

    run = acting(lambda ctx: ctx.effect("charge", charge, reconcile=lambda: NOT_DONE))
    assert isinstance(run.play(start={}), Failed)
    assert not run.host.effects
