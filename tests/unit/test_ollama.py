"""What is Ollama's own: a model at home, its options, its cost, and tools that its SDK describes poorly."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from openvibe import llm
from openvibe.errors import ModelError
from openvibe.llm import LLMResponse, Tool, ToolCall, Turn, aliases
from openvibe.llm.ollama import OllamaProvider
from tests.contracts.vendors import Ollama, Reply, VendorServer, running

WIRE = Ollama()


@pytest.fixture
def server() -> Iterator[VendorServer]:
    with running(Reply(WIRE.answer("Hello"))) as server:
        yield server


@pytest.fixture
def provider(server) -> Iterator[OllamaProvider]:
    provider = OllamaProvider(base_url=server.url, timeout=5)
    yield provider
    provider.close()


def ask(provider: Any, **options: Any) -> LLMResponse:
    return provider.complete(**{"system": "You are friendly.", "user": "Say hello!", "model": "llama3.2", **options})


def test_the_address_may_come_from_the_environment(monkeypatch, server):
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    provider: Any = llm.provider("ollama")
    assert ask(provider).content == "Hello"
    provider.close()


def test_a_server_behind_a_key_gets_it(server):
    provider = OllamaProvider(base_url=server.url, api_key="sk-test")
    ask(provider)
    assert server.headers[0]["authorization"] == "Bearer sk-test"
    provider.close()


def test_a_call_at_home_costs_nothing(provider):
    assert ask(provider).cost_usd == Decimal(0)


@pytest.mark.parametrize("model", ["gpt-oss:120b-cloud", "qwen3-coder:480b-cloud"])
def test_what_a_model_in_the_cloud_costs_is_not_known(server, provider, model):
    server.replies = [Reply(WIRE.answer("Hello", model=model))]
    assert ask(provider, model=model).cost_usd is None


def test_the_models_options_go_along_with_every_call(server):
    provider = OllamaProvider(base_url=server.url, options={"num_ctx": 16_384})
    ask(provider, max_tokens=77, temperature=0.5)
    assert server.requests[0]["options"] == {"num_ctx": 16_384, "num_predict": 77, "temperature": 0.5}
    provider.close()


@pytest.mark.parametrize("alias", ["haiku", "sonnet", "opus", "fast", "smart"])
def test_every_short_name_stands_for_a_model_that_ollama_has(alias):
    assert aliases.resolve(alias, provider="ollama").startswith("llama3")


def test_the_short_names_may_be_given_another_meaning():
    provider = OllamaProvider(aliases={"smart": "qwen3:32b"})
    assert aliases.resolve("smart", provider="ollama", own=provider.aliases) == "qwen3:32b"
    assert aliases.resolve("haiku", provider="ollama", own=provider.aliases) == "llama3.2"


class Tree(BaseModel):
    name: str
    children: list["Tree"]
    by_name: dict[str, int]


def test_any_schema_is_enforced_as_it_is(server, provider):
    ask(provider, schema=Tree.model_json_schema())
    assert server.requests[0]["format"] == Tree.model_json_schema()


def test_nothing_of_a_tools_schema_gets_lost(server, provider):
    schema = {
        "type": "object",
        "$defs": {"Place": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}},
        "properties": {
            "place": {"$ref": "#/$defs/Place", "description": "Where."},
            "days": {"type": "integer", "minimum": 1, "title": "Days"},
            "units": {"anyOf": [{"enum": ["C", "F"]}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"type": "string", "minLength": 2}},
        },
        "required": ["place"],
    }
    ask(provider, tools=[Tool("weather", "The weather.", schema)])
    sent = server.requests[0]["tools"][0]["function"]["parameters"]
    assert sent["required"] == ["place"]
    assert sent["properties"]["tags"] == schema["properties"]["tags"]
    assert sent["properties"]["days"] == {"type": "integer", "description": '{"minimum": 1}'}
    assert json.loads(sent["properties"]["units"]["description"]) == schema["properties"]["units"]
    place = sent["properties"]["place"]
    assert place["type"] == "object"
    assert place["description"] == 'Where.\n\n{"properties": {"town": {"type": "string"}}, "required": ["town"]}'


def test_a_conversation_is_written_in_the_vendors_form(server, provider):
    history = [
        Turn("assistant", calls=(ToolCall("c1", "weather", {"town": "Zürich"}), ToolCall("c2", "clock"))),
        Turn("tool", "rain", call_id="c1"),
        Turn("tool", "no battery", call_id="c2", error=True),
        Turn("user", "And tomorrow?"),
    ]
    ask(provider, history=history)
    assert server.requests[0]["messages"][2:] == [
        {
            "role": "assistant",
            "tool_calls": [
                {"function": {"name": "weather", "arguments": {"town": "Zürich"}}},
                {"function": {"name": "clock", "arguments": {}}},
            ],
        },
        {"role": "tool", "tool_name": "weather", "content": "rain"},
        {"role": "tool", "tool_name": "clock", "content": "Error: no battery"},
        {"role": "user", "content": "And tomorrow?"},
    ]


def test_calls_get_ids_that_never_meet_again(server, provider):
    server.replies = [Reply(WIRE.answer(calls=(ToolCall("", "clock", {}), ToolCall("", "clock", {}))))]
    calls = [*ask(provider).tool_calls, *ask(provider).tool_calls]
    assert len({call.id for call in calls}) == 4


def test_a_model_that_is_not_there_is_told_in_ollamas_own_words(server, provider):
    text = "model 'llama9' not found, try pulling it first"
    server.replies = [Reply([json.dumps({"error": text})], status=404)]
    with pytest.raises(ModelError, match=f"Ollama answered 404: {text}"):
        ask(provider, model="llama9")


@pytest.mark.parametrize("body", ["<html>Bad gateway</html>", '"broken"', '{"detail": "x"}', ""])
def test_a_refusal_in_another_form_is_told_as_it_came(server, provider, body):
    server.replies = [Reply([body] if body else [], status=502)]
    with pytest.raises(ModelError, match=f"Ollama answered 502: {body}"):
        ask(provider)
