# long: one contract, the same for every provider, and one fault after the other
"""What every model provider does, and how every vendor's provider answers to what goes wrong on the wire."""

from __future__ import annotations

import json
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from email.utils import formatdate
from time import time
from typing import Any, Protocol

import jsonschema
import pytest

from openvibe import llm, trace
from openvibe.errors import ModelError, SetupError, TransientModelError
from openvibe.llm import LLMResponse, Tool, ToolCall, Turn
from openvibe.llm.scripted import ScriptedProvider
from tests.contracts.vendors import VENDORS, Reply, Vendor, VendorServer, running

SCHEMA = {
    "type": "object",
    "properties": {
        "score": {"type": "integer", "minimum": 1, "maximum": 10},
        "tone": {"enum": ["warm", "cool"], "type": "string"},
        "points": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["score", "tone", "points"],
}
FITTING = {"score": 7, "tone": "warm", "points": ["a bakery"]}
WEATHER = Tool(
    "weather",
    "The weather of a town.",
    {
        "type": "object",
        "properties": {"town": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["town", "days"],
    },
)
CLOCK = Tool("clock", "The time.", {"type": "object", "properties": {}})
IN_BERN = ToolCall("call_1", "weather", {"town": "Bern", "days": 2})


class Cancelled(Exception):
    """Somebody does not want to hear more."""


class Subject(Protocol):
    """A provider under test; `will` says what its model answers next, where that can be said."""

    provider: llm.LLMProvider
    model: str

    def will(self, *texts: str, calls: tuple[ToolCall, ...] = ()) -> None: ...


class OverTheWire:
    def __init__(self, vendor: Vendor, server: VendorServer) -> None:
        self.provider: Any = vendor.provider(server.url, timeout=5)
        self.model = vendor.model
        self._vendor, self._server = vendor, server

    def will(self, *texts: str, calls: tuple[ToolCall, ...] = ()) -> None:
        self._server.replies = [Reply(self._vendor.answer(*texts, calls=calls))]


class Simulated:
    def __init__(self) -> None:
        self.provider = llm.provider("simulated")
        self.model = "simulated-haiku"

    def will(self, *texts: str, calls: tuple[ToolCall, ...] = ()) -> None:
        """It answers as it likes."""


class Scripted:
    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.provider: llm.LLMProvider = ScriptedProvider(self._script())
        self.model = "haiku"

    def will(self, *texts: str, calls: tuple[ToolCall, ...] = ()) -> None:
        self.provider = ScriptedProvider([self._answer(texts, calls)] * 5)

    def _script(self) -> list[Any]:
        return [self._answer(("Hello",), ())] * 5

    def _answer(self, texts: tuple[str, ...], calls: tuple[ToolCall, ...]) -> LLMResponse:
        return LLMResponse("".join(texts), 10, 5, "haiku", Decimal(0), simulated=True, tool_calls=calls)


class House:
    """A provider of one's own, with an async `complete` that streams."""

    name = "house"

    def __init__(self) -> None:
        self.texts: tuple[str, ...] = ("Hello",)
        self.calls: tuple[ToolCall, ...] = ()

    async def complete(self, *, system, user, model, max_tokens, on_words=None, **more) -> LLMResponse:
        for text in self.texts:
            if on_words:
                on_words(text)
        return LLMResponse("".join(self.texts), 10, 5, model, Decimal("0.01"), tool_calls=self.calls)


class Adapted:
    def __init__(self) -> None:
        self.house = House()
        self.provider = llm.adapted(self.house)
        self.model = "house-1"

    def will(self, *texts: str, calls: tuple[ToolCall, ...] = ()) -> None:
        self.house.texts, self.house.calls = texts, calls


@pytest.fixture(params=["simulated", "scripted", "adapted", *(vendor.name for vendor in VENDORS)])
def subject(request) -> Iterator[Subject]:
    doubles: dict[str, Callable[[], Subject]] = {"simulated": Simulated, "scripted": Scripted, "adapted": Adapted}
    if request.param in doubles:
        yield doubles[request.param]()
        return
    vendor = next(vendor for vendor in VENDORS if vendor.name == request.param)
    with running(Reply(vendor.answer("Hello"))) as server:
        wired = OverTheWire(vendor, server)
        yield wired
        wired.provider.close()


def ask(subject: Any, model: str = "", **options: Any) -> LLMResponse:
    question = {"system": "You are friendly.", "user": "Say hello to Ada!", "model": model or subject.model}
    return subject.provider.complete(**{**question, **options})


# What every provider does.


def test_the_words_that_are_handed_out_join_to_the_content(subject):
    subject.will("Hello", ", ", "wörld", " 😀")
    heard: list[str] = []
    response = ask(subject, on_words=heard.append)
    assert "".join(heard) == response.content != ""


def test_nobody_needs_to_hear_the_words(subject):
    assert ask(subject).content


def test_an_answer_tells_its_model_and_its_usage(subject):
    response = ask(subject)
    assert response.model == subject.model
    assert response.tokens_in > 0
    assert response.tokens_out > 0


def test_a_json_answer_obeys_the_schema(subject):
    subject.will(json.dumps(FITTING))
    jsonschema.validate(json.loads(ask(subject, schema=SCHEMA).content), SCHEMA)


def test_a_tool_call_names_its_tool_and_bears_an_id_and_arguments_that_fit(subject):
    subject.will("", calls=(IN_BERN,))
    [call] = ask(subject, tools=[WEATHER]).tool_calls
    assert call.name == "weather"
    assert call.id
    jsonschema.validate(dict(call.arguments), WEATHER.schema)


def test_a_conversation_goes_on_after_a_tools_result(subject):
    subject.will("It rains.")
    history = [Turn("assistant", calls=(IN_BERN,)), Turn("tool", "rain", call_id="call_1")]
    response = ask(subject, history=history, tools=[WEATHER])
    assert response.content
    assert response.tool_calls == ()


def test_an_error_of_the_listener_passes_through_untouched(subject):
    error = Cancelled()

    def refuse(text: str) -> None:
        raise error

    with pytest.raises(Cancelled) as caught:
        ask(subject, on_words=refuse)
    assert caught.value is error


@pytest.mark.parametrize("error", [ValueError("x"), ConnectionError("x"), TimeoutError("x"), StopIteration()])
def test_an_error_of_the_listener_is_never_taken_for_the_vendors(subject, error):
    def refuse(text: str) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        ask(subject, on_words=refuse)
    assert caught.value is error


def test_a_provider_serves_many_threads_at_once(subject):
    subject.will("Hello")
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(subject).content)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 5
    assert len(set(answers)) == 1


# What every vendor's provider does on the wire.


@pytest.fixture(params=VENDORS, ids=[vendor.name for vendor in VENDORS])
def vendor(request) -> Vendor:
    return request.param


@pytest.fixture
def server(vendor) -> Iterator[VendorServer]:
    with running(Reply(vendor.answer("Hello"))) as server:
        yield server


class Line:
    """A vendor's provider and its server."""

    def __init__(self, vendor: Vendor, server: VendorServer, **options: Any) -> None:
        self.provider: Any = vendor.provider(server.url, **{"timeout": 5, **options})
        self.model = vendor.model


@pytest.fixture
def line(vendor, server) -> Iterator[Line]:
    line = Line(vendor, server)
    yield line
    line.provider.close()


def test_a_request_carries_the_question_and_its_limits(vendor, server, line):
    ask(line, max_tokens=77, temperature=0.0)
    assert server.paths == [vendor.path]
    assert vendor.asked(server.requests[0]) == {
        "system": "You are friendly.",
        "user": "Say hello to Ada!",
        "model": vendor.model,
        "max_tokens": 77,
        "temperature": 0.0,
        "schema": None,
        "tools": [],
    }
    assert server.requests[0]["stream"] is True


def test_a_request_goes_on_in_the_trace_of_whoever_asks(vendor, server, line):
    trace_of_run = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    with trace.within(trace_of_run):
        ask(line)
    ask(line)
    with trace.within(trace_of_run, "rojo=1"), trace.within("00-" + "ab" * 16 + "-" + "ef" * 8 + "-01"):
        # A step of the run has a span of its own, and no state of its own.
        ask(line)
    assert [told.get("traceparent", "")[:35] for told in server.headers] == [trace_of_run[:35], "", trace_of_run[:35]]
    assert [told.get("tracestate") for told in server.headers] == [None, None, "rojo=1"]


def test_words_arrive_while_the_answer_is_still_under_way(vendor, server, line):
    """The server sends nothing more after the first words, and the listener hears them all the same."""
    server.replies = [Reply(vendor.unfinished("Hello"), end="hold")]
    heard: list[str] = []

    def hear(text: str) -> None:
        heard.append(text)
        raise Cancelled

    with pytest.raises(Cancelled):
        ask(line, on_words=hear)
    assert heard == ["Hello"]


def test_an_error_of_the_listener_ends_the_call_at_the_vendor_too(vendor, server, line):
    server.replies = [Reply(vendor.unfinished("Hello"), end="hold")]

    def refuse(text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled) as caught:
        ask(line, on_words=refuse)
    assert server.hung_up.wait(5), f"the server still waits after {caught.value!r}"


def test_after_an_ended_call_the_provider_still_works(vendor, server, line):
    server.replies = [Reply(vendor.unfinished("Hello"), end="hold"), Reply(vendor.answer("Hello again"))]

    def refuse(text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        ask(line, on_words=refuse)
    assert ask(line).content == "Hello again"


def test_usage_is_what_the_vendor_counted(vendor, server, line):
    server.replies = [Reply(vendor.answer("Hello", tokens_in=1_000, tokens_out=2_000))]
    response = ask(line)
    assert (response.tokens_in, response.tokens_out) == (1_000, 2_000)
    assert not response.simulated


@pytest.mark.parametrize("model", ["house-model-1", "house-model-cloud"])
def test_an_unknown_price_is_none_and_never_zero(vendor, server, line, model):
    server.replies = [Reply(vendor.answer("Hello", model=model))]
    response = ask(line, model=model)
    assert response.model == model
    # What runs on one's own machine is charged for by nobody, whatever its name.
    free = vendor.name == "ollama" and model == "house-model-1"
    assert response.cost_usd == (Decimal(0) if free else None)


def test_a_schema_is_enforced_by_the_vendor(vendor, server, line):
    ask(line, schema=SCHEMA)
    sent = vendor.asked(server.requests[0])["schema"]
    assert list(sent["properties"]) == ["score", "tone", "points"]
    assert sent["required"] == ["score", "tone", "points"]


@pytest.mark.parametrize(
    "part",
    [{}, {"type": "object", "additionalProperties": {"type": "integer"}}, {"type": "array", "items": {}}],
    ids=["anything", "free map", "list of anything"],
)
def test_a_schema_that_cannot_be_enforced_still_reaches_the_model(vendor, server, line, part):
    schema = {"type": "object", "properties": {"scores": part}, "required": ["scores"]}
    ask(line, schema=schema)
    asked = vendor.asked(server.requests[0])
    assert asked["schema"] == schema or (asked["schema"] is None and json.dumps(schema) in asked["system"])


def test_the_schema_that_was_given_stays_as_it_was(line):
    before = pickle.dumps(SCHEMA)
    ask(line, schema=SCHEMA, tools=[WEATHER])
    assert pickle.dumps(SCHEMA) == before


def test_tools_are_described_to_the_vendor(vendor, server, line):
    ask(line, tools=[WEATHER, CLOCK])
    weather, clock = vendor.asked(server.requests[0])["tools"]
    assert weather == ("weather", "The weather of a town.", WEATHER.schema)
    assert clock[:2] == ("clock", "The time.")


def test_words_and_several_tool_calls_come_back_in_order(vendor, server, line):
    calls = (IN_BERN, ToolCall("call_2", "clock", {}), ToolCall("call_3", "weather", {"town": "Zürich", "days": 1}))
    server.replies = [Reply(vendor.answer("Let me ", "see.", calls=calls))]
    response = ask(line, tools=[WEATHER, CLOCK])
    assert response.content == "Let me see."
    assert [(call.name, call.arguments) for call in response.tool_calls] == [
        (call.name, call.arguments) for call in calls
    ]
    assert len({call.id for call in response.tool_calls}) == 3


def test_an_answer_without_tool_calls_has_none(line):
    assert ask(line, tools=[WEATHER]).tool_calls == ()


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_a_refusal_that_may_pass_is_transient_and_asked_for_once(vendor, server, line, status):
    server.replies = [Reply([vendor.refusal(status, "Slow down")], status=status)]
    with pytest.raises(TransientModelError, match=f"{vendor.title} answered {status}: .*Slow down") as caught:
        ask(line)
    assert caught.value.retry_after is None
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_refusal_that_stays_is_final_and_asked_for_once(vendor, server, line, status):
    server.replies = [Reply([vendor.refusal(status, "No such thing")], status=status)]
    with pytest.raises(ModelError, match=f"{vendor.title} answered {status}: .*No such thing") as caught:
        ask(line)
    assert not isinstance(caught.value, TransientModelError)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After-Ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Fri, 20 Nov 2020 00:00:00 GMT"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "nan"}, None),
    ],
    ids=["seconds", "parts", "milliseconds", "words", "past", "negative", "nan"],
)
def test_a_refusal_tells_how_long_to_wait_when_the_vendor_says_so(vendor, server, line, status, headers, seconds):
    server.replies = [Reply([vendor.refusal(status, "Slow down")], status=status, headers=headers)]
    with pytest.raises(TransientModelError) as caught:
        ask(line)
    assert caught.value.retry_after == seconds


