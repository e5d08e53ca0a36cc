"""Claude, through Anthropic's own SDK: streaming, structured output, tools, prompt caching."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

import anthropic
import httpx2
from anthropic.types import Message

from openvibe.errors import ModelError, SetupError, TransientModelError
from openvibe.llm import prices, refusals, schemas, wire
from openvibe.llm.pool import PerProcess
from openvibe.llm.protocol import LLMResponse, Tool, ToolCall, Turn

#: From this many characters on a system text may be cached: about 1,024 tokens, the least that any Claude caches.
#: A model that caches only longer ones ignores the mark, at no cost.
CACHED_FROM = 4096
_CACHED = {"type": "ephemeral"}
_CUT_OFF = ("max_tokens", "model_context_window_exceeded")
#: Kinds of error event that another try will not mend.
_FINAL = {"invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large"}


class AnthropicProvider:
    """Asks Claude. A few clients, hence connection pools, for all threads of the process.

    The key is `api_key` or ANTHROPIC_API_KEY. `timeout` is the longest silence in seconds, not the longest answer.
    `aliases` go before the usual short names of models. The SDK's own retries are off: the engine tries again where
    the timeline can show it.
    """

    name = "anthropic"

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = 600.0,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        key = api_key or os.environ.get("ANTHROPIC_API_KEY")
        if not key:
            raise SetupError(
                "OPENVIBE_LLM=anthropic needs a key: "
                "set ANTHROPIC_API_KEY, or use OPENVIBE_LLM=simulated to work offline"
            )
        self.aliases = dict(aliases or {})
        limits = httpx2.Timeout(timeout, connect=min(timeout, 10.0))
        self._clients = PerProcess(lambda: _client(key, base_url, limits))

    def complete(
        self,
        *,
        system: str,
        user: str,
        model: str,
        max_tokens: int = 4096,
        temperature: float | None = None,
        schema: Mapping[str, Any] | None = None,
        on_words: Callable[[str], None] | None = None,
        history: Sequence[Turn] = (),
        tools: Sequence[Tool] = (),
    ) -> LLMResponse:
        """Ask Claude once, streaming."""
        extra: dict[str, Any] = {}
        if temperature is not None:
            # The SDK types no temperature, because newer models refuse it, and say so themselves.
            extra["temperature"] = temperature
        if schema is not None and schemas.is_enforceable(schema):
            extra["output_config"] = {"format": {"type": "json_schema", "schema": _enforceable(schema)}}
        elif schema is not None:
            system = schemas.told(system, schema)
        request: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "messages": _messages(user, history)}
        if system:
            request["system"] = _system(system)
        if tools:
            request["tools"] = [_tool(tool) for tool in tools]
            # A tool loop sends everything again with each result, so the newest turn ends what is cached.
            request["cache_control"] = _CACHED
        return self._response(self._message(request | ({"extra_body": extra} if extra else {}), on_words), max_tokens)

    def close(self) -> None:
        """Close this process's connections; a further call opens new ones."""
        self._clients.close()

    def _message(self, request: dict[str, Any], on_words: Callable[[str], None] | None) -> Message:
        message: Message | None = None
        with closing(self._parts(request)) as parts:
            for part in parts:
                if isinstance(part, Message):
                    message = part
                elif on_words:
                    on_words(part)
        if message is None:
            raise TransientModelError("Anthropic broke off: the stream ended before its message did")
        return message

    def _parts(self, request: dict[str, Any]) -> Generator[str | Message, None, None]:
        """Yield words as they arrive and then the whole message; what the consumer raises does not pass here."""
        try:
            with self._clients.get().messages.stream(**request) as stream:
                for event in stream:
                    if event.type == "text":
                        yield event.text
                    elif event.type == "message_stop":
                        yield event.message
        except anthropic.APIError as error:
            raise _translated(error) from error
        except httpx2.TimeoutException as error:
            raise TransientModelError("Anthropic did not answer in time") from error
        except httpx2.TransportError as error:
            # The SDK translates what fails before the answer begins, not what breaks inside its stream.
            raise TransientModelError(f"Anthropic broke off: {error or type(error).__name__}") from error
        except ValueError as error:
            raise TransientModelError(f"Anthropic sent what cannot be read: {error}") from error

    def _response(self, message: Message, max_tokens: int) -> LLMResponse:
        calls = tuple(
            ToolCall(block.id, block.name, dict(block.input)) for block in message.content if block.type == "tool_use"
        )
        if message.stop_reason == "refusal":
            raise ModelError(f"{message.model} refused to answer, for reasons of safety")
        if calls and message.stop_reason in _CUT_OFF:
            raise ModelError(f"{message.model} was cut off inside a tool call: raise max_tokens, now {max_tokens}")
        usage = message.usage
        cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        # Anthropic counts what it read from the cache and what it wrote there apart from the rest.
        tokens_in = usage.input_tokens + cached + written
        return LLMResponse(
            content="".join(block.text for block in message.content if block.type == "text"),
            tokens_in=tokens_in,
            tokens_out=usage.output_tokens,
            model=message.model,
            cost_usd=prices.cost(
                message.model,
                provider=self.name,
                tokens_in=tokens_in,
                tokens_out=usage.output_tokens,
                cached=cached,
                cache_writes=written,
            ),
            tool_calls=calls,
            tokens_cached=cached,
        )


