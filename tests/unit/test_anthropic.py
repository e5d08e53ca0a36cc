# long: one wire format, and one local server that speaks it
"""The real Anthropic provider against a local server that speaks Anthropic's wire format."""

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from openvibe import llm
from openvibe.errors import ModelError, SetupError, TransientModelError
from openvibe.llm import Tool, ToolCall, Turn, aliases
from openvibe.llm.anthropic import AnthropicProvider
from tests.threads import serving

HAIKU = "claude-haiku-4-5-20251001"


@dataclass
class Reply:
    """What the server answers: a status with headers and a body, which may be cut off before its end."""

    body: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


def event(kind: str, **data: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n"


def beginning(*, model: str = HAIKU, tokens_in: int = 25, **usage: int) -> str:
    message = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": model,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": tokens_in, "output_tokens": 1, **usage},
    }
    block = {"type": "text", "text": ""}
    return event("message_start", message=message) + event("content_block_start", index=0, content_block=block)


def words(*texts: str) -> str:
    ping = event("ping")
    return ping + "".join(
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}) for text in texts
    )


def ending(*, tokens_out: int = 15, reason: str = "end_turn") -> str:
    return (
        event("content_block_stop", index=0)
        + event(
            "message_delta",
            delta={"stop_reason": reason, "stop_sequence": None},
            usage={"output_tokens": tokens_out},
        )
        + event("message_stop")
    )


def answer(*texts: str, model: str = HAIKU, tokens_in: int = 25, tokens_out: int = 15) -> Reply:
    return Reply(beginning(model=model, tokens_in=tokens_in) + words(*texts) + ending(tokens_out=tokens_out))