def test_a_refusal_may_tell_the_date_to_wait_for(vendor, server, line):
    headers = {"Retry-After": formatdate(time() + 60, usegmt=True)}
    server.replies = [Reply([vendor.refusal(429, "Slow down")], status=429, headers=headers)]
    with pytest.raises(TransientModelError) as caught:
        ask(line)
    assert caught.value.retry_after == pytest.approx(60, abs=5)


def test_a_vendor_may_say_that_another_try_is_useless(vendor, server, line):
    server.replies = [Reply([vendor.refusal(500, "Gone")], status=500, headers={"X-Should-Retry": "false"})]
    with pytest.raises(ModelError) as caught:
        ask(line)
    assert not isinstance(caught.value, TransientModelError)


def test_an_error_in_mid_stream_is_transient_after_the_words_so_far(vendor, server, line):
    server.replies = [Reply(vendor.failed("Hel", message="Overloaded"))]
    heard: list[str] = []
    with pytest.raises(TransientModelError, match=f"{vendor.title} broke off: .*Overloaded"):
        ask(line, on_words=heard.append)
    assert heard == ["Hel"]
    assert len(server.requests) == 1


def test_a_connection_that_breaks_in_mid_stream_is_transient(vendor, server, line):
    server.replies = [Reply(vendor.unfinished("Hel"), end="cut")]
    with pytest.raises(TransientModelError, match=f"{vendor.title} broke off: "):
        ask(line)
    assert len(server.requests) == 1


