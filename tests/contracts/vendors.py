"""Local servers that speak the wire formats of model vendors: what they send, piece by piece, and how they fail."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Protocol

from openvibe import llm
from openvibe.llm import ToolCall
from tests.threads import serving


@dataclass
class Reply:
    """What the server answers: pieces of a body, each sent on its own, and how it ends.

    `cut` drops the connection inside the body; `hold` goes silent until the client hangs up.
    """

    pieces: Sequence[str] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    end: Literal["whole", "cut", "hold"] = "whole"


class VendorServer(ThreadingHTTPServer):
    """Gives its replies in order, the last one for ever, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, reply: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = [reply]
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.hung_up = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about clients that hung up: some tests are about that."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def next_reply(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


class Handler(BaseHTTPRequestHandler):
    server: VendorServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        self.server.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.paths.append(self.path)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        reply = self.server.next_reply()
        if reply.end == "hold" and not reply.pieces:
            return self._hold()
        self.send_response(reply.status)
        kind = "text/event-stream" if reply.status == 200 else "application/json"
        for name, value in {"Content-Type": kind, "Transfer-Encoding": "chunked", **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in reply.pieces:
            data = piece.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        if reply.end == "hold":
            return self._hold()
        if reply.end == "whole":
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = reply.end == "cut"
        return None

    def _hold(self) -> None:
        self.close_connection = True
        self.connection.settimeout(10)
        with suppress(TimeoutError):
            try:
                gone = self.connection.recv(1) == b""
            except ConnectionError:
                gone = True
            if gone:
                self.server.hung_up.set()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@contextmanager
def running(reply: Reply) -> Iterator[VendorServer]:
    with serving(VendorServer(reply)) as server:
        yield server


class Vendor(Protocol):
    """One vendor's wire format."""

    name: str
    title: str
    model: str
    path: str

    def provider(self, url: str, **options: Any) -> llm.LLMProvider: ...

    def answer(
        self,
        *texts: str,
        calls: Sequence[ToolCall] = (),
        model: str = "",
        tokens_in: int = 25,
        tokens_out: int = 15,
        cached: int = 0,
        ended: str = "",
    ) -> list[str]:
        """A whole answer. Vendors tell `cached` as part of `tokens_in` or beside it; this one counts it in."""
        ...

    def unfinished(self, *texts: str) -> list[str]: ...

    def failed(self, *texts: str, message: str) -> list[str]:
        """An answer that an error of the vendor ends."""
        ...

    def refusal(self, status: int, message: str) -> str: ...

    def asked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What a request says, in our words: system, user, model, max_tokens, temperature, schema, tools."""
        ...


class Anthropic:
    """https://docs.anthropic.com/en/api/messages-streaming"""

    name = "anthropic"
    title = "Anthropic"
    model = "claude-haiku-4-5-20251001"
    path = "/v1/messages"

    def provider(self, url: str, **options: Any) -> llm.LLMProvider:
        return llm.provider("anthropic", api_key="sk-test", base_url=url, **options)

    def answer(
        self, *texts: str, calls: Sequence[ToolCall] = (), model: str = "", tokens_in: int = 25, tokens_out: int = 15,
        cached: int = 0, ended: str = "",
    ) -> list[str]:  # fmt: skip
        usage = {"input_tokens": tokens_in - cached, "cache_read_input_tokens": cached}
        pieces = [self._start(model, usage), *self._text(texts)]
        for index, call in enumerate(calls, start=1):
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            pieces.append(self._event("content_block_start", index=index, content_block=block))
            text = json.dumps(call.arguments)
            for part in ("", text[:5], text[5:]):
                delta = {"type": "input_json_delta", "partial_json": part}
                pieces.append(self._event("content_block_delta", index=index, delta=delta))
            pieces.append(self._event("content_block_stop", index=index))
        reason = ended or ("tool_use" if calls else "end_turn")
        delta = {"stop_reason": reason, "stop_sequence": None}
        pieces.append(self._event("message_delta", delta=delta, usage={"output_tokens": tokens_out}))
        return [*pieces, self._event("message_stop")]

    def unfinished(self, *texts: str) -> list[str]:
        return [self._start("", {"input_tokens": 25}), *self._text(texts)]

    def failed(self, *texts: str, message: str) -> list[str]:
        error = {"type": "overloaded_error", "message": message}
        return [*self.unfinished(*texts), self._event("error", error=error)]

    def refusal(self, status: int, message: str) -> str:
        return json.dumps({"type": "error", "error": {"type": "api_error", "message": message}})

    def asked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        system = request.get("system", "")
        enforced = request.get("output_config", {}).get("format", {})
        return {
            "system": system if isinstance(system, str) else "".join(block["text"] for block in system),
            "user": request["messages"][0]["content"],
            "model": request["model"],
            "max_tokens": request["max_tokens"],
            "temperature": request.get("temperature"),
            "schema": enforced.get("schema"),
            "tools": [(tool["name"], tool["description"], tool["input_schema"]) for tool in request.get("tools", ())],
        }

    def _event(self, kind: str, **data: Any) -> str:
        return f"event: {kind}\ndata: {_json({'type': kind, **data})}\n\n"

    def _start(self, model: str, usage: Mapping[str, int]) -> str:
        message = {
            "id": "msg_01", "type": "message", "role": "assistant", "content": [], "model": model or self.model,
            "stop_reason": None, "stop_sequence": None, "usage": {"output_tokens": 1, **usage},
        }  # fmt: skip
        return self._event("message_start", message=message)

    def _text(self, texts: Sequence[str]) -> list[str]:
        if not texts:
            return []
        start = self._event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        deltas = [
            self._event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}) for text in texts
        ]
        return [start, self._event("ping"), *deltas, self._event("content_block_stop", index=0)]


