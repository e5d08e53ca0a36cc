"""Custom providers of every kind, the scripted one, and the turns that checkpoints keep."""

import functools
import json
import threading
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from openvibe import llm, loop
from openvibe.errors import ModelError, SetupError, TransientModelError
from openvibe.llm import LLMResponse, Tool, ToolCall, Turn
from openvibe.llm.scripted import ScriptedProvider
from openvibe.llm.simulated import SimulatedProvider

QUESTION = {"system": "You are friendly.", "user": "Hi", "model": "house-1"}
SCHEMA = {"type": "object", "properties": {"score": {"type": "integer"}}}


@dataclass
class Answer:
    """What an author's own response class may look like."""

    content: str = "Hello"
    tokens_in: int = 10
    tokens_out: int = 5
    model: str = "house-1"
    cost_usd: float | None = 0.1


class Minimal:
    async def complete(self, system: str, user: str, model: str, max_tokens: int = 4096) -> Answer:
        self.heard = (system, user, model, max_tokens)
        return Answer()


class MinimalPlain:
    def complete(self, system: str, user: str, model: str, max_tokens: int = 4096) -> Answer:
        self.heard = (system, user, model, max_tokens)
        return Answer()


@pytest.fixture(params=[Minimal, MinimalPlain])
def minimal(request) -> Any:
    return request.param()


def test_a_minimal_provider_is_enough(minimal):
    response = llm.adapted(minimal).complete(**QUESTION, max_tokens=77, temperature=0.5)
    assert response == LLMResponse("Hello", 10, 5, "house-1", Decimal("0.1"))
    assert minimal.heard == ("You are friendly.", "Hi", "house-1", 77)


def test_a_minimal_provider_hands_out_its_answer_in_one_piece(minimal):
    heard: list[str] = []
    llm.adapted(minimal).complete(**QUESTION, on_words=heard.append)
    assert heard == ["Hello"]


def test_a_minimal_provider_is_told_the_schema_in_words(minimal):
    llm.adapted(minimal).complete(**QUESTION, schema=SCHEMA)
    assert minimal.heard[0].startswith("You are friendly.\n\nAnswer with JSON only")
    assert json.dumps(SCHEMA) in minimal.heard[0]


@pytest.mark.parametrize(
    "more",
    [{"history": [Turn("user", "x")]}, {"tools": [Tool("clock", "", {"type": "object"})]}],
    ids=["turns", "tools"],
)
def test_a_minimal_provider_refuses_what_it_would_not_understand(minimal, more):
    with pytest.raises(ModelError, match=r"'Minimal\w*' takes no tools: its `complete` needs `history` and `tools`"):
        llm.adapted(minimal).complete(**QUESTION, **more)
    assert not hasattr(minimal, "heard")


def test_an_unknown_cost_stays_unknown(minimal):
    class Free:
        def complete(self, *, system, user, model, max_tokens):
            return Answer(cost_usd=None)

    assert llm.adapted(Free()).complete(**QUESTION).cost_usd is None


def test_a_provider_without_a_name_is_called_by_its_class():
    assert llm.adapted(Minimal()).name == "Minimal"


def test_a_whole_provider_is_returned_as_it_is():
    for whole in (SimulatedProvider(), ScriptedProvider([])):
        assert llm.adapted(whole) is whole


def test_an_adapted_provider_is_not_adapted_again():
    once = llm.adapted(Minimal())
    assert llm.adapted(once) is once


def test_a_name_is_a_provider_with_its_options():
    assert isinstance(llm.adapted("simulated", words_per_second=0), SimulatedProvider)
    with pytest.raises(SetupError, match="No model provider is called 'gpt'"):
        llm.adapted("gpt")


@pytest.mark.parametrize("thing", [None, 7, object(), Minimal], ids=["none", "number", "object", "class"])
def test_what_is_no_provider_is_refused(thing):
    with pytest.raises(SetupError, match="is no model provider: it needs a `complete` method, on an instance"):
        llm.adapted(thing)


def test_a_provider_that_takes_too_little_is_refused_naming_what_it_lacks():
    class Deaf:
        def complete(self, user, model):
            return Answer()

    with pytest.raises(SetupError, match=r"Deaf\.complete must take max_tokens, system"):
        llm.adapted(Deaf())


def test_an_async_provider_behind_a_decorator_is_run_too():
    def logged(complete):
        @functools.wraps(complete)
        def wrapper(*args, **kwargs):
            return complete(*args, **kwargs)

        return wrapper

    class House:
        name = "house"

        @logged
        async def complete(self, **options):
            return Answer()

    assert llm.adapted(House()).complete(**QUESTION).content == "Hello"


def test_an_async_providers_words_are_heard_on_the_callers_thread():
    class House:
        async def complete(self, *, system, user, model, max_tokens, on_words):
            on_words("Hello")
            return Answer()

    threads: list[threading.Thread] = []
    llm.adapted(House()).complete(**QUESTION, on_words=lambda text: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()]