def test_a_stream_that_ends_before_its_answer_does_is_transient(vendor, server, line):
    server.replies = [Reply(vendor.unfinished("Hel"))]
    with pytest.raises(TransientModelError, match=rf"{vendor.title} broke off: the stream ended before its"):
        ask(line)


def test_an_empty_answer_is_transient(vendor, server, line):
    server.replies = [Reply([])]
    with pytest.raises(TransientModelError, match=f"{vendor.title} broke off"):
        ask(line)


def test_an_answer_that_cannot_be_read_is_transient(vendor, server, line):
    garbage = vendor.answer("Hello")[0].replace("{", "{{", 1)
    server.replies = [Reply([garbage])]
    with pytest.raises(TransientModelError, match=f"{vendor.title} sent what cannot be read"):
        ask(line)


@pytest.mark.parametrize("begun", [False, True], ids=["from the start", "in mid-stream"])
def test_silence_ends_in_a_transient_error_and_the_call_with_it(vendor, server, begun):
    server.replies = [Reply(vendor.unfinished("Hel") if begun else [], end="hold")]
    with pytest.raises(TransientModelError, match=f"{vendor.title} did not answer in time"):
        ask(Line(vendor, server, timeout=0.2))
    assert server.hung_up.wait(5)
    assert len(server.requests) == 1


def test_a_refused_connection_is_transient(vendor):
    with socket.socket() as taken:
        # Bound but not listening: the port is ours and refuses everybody.
        taken.bind(("127.0.0.1", 0))
        provider = vendor.provider(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(TransientModelError, match=f"{vendor.title} cannot be reached"):
            provider.complete(system="", user="Hi", model=vendor.model)


def test_errors_survive_pickling(vendor, server, line):
    headers = {"Retry-After": "7"}
    server.replies = [Reply([vendor.refusal(429, "Slow down")], status=429, headers=headers)]
    with pytest.raises(TransientModelError) as caught:
        ask(line)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.retry_after) == (str(caught.value), 7.0)


def test_an_empty_system_text_is_left_out(vendor, server, line):
    ask(line, system="")
    request = server.requests[0]
    assert "system" not in request
    assert [message["role"] for message in request["messages"]] == ["user"]


def test_an_unknown_option_is_refused_naming_it(vendor):
    with pytest.raises(SetupError, match=f"Provider '{vendor.name}' does not take these options: .*'colour'"):
        llm.provider(vendor.name, api_key="sk-test", colour="red")


def test_calls_one_after_another_share_a_connection(vendor, server, line):
    for _ in range(3):
        ask(line)
    assert server.connections == 1
