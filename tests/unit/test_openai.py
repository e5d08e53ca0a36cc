"""What is OpenAI's own: its strict schemas, its thinking models, its cached tokens, its ways to say no."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from openvibe import llm
from openvibe.errors import ModelError, SetupError, TransientModelError
from openvibe.llm import LLMResponse, ToolCall, Turn, aliases
from openvibe.llm.openai import OpenAIProvider
from tests.contracts.vendors import OpenAI, Reply, VendorServer, running

WIRE = OpenAI()


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with running(Reply(WIRE.answer("Hello"))) as server:
        yield server


@pytest.fixture
def provider(server) -> Iterator[OpenAIProvider]:
    provider = OpenAIProvider(api_key="sk-test", base_url=server.url, timeout=5)
    yield provider
    provider.close()


def ask(provider: OpenAIProvider, **options: Any) -> LLMResponse:
    return provider.complete(**{"system": "You are friendly.", "user": "Say hello!", "model": "gpt-4o", **options})


def test_the_key_travels_as_a_bearer_token(server, provider):
    ask(provider)
    assert server.headers[0]["authorization"] == "Bearer sk-test"


def test_a_missing_key_is_told_with_both_remedies(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SetupError, match="set OPENAI_API_KEY, or use OPENVIBE_LLM=simulated to work offline"):
        llm.provider("openai")


def test_key_and_address_may_come_from_the_environment(monkeypatch, server):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    provider: Any = llm.provider("openai")
    assert ask(provider).content == "Hello"
    assert server.headers[0]["authorization"] == "Bearer sk-env"
    provider.close()


def test_the_environment_may_say_who_pays(monkeypatch, server):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-2")
    provider = OpenAIProvider(api_key="sk-test", base_url=server.url)
    ask(provider)
    provider.close()
    assert (server.headers[0]["openai-organization"], server.headers[0]["openai-project"]) == ("org-1", "proj-2")


def test_an_address_that_moved_is_told(server, provider):
    server.replies = [Reply(["Moved"], status=308, headers={"Location": "https://elsewhere.example/v1"})]
    with pytest.raises(ModelError, match="OpenAI answered 308: Moved") as caught:
        ask(provider)
    assert not isinstance(caught.value, TransientModelError)


@pytest.mark.parametrize("text", ["", "[]", '{"error": null}', '{"error": {"message": null}}', "<html>", "\xff"])
def test_a_refusal_without_words_still_tells_its_status(server, provider, text):
    server.replies = [Reply([text] if text else [], status=503)]
    with pytest.raises(TransientModelError, match=r"OpenAI answered 503: .") as caught:
        ask(provider)
    assert "None" not in str(caught.value)


@pytest.mark.parametrize(
    ("alias", "exact"),
    [("haiku", "gpt-4o-mini"), ("sonnet", "gpt-4o"), ("opus", "o3"), ("fast", "gpt-4o-mini"), ("smart", "o3")],
)
def test_the_short_names_of_models_have_an_openai_meaning(alias, exact):
    assert aliases.resolve(alias, provider="openai") == exact


@pytest.mark.parametrize("model", ["o1", "o3", "o3-mini", "o4-mini-2025-04-16", "gpt-5", "gpt-5-mini", "ft:o4-mini:x"])
def test_a_model_that_thinks_gets_its_own_limit_and_no_temperature(server, provider, model):
    ask(provider, model=model, max_tokens=77, temperature=0.5)
    request = server.requests[0]
    assert request["max_completion_tokens"] == 77
    assert not {"max_tokens", "temperature"} & set(request)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-mini", "gpt-5-chat-latest", "ft:gpt-4o:x", "llama-3", "olmo-2"])
def test_any_other_model_gets_the_limit_that_all_servers_know_and_its_temperature(server, provider, model):
    ask(provider, model=model, max_tokens=77, temperature=0.5)
    request = server.requests[0]
    assert (request["max_tokens"], request["temperature"]) == (77, 0.5)
    assert "max_completion_tokens" not in request


def test_usage_is_asked_for_because_streams_do_not_tell_it_otherwise(server, provider):
    ask(provider)
    assert server.requests[0]["stream_options"] == {"include_usage": True}


def test_a_known_models_price_is_exact(server, provider):
    # GPT-4o costs 2.50 USD per million tokens in and 10 USD per million tokens out.
    server.replies = [Reply(WIRE.answer("Hello", model="gpt-4o", tokens_in=1_000, tokens_out=2_000))]
    assert ask(provider).cost_usd == Decimal("0.0225")


def test_cached_tokens_are_part_of_those_read_and_cost_less(server, provider):
    # Read from its cache, GPT-4o's tokens cost 1.25 USD per million.
    server.replies = [Reply(WIRE.answer("Hello", model="gpt-4o", tokens_in=2_000, tokens_out=0, cached=1_000))]
    response = ask(provider)
    assert (response.tokens_in, response.tokens_cached) == (2_000, 1_000)
    assert response.cost_usd == Decimal("0.00375")


def test_a_server_that_does_not_count_leaves_the_price_unknown(server, provider):
    whole = WIRE.answer("Hello")
    server.replies = [Reply([*whole[:-2], whole[-1]])]
    response = ask(provider)
    assert response.content == "Hello"
    assert response.cost_usd is None


def test_a_server_that_counts_more_cached_than_read_leaves_the_price_unknown(server, provider):
    server.replies = [Reply(WIRE.answer("Hello", model="gpt-4o", tokens_in=10, cached=20))]
    assert ask(provider).cost_usd is None


class Inner(BaseModel):
    label: str = Field(description="A short label.", min_length=3)
    note: str = "none"


class Circle(BaseModel):
    shape: Literal["circle"]


class Square(BaseModel):
    shape: Literal["square"]


class Wanted(BaseModel):
    score: Annotated[int, Field(ge=1, le=10)]
    inner: Inner = Field(description="The inner one.")
    inners: list[Inner] = Field(min_length=1)
    maybe: Inner | None = None
    which: Annotated[Circle | Square, Field(discriminator="shape")]
    title: str


def sent_format(server: VendorServer) -> dict[str, Any]:
    wanted: dict[str, Any] = server.requests[0]["response_format"]
    assert wanted["type"] == "json_schema"
    return wanted["json_schema"]


def test_structured_output_is_strict(server, provider):
    ask(provider, schema=Wanted.model_json_schema())
    wanted = sent_format(server)
    assert wanted["strict"] is True
    assert wanted["name"] == "answer"


def test_every_object_of_a_strict_schema_is_closed_and_all_its_properties_are_required(server, provider):
    ask(provider, schema=Wanted.model_json_schema())
    schema = sent_format(server)["schema"]
    objects = [schema, *schema["$defs"].values(), schema["properties"]["inner"]]
    assert len(objects) == 5
    for each in objects:
        assert each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])
    assert set(schema["required"]) == set(Wanted.model_fields)


def test_a_strict_schema_keeps_bounds_it_may_name_and_tells_the_others_in_words(server, provider):
    ask(provider, schema=Wanted.model_json_schema())
    schema = sent_format(server)["schema"]
    assert schema["properties"]["score"] == {"type": "integer", "minimum": 1, "maximum": 10}
    assert schema["properties"]["inners"]["minItems"] == 1
    label = schema["$defs"]["Inner"]["properties"]["label"]
    assert label == {"type": "string", "description": 'A short label.\n\n{"minLength": 3}'}


def test_a_strict_schema_holds_no_keyword_that_strictness_refuses(server, provider):
    ask(provider, schema=Wanted.model_json_schema())
    schema = sent_format(server)["schema"]
    text = json.dumps(schema)
    assert '"default":' not in text
    assert '"oneOf":' not in text
    assert '"discriminator":' not in text
    assert [each["$ref"] for each in schema["properties"]["which"]["anyOf"]] == ["#/$defs/Circle", "#/$defs/Square"]


def test_a_described_reference_is_written_out_because_none_may_have_neighbours(server, provider):
    ask(provider, schema=Wanted.model_json_schema())
    inner = sent_format(server)["schema"]["properties"]["inner"]
    assert inner["description"] == "The inner one."
    assert list(inner["properties"]) == ["label", "note"]
    assert "$ref" not in inner


class Tree(BaseModel):
    name: str
    children: list["Tree"]


class Wood(BaseModel):
    tree: Tree


def test_a_type_that_holds_itself_is_told_in_words(server, provider):
    ask(provider, schema=Wood.model_json_schema())
    request = server.requests[0]
    assert "response_format" not in request
    assert json.dumps(Wood.model_json_schema()) in request["messages"][0]["content"]


def test_a_conversation_is_written_in_the_vendors_form(server, provider):
    history = [
        Turn(
            "assistant", "Let me see.", calls=(ToolCall("c1", "weather", {"town": "Zürich"}), ToolCall("c2", "clock"))
        ),
        Turn("tool", "rain", call_id="c1"),
        Turn("tool", "no battery", call_id="c2", error=True),
        Turn("user", "And tomorrow?"),
    ]
    ask(provider, history=history)
    called = server.requests[0]["messages"][2]["tool_calls"]
    assert [(call["id"], call["type"], call["function"]["name"]) for call in called] == [
        ("c1", "function", "weather"),
        ("c2", "function", "clock"),
    ]
    assert [json.loads(call["function"]["arguments"]) for call in called] == [{"town": "Zürich"}, {}]
    assert server.requests[0]["messages"][3:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: no battery"},
        {"role": "user", "content": "And tomorrow?"},
    ]


def test_an_empty_purse_is_not_asked_again(server, provider):
    error = {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}
    server.replies = [Reply([json.dumps({"error": error})], status=429, headers={"Retry-After": "1"})]
    with pytest.raises(ModelError, match="exceeded your current quota") as caught:
        ask(provider)
    assert not isinstance(caught.value, TransientModelError)


def chunk(delta: dict[str, Any], ended: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": ended}
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": [choice]}
    return f"data: {json.dumps(frame)}\n\n"


def test_a_models_refusal_is_final_and_quoted(server, provider):
    server.replies = [Reply([chunk({"refusal": "I can"}), chunk({"refusal": "not."}), chunk({}, "stop")])]
    with pytest.raises(ModelError, match=r"gpt-4o refused to answer: I cannot\.") as caught:
        ask(provider)
    assert not isinstance(caught.value, TransientModelError)


def test_a_content_filter_is_final(server, provider):
    server.replies = [Reply(WIRE.answer("He", ended="content_filter"))]
    with pytest.raises(ModelError, match="its content filter stepped in"):
        ask(provider)


def test_a_tool_call_that_was_cut_off_is_never_made(server, provider):
    server.replies = [Reply(WIRE.answer(calls=(ToolCall("c1", "clock", {}),), ended="length"))]
    with pytest.raises(ModelError, match="cut off inside a tool call: raise max_tokens, now 77"):
        ask(provider, max_tokens=77)


@pytest.mark.parametrize("arguments", ['{"town": ', "[1]", '"Bern"'])
def test_tool_arguments_that_are_no_object_are_worth_another_try(server, provider, arguments):
    call = {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": arguments}}
    server.replies = [Reply([chunk({"tool_calls": [call]}), chunk({}, "tool_calls")])]
    with pytest.raises(TransientModelError, match="called 'weather' with arguments that are no"):
        ask(provider)


def test_an_error_in_mid_stream_that_another_try_will_not_mend_is_final(server, provider):
    error = {"error": {"message": "Too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}
    server.replies = [Reply([f"data: {json.dumps(error)}\n\n"])]
    with pytest.raises(ModelError, match="Too long") as caught:
        ask(provider)
    assert not isinstance(caught.value, TransientModelError)


@pytest.mark.parametrize("data", ["[1]", "7", "null"])
def test_a_chunk_that_is_no_object_cannot_be_read(server, provider, data):
    server.replies = [Reply([f"data: {data}\n\n"])]
    with pytest.raises(TransientModelError, match="OpenAI sent what cannot be read"):
        ask(provider)


def test_comments_and_other_line_ends_in_the_stream_do_no_harm(server, provider):
    pieces = [": PROCESSING\n\n", *WIRE.answer("one\u2028two\x85three"), ": bye\r\n\r\n"]
    cut = "".join(pieces)
    server.replies = [Reply([cut[at : at + 7] for at in range(0, len(cut), 7)])]
    assert ask(provider).content == "one\u2028two\x85three"