class OpenAI:
    """https://platform.openai.com/docs/api-reference/chat-streaming"""

    name = "openai"
    title = "OpenAI"
    model = "gpt-4o-mini"
    path = "/chat/completions"

    def provider(self, url: str, **options: Any) -> llm.LLMProvider:
        return llm.provider("openai", api_key="sk-test", base_url=url, **options)

    def answer(
        self, *texts: str, calls: Sequence[ToolCall] = (), model: str = "", tokens_in: int = 25, tokens_out: int = 15,
        cached: int = 0, ended: str = "",
    ) -> list[str]:  # fmt: skip
        pieces = [self._words(text, model) for text in ("", *texts)]
        for index, call in enumerate(calls):
            text = json.dumps(call.arguments)
            first = {
                "index": index,
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": ""},
            }
            rest = [{"index": index, "function": {"arguments": part}} for part in (text[:5], text[5:])]
            pieces += [self._chunk({"tool_calls": [part]}, model) for part in (first, *rest)]
        pieces.append(self._chunk({}, model, finish_reason=ended or ("tool_calls" if calls else "stop")))
        usage = {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        }
        return [*pieces, self._data({**self._frame(model), "choices": [], "usage": usage}), "data: [DONE]\n\n"]

    def unfinished(self, *texts: str) -> list[str]:
        return [self._words(text, "") for text in ("", *texts)]

    def failed(self, *texts: str, message: str) -> list[str]:
        error = {"message": message, "type": "server_error", "param": None, "code": None}
        return [*self.unfinished(*texts), self._data({"error": error})]

    def refusal(self, status: int, message: str) -> str:
        return json.dumps({"error": {"message": message, "type": "requests", "param": None, "code": "some_code"}})

    def asked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        messages = {message["role"]: message["content"] for message in reversed(request["messages"])}
        tools = [tool["function"] for tool in request.get("tools", ())]
        return {
            "system": messages.get("system", ""),
            "user": messages["user"],
            "model": request["model"],
            "max_tokens": request.get("max_tokens"),
            "temperature": request.get("temperature"),
            "schema": request.get("response_format", {}).get("json_schema", {}).get("schema"),
            "tools": [(tool["name"], tool["description"], tool["parameters"]) for tool in tools],
        }

    def _data(self, value: Mapping[str, Any]) -> str:
        return f"data: {_json(value)}\n\n"

    def _frame(self, model: str) -> dict[str, Any]:
        return {"id": "c_01", "object": "chat.completion.chunk", "created": 1, "model": model or self.model}

    def _chunk(self, delta: Mapping[str, Any], model: str, *, finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._data({**self._frame(model), "choices": [choice], "usage": None})

    def _words(self, text: str, model: str) -> str:
        return self._chunk({"content": text} if text else {"role": "assistant", "content": ""}, model)


class Ollama:
    """https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-chat-completion"""

    name = "ollama"
    title = "Ollama"
    model = "llama3.2"
    path = "/api/chat"

    def provider(self, url: str, **options: Any) -> llm.LLMProvider:
        return llm.provider("ollama", base_url=url, **options)

    def answer(
        self, *texts: str, calls: Sequence[ToolCall] = (), model: str = "", tokens_in: int = 25, tokens_out: int = 15,
        cached: int = 0, ended: str = "",
    ) -> list[str]:  # fmt: skip
        pieces = [self._line(model, content=text) for text in texts]
        pieces += [
            self._line(model, content="", tool_calls=[{"function": {"name": call.name, "arguments": call.arguments}}])
            for call in calls
        ]
        figures = {"total_duration": 5, "prompt_eval_count": tokens_in, "eval_count": tokens_out}
        return [*pieces, self._line(model, content="", done=True, done_reason=ended or "stop", **figures)]

    def unfinished(self, *texts: str) -> list[str]:
        return [self._line("", content=text) for text in texts]

    def failed(self, *texts: str, message: str) -> list[str]:
        return [*self.unfinished(*texts), json.dumps({"error": message}) + "\n"]

    def refusal(self, status: int, message: str) -> str:
        return json.dumps({"error": message})

    def asked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        messages = {message["role"]: message["content"] for message in reversed(request["messages"])}
        tools = [tool["function"] for tool in request.get("tools", ())]
        return {
            "system": messages.get("system", ""),
            "user": messages["user"],
            "model": request["model"],
            "max_tokens": request["options"]["num_predict"],
            "temperature": request["options"].get("temperature"),
            "schema": request.get("format"),
            "tools": [(tool["name"], tool["description"], tool["parameters"]) for tool in tools],
        }

    def _line(self, model: str, *, content: str, tool_calls: Any = None, done: bool = False, **more: Any) -> str:
        message = {"role": "assistant", "content": content} | ({"tool_calls": tool_calls} if tool_calls else {})
        frame = {"model": model or self.model, "created_at": "2026-01-01T00:00:00Z", "message": message, "done": done}
        return _json({**frame, **more}) + "\n"


def _json(value: Any) -> str:
    # As vendors write it: letters as they are.
    return json.dumps(value, ensure_ascii=False)


VENDORS: tuple[Vendor, ...] = (Anthropic(), OpenAI(), Ollama())
