"""GPT and every server that speaks OpenAI's chat completions, through OpenAI's own SDK."""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx2
import openai
from openai.types import CompletionUsage

from openvibe.errors import ModelError, SetupError, TransientModelError
from openvibe.llm import prices, refusals, schemas, wire
from openvibe.llm.pool import PerProcess
from openvibe.llm.protocol import LLMResponse, Tool, ToolCall, Turn

#: Models that think before they answer: they take no temperature, and their limit counts the thinking too.
_REASONING = re.compile(r"(ft:)?(o\d|gpt-5(?!.*-chat))")
#: Error codes with a status of 429 that no waiting mends.
_FINAL = {"insufficient_quota", "billing_hard_limit_reached"}

#: What ends a stream.
_END = b"[DONE]"


class OpenAIProvider:
    """Asks GPT. A few clients, hence connection pools, for all threads of the process.

    The key is `api_key` or OPENAI_API_KEY. `base_url` (or OPENAI_BASE_URL) may lead to any server that speaks the same
    format; it takes any key. `timeout` is the longest silence in seconds, not the longest answer. `aliases` go before
    the usual short names of models. The SDK's own retries are off: the engine tries again where the timeline can show
    it.
    """

    name = "openai"

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = 600.0,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        key = api_key or os.environ.get("OPENAI_API_KEY")
        if not key:
            raise SetupError(
                "OPENVIBE_LLM=openai needs a key: set OPENAI_API_KEY, or use OPENVIBE_LLM=simulated to work offline"
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
        """Ask GPT once, streaming."""
        request: dict[str, Any] = {"model": model, **_limits(model, max_tokens, temperature)}
        if schema is not None and schemas.is_enforceable(schema):
            enforced = {"name": "answer", "strict": True, "schema": schemas.strict(schema)}
            request["response_format"] = {"type": "json_schema", "json_schema": enforced}
        elif schema is not None:
            system = schemas.told(system, schema)
        if tools:
            request["tools"] = [_tool(tool) for tool in tools]
        request["messages"] = _messages(system, user, history)
        answer = _Answer(model)
        with closing(self._chunks(request)) as chunks:
            for chunk in chunks:
                words = answer.take(chunk)
                if words and on_words:
                    on_words(words)
        return answer.response(max_tokens)

    def close(self) -> None:
        """Close this process's connections; a further call opens new ones."""
        self._clients.close()

    def _chunks(self, request: dict[str, Any]) -> Generator[Mapping[str, Any], None, None]:
        """Yield the answer's chunks as they arrive; what the consumer raises does not pass here."""
        asking = self._clients.get().chat.completions.with_streaming_response
        # Beside its parameters, which the SDK looks through for what it must rename: here that is nothing, and takes it
        # as long as to send it.
        body = {**request, "stream_options": {"include_usage": True}}
        try:
            with asking.create(model=request["model"], messages=[], stream=True, extra_body=body) as response:
                # Read here to the last byte: the SDK's own stream stops at the end mark, before the body's end, and so
                # throws every connection away.
                for line in _lines(response.iter_bytes()):
                    if line.startswith(b"data:") and (data := line[5:].strip()) != _END:
                        yield _chunk(data)
        except openai.APIError as error:
            raise _translated(error) from error
        except httpx2.TimeoutException as error:
            raise TransientModelError("OpenAI did not answer in time") from error
        except httpx2.TransportError as error:
            raise TransientModelError(f"OpenAI broke off: {error or type(error).__name__}") from error
        except ValueError as error:
            raise TransientModelError(f"OpenAI sent what cannot be read: {error}") from error


def provider(**options: Any) -> OpenAIProvider:
    """Make the provider (called by `openvibe.llm.provider`)."""
    return OpenAIProvider(**options)


@cache
def _trust() -> ssl.SSLContext:
    # Read once: a process has several clients.
    return httpx2.create_ssl_context()


def _client(key: str, base_url: str | None, timeout: httpx2.Timeout) -> openai.OpenAI:
    limits = httpx2.Limits(**wire.CONNECTIONS)
    http = wire.listening(openai.DefaultHttpxClient(limits=limits, timeout=timeout, verify=_trust()))
    return openai.OpenAI(api_key=key, base_url=base_url, timeout=timeout, max_retries=0, http_client=http)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    # On bytes, because text has more line ends than the format has, and a model may well write one of them.
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def _chunk(data: bytes) -> Mapping[str, Any]:
    """Read a chunk. As plain data: the SDK's own models take several times as long, for every few letters."""
    value: dict[str, Any] = json.loads(data)
    if error := value.get("error"):
        detail = error if isinstance(error, dict) else {"message": str(error)}
        text = f"OpenAI broke off: {detail.get('message')}"
        raise ModelError(text) if detail.get("type") == "invalid_request_error" else TransientModelError(text)
    return value


@dataclass
class _Answer:
    """Puts an answer together from its chunks."""

    model: str
    content: str = ""
    refusal: str = ""
    ended: str | None = None
    usage: CompletionUsage | None = None
    calls: dict[int, dict[str, str]] = field(default_factory=dict)

    def take(self, chunk: Mapping[str, Any]) -> str:
        """Add a chunk and return its words."""
        self.model = chunk.get("model") or self.model
        # The chunk that tells the usage is the last, and has no choices.
        if usage := chunk.get("usage"):
            self.usage = CompletionUsage.construct(**usage)
        if not chunk.get("choices"):
            return ""
        choice = chunk["choices"][0]
        delta = choice.get("delta") or {}
        self.ended = choice.get("finish_reason") or self.ended
        self.refusal += delta.get("refusal") or ""
        for part in delta.get("tool_calls") or ():
            self._take_call(part)
        words: str = delta.get("content") or ""
        self.content += words
        return words

    def _take_call(self, part: Mapping[str, Any]) -> None:
        call = self.calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
        call["id"] = part.get("id") or call["id"]
        function = part.get("function") or {}
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    def response(self, max_tokens: int) -> LLMResponse:
        """Return the whole answer."""
        if self.ended is None:
            raise TransientModelError("OpenAI broke off: the stream ended before its answer did")
        if self.refusal or self.ended == "content_filter":
            raise ModelError(f"{self.model} refused to answer: {self.refusal or 'its content filter stepped in'}")
        if self.calls and self.ended == "length":
            raise ModelError(f"{self.model} was cut off inside a tool call: raise max_tokens, now {max_tokens}")
        return LLMResponse(
            content=self.content, model=self.model, tool_calls=self._tool_calls(), **_figures(self.model, self.usage)
        )

    def _tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(call["id"], call["name"], _arguments(call["name"], call["arguments"]))
            for _, call in sorted(self.calls.items())
        )


