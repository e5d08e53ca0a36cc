"""Models on a machine of one's own, through Ollama's own SDK."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import ollama

from openvibe.errors import TransientModelError
from openvibe.llm import refusals, schemas, wire
from openvibe.llm.pool import PerProcess
from openvibe.llm.protocol import LLMResponse, Tool, ToolCall, Turn

#: The host of Ollama's cloud, which is paid for.
_CLOUD = "ollama.com"
#: What the SDK keeps of a parameter's schema; it would drop the rest without a word.
_KEPT = {"type", "items", "description", "enum"}


class OllamaProvider:
    """Asks a model that Ollama serves. A few clients, hence connection pools, for all threads of the process.

    `base_url` is the server's address, else OLLAMA_HOST, else http://127.0.0.1:11434; it takes no key, but a server
    behind one is given `api_key` or OLLAMA_API_KEY. `timeout` is the longest silence in seconds; loading a large model
    is silent too. `aliases` choose models in place of the usual ones. `options` go to the model with every call, for
    example `{"num_ctx": 16384}`: Ollama cuts off, silently, what is longer than its context.

    A call costs nothing: nobody charges for it, and the machine's own cost is not counted. Where Ollama's cloud answers
    (its host, or a model whose name ends in `cloud`) the cost is not known.
    """

    name = "ollama"

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = 600.0,
        aliases: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.aliases = dict(aliases or {})
        self._options = dict(options or {})
        self._is_free = _CLOUD not in (base_url or os.environ.get("OLLAMA_HOST") or "")
        self._clients = PerProcess(lambda: _client(base_url, api_key, timeout))

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
        """Ask the model once, streaming."""
        options = {**self._options, "num_predict": max_tokens}
        if temperature is not None:
            options["temperature"] = temperature
        request = {
            "model": model,
            "messages": _messages(system, user, history),
            "tools": [_tool(tool) for tool in tools],
            "format": None if schema is None else dict(schema),
            "options": options,
        }
        answer = _Answer(model)
        with closing(self._chunks(request)) as chunks:
            for chunk in chunks:
                words = answer.take(chunk)
                if words and on_words:
                    on_words(words)
        return answer.response(free=self._is_free)

    def close(self) -> None:
        """Close this process's connections; a further call opens new ones."""
        self._clients.close()

    def _chunks(self, request: dict[str, Any]) -> Generator[ollama.ChatResponse, None, None]:
        """Yield the answer's chunks as they arrive; what the consumer raises does not pass here."""
        try:
            with closing(self._clients.get().chat(**request, stream=True)) as stream:  # type: ignore[type-var]  # a generator, typed as an iterator
                yield from stream
        except ollama.ResponseError as error:
            raise TransientModelError(f"Ollama broke off: {error.error}") from error
        except (ConnectionError, httpx.ConnectError) as error:
            raise TransientModelError(f"Ollama cannot be reached: {error}") from error
        except httpx.TimeoutException as error:
            raise TransientModelError("Ollama did not answer in time") from error
        except httpx.TransportError as error:
            raise TransientModelError(f"Ollama broke off: {error or type(error).__name__}") from error
        except ValueError as error:
            raise TransientModelError(f"Ollama sent what cannot be read: {error}") from error


def provider(**options: Any) -> OllamaProvider:
    """Make the provider (called by `openvibe.llm.provider`)."""
    return OllamaProvider(**options)


def _client(base_url: str | None, api_key: str | None, timeout: float) -> ollama.Client:
    made = ollama.Client(
        host=base_url,
        timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
        limits=httpx.Limits(**wire.CONNECTIONS),
        verify=wire.trust(),
        headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
        # The SDK's own error keeps no headers, and `retry-after` is one.
        event_hooks={"response": [_refuse]},
    )
    wire.listening(made._client)
    return made


def _refuse(response: httpx.Response) -> None:
    if response.status_code < 400:
        return
    text = response.read().decode(errors="replace")
    with suppress(ValueError, TypeError, KeyError):
        text = json.loads(text)["error"]
    raise refusals.translated("Ollama", response.status_code, text, response.headers)


@dataclass
class _Answer:
    """Puts an answer together from its chunks."""

    model: str
    content: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    last: ollama.ChatResponse | None = None

    def take(self, chunk: ollama.ChatResponse) -> str:
        """Add a chunk and return its words."""
        self.model = chunk.model or self.model
        for call in chunk.message.tool_calls or ():
            # Ollama names no calls, so that we do.
            name = f"call_{uuid.uuid4().hex[:24]}"
            self.calls.append(ToolCall(name, call.function.name, dict(call.function.arguments)))
        if chunk.done:
            self.last = chunk
        words = chunk.message.content or ""
        self.content += words
        return words

    def response(self, *, free: bool) -> LLMResponse:
        """Return the whole answer."""
        if self.last is None:
            raise TransientModelError("Ollama broke off: the stream ended before its answer did")
        return LLMResponse(
            content=self.content,
            tokens_in=self.last.prompt_eval_count or 0,
            tokens_out=self.last.eval_count or 0,
            model=self.model,
            cost_usd=Decimal(0) if free and not self.model.endswith("cloud") else None,
            tool_calls=tuple(self.calls),
        )


def _messages(system: str, user: str, history: Sequence[Turn]) -> list[dict[str, Any]]:
    names = {call.id: call.name for turn in history for call in turn.calls}
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": user}, *(_message(turn, names) for turn in history)]


def _message(turn: Turn, names: Mapping[str, str]) -> dict[str, Any]:
    if turn.role == "tool":
        content = f"Error: {turn.content}" if turn.error else turn.content
        return {"role": "tool", "tool_name": names.get(turn.call_id, ""), "content": content}
    calls = [{"function": {"name": call.name, "arguments": dict(call.arguments)}} for call in turn.calls]
    return {"role": turn.role, "content": turn.content, "tool_calls": calls}


def _tool(tool: Tool) -> dict[str, Any]:
    parameters = dict(tool.schema)
    parts = {name: _parameter(part, tool.schema) for name, part in tool.schema.get("properties", {}).items()}
    function = {"name": tool.name, "description": tool.description, "parameters": {**parameters, "properties": parts}}
    return {"type": "function", "function": function}


def _parameter(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    schema = schemas.resolved(schema, root)
    kept = {name: value for name, value in schema.items() if name in _KEPT}
    return schemas.described(kept, {name: value for name, value in schema.items() if name not in _KEPT | {"title"}})
