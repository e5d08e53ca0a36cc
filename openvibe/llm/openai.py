"""GPT and every server that speaks OpenAI's chat completions."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any

from openvibe.errors import ModelError, SetupError, TransientModelError
from openvibe.llm import http_stream, prices, refusals, schemas
from openvibe.llm.http_stream import StreamingClient, Unreachable
from openvibe.llm.protocol import LLMResponse, Tool, ToolCall, Turn

#: Models that think before they answer: they take no temperature, and their limit counts the thinking too.
_REASONING = re.compile(r"(ft:)?(o\d|gpt-5(?!.*-chat))")
#: Error codes with a status of 429 that no waiting mends.
_FINAL = {"insufficient_quota", "billing_hard_limit_reached"}
#: Who pays, beside the key: the variables that OpenAI's own packages read.
_ACCOUNTS = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}

#: OpenAI's own address.
ADDRESS = "https://api.openai.com/v1"

#: What ends a stream.
_END = b"[DONE]"


class OpenAIProvider:
    """Asks GPT, each thread that asks at the same time over a connection of its own.

    The key is `api_key` or OPENAI_API_KEY; OPENAI_ORG_ID and OPENAI_PROJECT_ID say who pays, where it does not.
    `base_url` (or OPENAI_BASE_URL) may lead to any server that speaks the same format; it takes any key. `timeout` is
    the longest silence in seconds, not the longest answer. `aliases` go before the usual short names of models.
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
        address = base_url or os.environ.get("OPENAI_BASE_URL") or ADDRESS
        headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream", "User-Agent": "openvibe"}
        headers |= {name: value for variable, name in _ACCOUNTS.items() if (value := os.environ.get(variable))}
        self._client = StreamingClient(address, headers=headers, timeout=timeout)

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
        self._client.close()

    def _chunks(self, request: dict[str, Any]) -> Generator[Mapping[str, Any], None, None]:
        """Yield the answer's chunks as they arrive; what the consumer raises does not pass here."""
        body = {**request, "stream": True, "stream_options": {"include_usage": True}}
        try:
            with self._client.post("/chat/completions", json.dumps(body).encode()) as response:
                if response.status != 200:
                    raise _refused(response)
                for line in http_stream.lines(response):
                    if line.startswith(b"data:") and (data := line[5:].strip()) != _END:
                        yield _chunk(data)
        except Unreachable as error:
            raise TransientModelError(f"OpenAI cannot be reached: {error}") from error
        except TimeoutError as error:
            raise TransientModelError("OpenAI did not answer in time") from error
        except (OSError, HTTPException) as error:
            raise TransientModelError(f"OpenAI broke off: {error or type(error).__name__}") from error
        except ValueError as error:
            raise TransientModelError(f"OpenAI sent what cannot be read: {error}") from error


def provider(**options: Any) -> OpenAIProvider:
    """Make the provider (called by `openvibe.llm.provider`)."""
    return OpenAIProvider(**options)


def _chunk(data: bytes) -> Mapping[str, Any]:
    """Read a chunk, as plain data: models of it would take several times as long, for every few letters."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"a chunk that is no object: {data[:80]!r}")
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
    usage: Mapping[str, Any] | None = None
    calls: dict[int, dict[str, str]] = field(default_factory=dict)

    def take(self, chunk: Mapping[str, Any]) -> str:
        """Add a chunk and return its words."""
        self.model = chunk.get("model") or self.model
        # The chunk that tells the usage is the last, and has no choices.
        if usage := chunk.get("usage"):
            self.usage = usage
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


def _figures(model: str, usage: Mapping[str, Any] | None) -> dict[str, Any]:
    if usage is None:
        # Some servers of the same format do not count; what was used is not known then, and so not its price.
        return {"tokens_in": 0, "tokens_out": 0, "cost_usd": None}
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") or 0
    counted = {"tokens_in": usage.get("prompt_tokens") or 0, "tokens_out": usage.get("completion_tokens") or 0}
    writes = details.get("cache_write_tokens") or 0
    cost = prices.cost(model, provider=OpenAIProvider.name, **counted, cached=cached, cache_writes=writes)
    return {**counted, "cost_usd": cost, "tokens_cached": cached}


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


def _refused(response: HTTPResponse) -> ModelError:
    text = response.read(http_stream.REFUSAL).decode(errors="replace")
    try:
        error = json.loads(text)["error"]
    except (ValueError, LookupError, TypeError):
        error = text
    told = error if isinstance(error, dict) else {"message": error}
    message = told.get("message") or response.reason
    if told.get("code") in _FINAL:
        return ModelError(f"OpenAI refused: {message}")
    return refusals.translated("OpenAI", response.status, str(message), response.headers)