def test_an_error_of_the_listener_cancels_an_async_provider():
    import asyncio

    class Cancelled(Exception):
        pass

    closed = threading.Event()

    class House:
        async def complete(self, *, system, user, model, max_tokens, on_words):
            on_words("Hello")
            try:
                await asyncio.sleep(60)
            finally:
                closed.set()

    def refuse(text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        llm.adapted(House()).complete(**QUESTION, on_words=refuse)
    assert closed.wait(5)


def test_an_error_of_a_custom_provider_comes_through():
    class House:
        async def complete(self, *, system, user, model, max_tokens, on_words):
            raise TransientModelError("busy", 3.0)

    for on_words in (None, print):
        with pytest.raises(TransientModelError, match="busy") as caught:
            llm.adapted(House()).complete(**QUESTION, on_words=on_words)
        assert caught.value.retry_after == 3.0


def test_a_custom_providers_tool_calls_are_kept():
    call = ToolCall("c1", "clock")

    class House:
        async def complete(self, *, system, user, model, max_tokens, history, tools):
            assert [tool.name for tool in tools] == ["clock"]
            return LLMResponse("", 1, 1, model, None, tool_calls=(call,))

    assert llm.adapted(House()).complete(**QUESTION, tools=[Tool("clock", "", {})]).tool_calls == (call,)


def test_an_async_provider_asked_on_the_loop_itself_is_refused_rather_than_waiting_for_itself():
    async def nested() -> None:
        llm.adapted(Minimal()).complete(**QUESTION)

    with pytest.raises(SetupError, match="on the loop's own thread; await it instead"):
        loop.run(nested(), timeout=5)


# The scripted provider.


def test_a_script_answers_in_order_with_text_json_calls_and_responses():
    call = ToolCall("c1", "clock")
    whole = LLMResponse("Whole", 1, 2, "m", None)
    model = ScriptedProvider(["Hello", {"score": 7}, call, [call, call], whole])
    answers = [model.complete(**QUESTION) for _ in range(5)]
    assert [answer.content for answer in answers] == ["Hello", '{"score": 7}', "", "", "Whole"]
    assert [len(answer.tool_calls) for answer in answers] == [0, 0, 1, 2, 0]
    assert answers[-1] is whole
    assert (answers[0].tokens_in, answers[0].tokens_out, answers[0].simulated) == (10, 5, True)


def test_a_script_raises_its_errors():
    error = TransientModelError("busy", 2.0)
    with pytest.raises(TransientModelError) as caught:
        ScriptedProvider([error]).complete(**QUESTION)
    assert caught.value is error


def test_a_script_that_is_at_its_end_says_so():
    model = ScriptedProvider(["Hello"])
    model.complete(**QUESTION)
    with pytest.raises(ModelError, match="The script holds 1 answers and was asked for one more: Hi"):
        model.complete(**QUESTION)


def test_a_script_remembers_what_it_was_asked():
    model = ScriptedProvider(["Hello"])
    model.complete(**QUESTION, history=[Turn("user", "x")], tools=[Tool("clock", "", {})], temperature=0.5)
    [asked] = model.calls
    assert (asked.system, asked.user, asked.model, asked.temperature) == ("You are friendly.", "Hi", "house-1", 0.5)
    assert asked.history == (Turn("user", "x"),)
    assert [tool.name for tool in asked.tools] == ["clock"]


# Turns as data.


@pytest.mark.parametrize(
    "turn",
    [
        Turn("user", "Hi"),
        Turn("assistant", "Let me see.", calls=(ToolCall("c1", "weather", {"town": "Bern"}), ToolCall("c2", "clock"))),
        Turn("tool", "no battery", call_id="c2", error=True),
    ],
    ids=lambda turn: turn.role,
)
def test_a_turn_survives_as_plain_data(turn):
    assert Turn.from_json(json.loads(json.dumps(turn.as_json()))) == turn


def test_a_turn_may_be_read_from_less():
    assert Turn.from_json({"role": "user"}) == Turn("user")


def test_a_tool_survives_as_plain_data():
    tool = Tool("clock", "The time.", SCHEMA)
    assert Tool.from_json(json.loads(json.dumps(tool.as_json()))) == tool


# The pooled clients.


def test_threads_share_a_few_clients_which_are_made_anew_after_they_were_closed():
    from openvibe.llm.pool import SHARES, PerProcess

    class Client:
        closed = False

        def __init__(self) -> None:
            time.sleep(0.01)  # long enough for a second thread to come in between, were it let
            made.append(self)

        def close(self) -> None:
            self.closed = True

    made: list[Client] = []
    clients = PerProcess(Client)
    threads = [threading.Thread(target=clients.get) for _ in range(3 * SHARES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == SHARES
    mine = clients.get()
    assert clients.get() is mine
    clients.close()
    assert all(client.closed for client in made)
    assert clients.get() is not mine