def provider(**options: Any) -> AnthropicProvider:
    """Make the provider (called by `openvibe.llm.provider`)."""
    return AnthropicProvider(**options)


def _client(key: str, base_url: str | None, timeout: httpx2.Timeout) -> anthropic.Anthropic:
    limits = httpx2.Limits(**wire.CONNECTIONS)
    http = wire.listening(anthropic.DefaultHttpxClient(limits=limits, timeout=timeout, verify=wire.trust()))
    return anthropic.Anthropic(api_key=key, base_url=base_url, timeout=timeout, max_retries=0, http_client=http)


def _system(text: str) -> str | list[dict[str, Any]]:
    if len(text) < CACHED_FROM:
        return text
    return [{"type": "text", "text": text, "cache_control": _CACHED}]


def _tool(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "input_schema": dict(tool.schema)}


def _messages(user: str, history: Sequence[Turn]) -> list[dict[str, Any]]:
    """Write the turns as messages; results of calls made together must stand in one."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": user}]
    for before, turn in zip((None, *history), history, strict=False):
        blocks = _blocks(turn)
        if turn.role == "tool" and before is not None and before.role == "tool":
            messages[-1]["content"] += blocks
        elif blocks:
            messages.append({"role": "assistant" if turn.role == "assistant" else "user", "content": blocks})
    return messages


def _blocks(turn: Turn) -> list[dict[str, Any]]:
    if turn.role == "tool":
        result = {"type": "tool_result", "tool_use_id": turn.call_id, "content": turn.content}
        return [result | ({"is_error": True} if turn.error else {})]
    # The API refuses text that is blank.
    text = [{"type": "text", "text": turn.content}] if turn.content.strip() else []
    return text + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)} for call in turn.calls
    ]


def _enforceable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema in the subset that structured output takes: closed objects, bounds told in descriptions."""
    try:
        return anthropic.transform_schema(dict(schema))
    except ValueError as error:
        raise ModelError(f"Anthropic cannot enforce this answer's types: {error}") from error


def _translated(error: anthropic.APIError) -> ModelError:
    if isinstance(error, anthropic.APITimeoutError):
        return TransientModelError("Anthropic did not answer in time")
    if isinstance(error, anthropic.APIConnectionError):
        return TransientModelError(f"Anthropic cannot be reached: {error.__cause__ or error}")
    if isinstance(error, anthropic.APIStatusError) and error.status_code >= 400:
        return refusals.translated("Anthropic", error.status_code, error.message, error.response.headers)
    # An error event inside a stream that began well bears the stream's status, 200; mostly it is `overloaded_error`.
    detail = error.body.get("error") if isinstance(error.body, dict) else None
    final = isinstance(detail, dict) and detail.get("type") in _FINAL
    return (ModelError if final else TransientModelError)(f"Anthropic broke off: {error.message}")
