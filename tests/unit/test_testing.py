"""What ships for the tests of authors: playing in one call, fakes, and the ban on real models."""

from datetime import UTC, datetime, timedelta

import pytest

from openvibe import (
    OperatorRuntime,
    RunError,
    SetupError,
    human_in_the_loop,
    llm,
    llm_node,
    node,
    operator,
    remote_node,
    workflow,
)
from openvibe.errors import InputError
from openvibe.llm.openai import OpenAIProvider
from openvibe.registry import define
from openvibe.testing import MemoryHost, ScriptedProvider, SettableClock, forbid_real_models, play


@operator(id="letters")
class Letters:
    topic: str = "bread"
    letter: str = ""
    patch: str = ""

    @workflow(id="write")
    class Write:
        @llm_node()
        def draft(self, state):
            return {"user": f"Write about {state['topic']}", "output_key": "letter"}

        @node
        def rest(self, state):
            return {"wait_duration": timedelta(days=3)}

        @human_in_the_loop(prompt="Send it?", edits=("letter",))
        def review(self, state):
            return None

        @remote_node(role="coding")
        def code(self, state):
            return {"task": "print it", "output_key": "patch"}


def test_a_run_is_played_with_its_answers_and_sleeps_through_its_rests():
    model = ScriptedProvider(["Dear baker,"])
    answers = [{"decision": "approve", "values": {"letter": "Dear Ada,"}}, {"result": "printed"}]
    run = play(Letters, "write", {"topic": "salt"}, answers=answers, provider=model)
    assert run.status == "completed"
    assert run.output == {"topic": "salt", "letter": "Dear Ada,", "patch": "printed"}
    assert model.calls[0].user == "Write about salt"


def test_a_run_without_answers_is_returned_where_it_waits():
    run = play(define(Letters), "write", provider=ScriptedProvider(["Dear baker,"]))
    assert [(wait.kind, wait.node) for wait in run.open_waits] == [("approval", "review")]


def test_an_answer_too_many_is_a_mistake():
    with pytest.raises(RunError, match=r"Nobody asks for 'approve'.*failed Rejected"):
        play(Letters, "write", answers=["reject", "approve"])


def test_an_answer_that_does_not_fit_is_a_mistake():
    with pytest.raises(InputError, match="maybe"):
        play(Letters, "write", answers=["maybe"])


def test_a_clock_stands_still_until_it_is_moved():
    clock = SettableClock(datetime(2026, 2, 16, 12, tzinfo=UTC))
    run = play(Letters, "write", host=MemoryHost(clock=clock))
    assert run.created_at == datetime(2026, 2, 16, 12, tzinfo=UTC)
    assert run.waits[1].opened_at == datetime(2026, 2, 19, 12, tzinfo=UTC)
    clock.advance(90)
    assert clock() == datetime(2026, 2, 16, 12, 1, 30, tzinfo=UTC)
    clock.set(datetime(2027, 1, 1, tzinfo=UTC))
    assert clock().year == 2027
    with pytest.raises(ValueError, match="aware"):
        clock.set(datetime(2027, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("name", ["anthropic", "openai", "ollama"])
def test_no_real_model_is_reached_while_that_is_forbidden(name):
    with forbid_real_models(), pytest.raises(SetupError, match=f"{name}.*forbidden"):
        OperatorRuntime(llm=name)


def test_a_real_provider_that_was_made_before_is_refused_too():
    made = OpenAIProvider(api_key="sk-none", base_url="http://127.0.0.1:1/v1")
    with forbid_real_models(), pytest.raises(SetupError, match="forbidden"):
        OperatorRuntime(llm=made)


def test_fakes_and_the_simulated_model_stay_allowed():
    with forbid_real_models():
        assert play(Letters, "write", provider=ScriptedProvider(["x"])).status == "waiting"
        assert play(Letters, "write", provider="simulated").status == "waiting"


def test_the_ban_holds_without_a_block_and_ends_with_one():
    ban = forbid_real_models()
    assert "openai" in llm.forbidden
    with ban:
        pass
    assert llm.forbidden == set()