def _arguments(tool: str, text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text or "{}")
    except ValueError as error:
        raise TransientModelError(f"OpenAI called {tool!r} with arguments that are no JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise TransientModelError(f"OpenAI called {tool!r} with arguments that are no object: {text:.80}")
    return arguments


def _figures(model: str, usage: CompletionUsage | None) -> dict[str, Any]:
    if usage is None:
        # Some servers of the same format do not count; what was used is not known then, and so not its price.
        return {"tokens_in": 0, "tokens_out": 0, "cost_usd": None}
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details else 0
    cost = prices.cost(
        model,
        provider=OpenAIProvider.name,
        tokens_in=usage.prompt_tokens,
        tokens_out=usage.completion_tokens,
        cached=cached,
        cache_writes=(details.cache_write_tokens or 0) if details else 0,
    )
    return {
        "tokens_in": usage.prompt_tokens,
        "tokens_out": usage.completion_tokens,
        "cost_usd": cost,
        "tokens_cached": cached,
    }


def _limits(model: str, max_tokens: int, temperature: float | None) -> dict[str, Any]:
    if _REASONING.match(model):
        return {"max_completion_tokens": max_tokens}
    # Other servers of the same format know the older name only, and OpenAI takes it for these models.
    return {"max_tokens": max_tokens} | ({} if temperature is None else {"temperature": temperature})


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.schema)}
    return {"type": "function", "function": function}


def _messages(system: str, user: str, history: Sequence[Turn]) -> list[dict[str, Any]]:
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": user}, *(_message(turn) for turn in history)]


def _message(turn: Turn) -> dict[str, Any]:
    if turn.role == "tool":
        # The format has no mark for a failed call, so the text has to say it.
        content = f"Error: {turn.content}" if turn.error else turn.content
        return {"role": "tool", "tool_call_id": turn.call_id, "content": content}
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _text(call.arguments)}}
            for call in turn.calls
        ]
    return message


def _text(arguments: Mapping[str, Any]) -> str:
    return json.dumps(dict(arguments), ensure_ascii=False)


def _translated(error: openai.APIError) -> ModelError:
    if isinstance(error, openai.APITimeoutError):
        return TransientModelError("OpenAI did not answer in time")
    if isinstance(error, openai.APIConnectionError):
        return TransientModelError(f"OpenAI cannot be reached: {error.__cause__ or error}")
    if isinstance(error, openai.APIStatusError) and error.code not in _FINAL:
        return refusals.translated("OpenAI", error.status_code, error.message, error.response.headers)
    if error.code in _FINAL:
        return ModelError(f"OpenAI refused: {error.message}")
    return TransientModelError(f"OpenAI broke off: {error.message}")