def refusal(status: int, kind: str, message: str, **headers: str) -> Reply:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_01"})
    return Reply(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


class FakeAnthropic(ThreadingHTTPServer):
    """Gives the same reply to every request and keeps the requests."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.reply = answer("Hello")
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: FakeAnthropic

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        self.server.requests.append({"headers": dict(self.headers), **json.loads(body)})
        reply = self.server.reply
        data = reply.body.encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "text/event-stream" if reply.status == 200 else "application/json")
        self.send_header("Content-Length", str(len(data) + (1 if reply.cut else 0)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@contextmanager
def running(handler: type[Handler]) -> Iterator[FakeAnthropic]:
    with serving(FakeAnthropic(handler)) as server:
        yield server


@pytest.fixture
def server() -> Iterator[FakeAnthropic]:
    with running(Handler) as server:
        yield server


@pytest.fixture
def provider(server) -> AnthropicProvider:
    return AnthropicProvider(api_key="sk-test", base_url=server.url, timeout=5)


def ask(provider: AnthropicProvider, **options: Any) -> llm.LLMResponse:
    return provider.complete(**{"system": "You are friendly.", "user": "Say hello!", "model": HAIKU, **options})


def test_words_are_handed_out_in_order_and_join_to_the_content(server, provider):
    server.reply = answer("Hello", ", ", "wörld", " 😀")
    heard: list[str] = []
    response = ask(provider, on_words=heard.append)
    assert heard == ["Hello", ", ", "wörld", " 😀"]
    assert response.content == "Hello, wörld 😀"
    assert not response.simulated


def test_nobody_needs_to_hear_the_words(provider):
    assert ask(provider).content == "Hello"


def test_words_are_handed_out_while_the_answer_is_still_under_way():
    """The server sends the rest only after the first word was heard."""
    heard = threading.Event()

    class Waiting(Handler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write((beginning() + words("Hello")).encode())
            self.wfile.flush()
            waited = heard.wait(timeout=5)
            self.wfile.write((words(" again" if waited else " too late") + ending()).encode())

    with running(Waiting) as server:
        provider = AnthropicProvider(api_key="sk-test", base_url=server.url, timeout=10)
        response = ask(provider, on_words=lambda text: heard.set())
    assert response.content == "Hello again"


def test_usage_comes_from_the_end_of_the_stream(server, provider):
    server.reply = answer("Hello", tokens_in=1_000, tokens_out=2_000)
    response = ask(provider)
    assert (response.tokens_in, response.tokens_out, response.model) == (1_000, 2_000, HAIKU)


def test_a_known_models_price_is_exact(server, provider):
    # Claude Haiku 4.5 costs 1 USD per million tokens in and 5 USD per million tokens out.
    server.reply = answer("Hello", tokens_in=1_000, tokens_out=2_000)
    assert ask(provider).cost_usd == Decimal("0.011")


def test_an_unknown_models_price_is_none_and_not_zero(server, provider):
    server.reply = answer("Hello", model="house-model-1")
    response = ask(provider, model="house-model-1")
    assert response.model == "house-model-1"
    assert response.cost_usd is None


def test_a_request_carries_question_limits_and_key(server, provider):
    ask(provider, max_tokens=77, temperature=0.25)
    [request] = server.requests
    assert server.paths == ["/v1/messages"]
    assert request["system"] == "You are friendly."
    assert request["messages"] == [{"role": "user", "content": "Say hello!"}]
    assert (request["model"], request["max_tokens"], request["temperature"]) == (HAIKU, 77, 0.25)
    assert request["stream"] is True
    assert request["headers"]["Authorization"] == "Bearer sk-test"


def test_a_temperature_of_zero_is_passed(server, provider):
    ask(provider, temperature=0.0)
    assert server.requests[0]["temperature"] == 0.0


def test_what_was_not_asked_for_is_not_sent(server, provider):
    ask(provider)
    assert not {"temperature", "output_config"} & set(server.requests[0])


class Inner(BaseModel):
    label: str


class Wanted(BaseModel):
    score: Annotated[int, Field(ge=1, le=10)]
    inner: Inner
    inners: list[Inner]


def sent_schema(server: FakeAnthropic) -> dict[str, Any]:
    wanted: dict[str, Any] = server.requests[0]["output_config"]["format"]
    assert wanted["type"] == "json_schema"
    schema: dict[str, Any] = wanted["schema"]
    return schema


def test_structured_output_closes_every_object_of_the_schema(server, provider):
    ask(provider, schema=Wanted.model_json_schema())
    schema = sent_schema(server)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["score", "inner", "inners"]
    assert schema["$defs"]["Inner"]["additionalProperties"] is False
    assert schema["properties"]["inner"] == {"$ref": "#/$defs/Inner"}


def test_structured_output_tells_bounds_in_words_because_the_vendor_refuses_them_as_keywords(server, provider):
    ask(provider, schema=Wanted.model_json_schema())
    score = sent_schema(server)["properties"]["score"]
    assert not {"minimum", "maximum"} & set(score)
    assert "minimum: 1" in score["description"]
    assert "maximum: 10" in score["description"]


def test_the_schema_that_was_given_stays_as_it_was(server, provider):
    schema = Wanted.model_json_schema()
    ask(provider, schema=schema)
    assert schema == Wanted.model_json_schema()


class Tree(BaseModel):
    name: str
    children: list["Tree"]


class Wood(BaseModel):
    tree: Tree


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"anything": {}}},
        {"type": "object", "properties": {"by_name": {"type": "object", "additionalProperties": {"type": "integer"}}}},
        {"type": "object", "properties": {"pair": {"type": "array", "prefixItems": [{"type": "string"}]}}},
        {"type": "object", "properties": {"maybe": {"type": ["string", "null"]}}},
        Wood.model_json_schema(),
    ],
    ids=["anything", "free map", "tuple", "several types", "holds itself"],
)
def test_a_schema_that_cannot_be_enforced_is_told_in_words(server, provider, schema):
    ask(provider, schema=schema)
    [request] = server.requests
    assert "output_config" not in request
    assert request["system"].startswith("You are friendly.\n\nAnswer with JSON only")
    assert json.dumps(schema) in request["system"]


CACHED = {"type": "ephemeral"}


def test_a_long_system_text_is_marked_for_the_cache(server, provider):
    ask(provider, system="x" * 4096)
    assert server.requests[0]["system"] == [{"type": "text", "text": "x" * 4096, "cache_control": CACHED}]


def test_a_system_text_too_short_for_the_cache_is_not_marked(server, provider):
    ask(provider, system="x" * 4095)
    assert server.requests[0]["system"] == "x" * 4095
    assert "cache_control" not in server.requests[0]


def test_a_tool_loop_is_marked_for_the_cache_up_to_its_newest_turn(server, provider):
    ask(provider, tools=[Tool("clock", "The time.", {"type": "object", "properties": {}})])
    assert server.requests[0]["cache_control"] == CACHED


def test_tokens_of_the_cache_are_part_of_those_read_and_priced_on_their_own(server, provider):
    # Claude Haiku 4.5 costs 1 USD per million tokens in, 0.10 read from the cache and 1.25 written there.
    usage = {"cache_read_input_tokens": 500, "cache_creation_input_tokens": 300}
    server.reply = Reply(beginning(tokens_in=200, **usage) + words("Hello") + ending(tokens_out=0))
    response = ask(provider)
    assert (response.tokens_in, response.tokens_cached) == (1_000, 500)
    assert response.cost_usd == Decimal("0.000625")


def test_a_conversation_is_written_in_the_vendors_form(server, provider):
    history = [
        Turn("assistant", "Let me see.", calls=(ToolCall("c1", "weather", {"town": "Bern"}), ToolCall("c2", "clock"))),
        Turn("tool", "rain", call_id="c1"),
        Turn("tool", "no battery", call_id="c2", error=True),
        Turn("assistant", " "),
        Turn("user", "And tomorrow?"),
        Turn("assistant", calls=(ToolCall("c3", "clock"),)),
        Turn("tool", "noon", call_id="c3"),
    ]
    ask(provider, history=history)
    assert server.requests[0]["messages"] == [
        {"role": "user", "content": "Say hello!"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"town": "Bern"}},
                {"type": "tool_use", "id": "c2", "name": "clock", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "rain"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "no battery", "is_error": True},
            ],
        },
        {"role": "user", "content": [{"type": "text", "text": "And tomorrow?"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c3", "name": "clock", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c3", "content": "noon"}]},
    ]


def test_a_refusal_of_the_model_is_final(server, provider):
    server.reply = Reply(beginning() + words("He") + ending(reason="refusal"))
    with pytest.raises(ModelError, match=f"{HAIKU} refused to answer") as caught:
        ask(provider)
    assert not isinstance(caught.value, TransientModelError)


def test_a_tool_call_that_was_cut_off_is_never_made(server, provider):
    block = {"type": "tool_use", "id": "c1", "name": "pay", "input": {}}
    delta = {"type": "input_json_delta", "partial_json": '{"to": "Ada", "amount": 1'}
    call = event("content_block_start", index=0, content_block=block) + event(
        "content_block_delta", index=0, delta=delta
    )
    server.reply = Reply(beginning().partition("event: content_block_start")[0] + call + ending(reason="max_tokens"))
    with pytest.raises(ModelError, match="cut off inside a tool call: raise max_tokens, now 77"):
        ask(provider, max_tokens=77)


def test_a_fault_of_the_request_told_in_mid_stream_is_final(server, provider):
    wrong = event("error", error={"type": "invalid_request_error", "message": "Too long"})
    server.reply = Reply(beginning() + wrong)
    with pytest.raises(ModelError, match="Too long") as caught:
        ask(provider)
    assert not isinstance(caught.value, TransientModelError)


def test_the_short_names_may_be_given_another_meaning():
    provider = AnthropicProvider(api_key="sk-test", aliases={"smart": "claude-next"})
    assert aliases.resolve("smart", provider="anthropic", own=provider.aliases) == "claude-next"


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (refusal(429, "rate_limit_error", "Slow down", retry_after="7"), "429.*Slow down"),
        (refusal(529, "overloaded_error", "Overloaded"), "529.*Overloaded"),
        (refusal(500, "api_error", "Internal server error"), "500.*Internal server error"),
        (refusal(503, "api_error", "Away"), "503.*Away"),
        (refusal(408, "timeout_error", "Too slow"), "408.*Too slow"),
    ],
    ids=lambda item: getattr(item, "status", ""),
)
def test_an_answer_that_may_be_better_later_is_a_transient_error_and_asked_for_once(server, provider, reply, told):
    server.reply = reply
    with pytest.raises(TransientModelError, match=f"Anthropic answered {told}"):
        ask(provider)
    assert len(server.requests) == 1


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("0.5", 0.5), ("Fri, 20 Nov 2026 00:00:00 GMT", None)])
def test_a_transient_error_tells_how_long_to_wait_when_anthropic_says_so(server, provider, value, seconds):
    server.reply = refusal(429, "rate_limit_error", "Slow down", retry_after=value)
    with pytest.raises(TransientModelError) as caught:
        ask(provider)
    assert caught.value.retry_after == seconds


def test_a_transient_error_without_advice_names_no_pause(server, provider):
    server.reply = refusal(529, "overloaded_error", "Overloaded")
    with pytest.raises(TransientModelError) as caught:
        ask(provider)
    assert caught.value.retry_after is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
    ],
)
def test_an_answer_that_stays_wrong_is_a_final_error_and_asked_for_once(server, provider, status, kind):
    server.reply = refusal(status, kind, "temperature: not supported")
    with pytest.raises(ModelError, match=f"Anthropic answered {status}.*temperature: not supported") as caught:
        ask(provider)
    assert not isinstance(caught.value, TransientModelError)
    assert len(server.requests) == 1


def test_an_error_event_in_mid_stream_is_a_transient_error_after_the_words_so_far(server, provider):
    overloaded = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    server.reply = Reply(beginning() + words("Hel") + overloaded)
    heard: list[str] = []
    with pytest.raises(TransientModelError, match=r"Anthropic broke off: .*Overloaded"):
        ask(provider, on_words=heard.append)
    assert heard == ["Hel"]
    assert len(server.requests) == 1


def test_a_connection_that_breaks_in_mid_stream_is_a_transient_error(server, provider):
    server.reply = Reply(beginning() + words("Hel"), cut=True)
    with pytest.raises(TransientModelError, match="Anthropic broke off"):
        ask(provider)
    assert len(server.requests) == 1


def test_a_stream_that_ends_before_its_message_does_is_a_transient_error(server, provider):
    server.reply = Reply(beginning() + words("Hel"))
    with pytest.raises(TransientModelError, match="ended before its message did"):
        ask(provider)


def test_a_refused_connection_is_a_transient_error():
    with socket.socket() as taken:
        # Bound but not listening: the port is ours and refuses everybody.
        taken.bind(("127.0.0.1", 0))
        provider = AnthropicProvider(api_key="sk-test", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(TransientModelError, match="Anthropic cannot be reached"):
            ask(provider)


def test_a_reset_connection_is_a_transient_error():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def reset() -> None:
            connection, _ = listening.accept()
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        thread = threading.Thread(target=reset)
        thread.start()
        provider = AnthropicProvider(api_key="sk-test", base_url=f"http://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(TransientModelError, match="Anthropic cannot be reached"):
            ask(provider)
        thread.join()


def test_a_missing_key_is_told_with_both_remedies(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(SetupError, match="set ANTHROPIC_API_KEY, or use OPENVIBE_LLM=simulated to work offline"):
        llm.provider("anthropic")


def test_the_key_may_come_from_the_environment(monkeypatch, server):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-env")
    provider = llm.provider("anthropic", base_url=server.url)
    provider.complete(system="", user="Hi", model=HAIKU)
    assert server.requests[0]["headers"]["Authorization"] == "Bearer sk-env"


def test_one_provider_serves_many_threads_at_once(server, provider):
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(provider).content)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["Hello"] * 8
    assert len(server.requests) == 8
