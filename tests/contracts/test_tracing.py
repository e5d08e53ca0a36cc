# long: one contract, the same for every tracing service, read from top to bottom
"""What tracing promises, with each vendor's real package, at a local receiver that decodes what really arrives."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from openvibe import OperatorRuntime, configure, human_in_the_loop, llm_node, node, operator, trace, tracing, workflow
from openvibe.configuration import current, restore
from openvibe.errors import SetupError
from openvibe.llm.protocol import ToolCall, Turn
from openvibe.tracing import NoTracer, RunTrace, Tracer
from openvibe.tracing.recorder import Recorder
from tests.threads import serving

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
STARTED = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SOON = 10.0
RECORDER = "openvibe.tracing.recorder"

Attributes = dict[str, Any]


@dataclass
class Seen:
    """A span as it arrived, in no vendor's words."""

    name: str
    id: str
    parent: str
    trace: str
    failed: str = ""
    tokens: tuple[int, int] | None = None
    began: float = 0.0
    ended: float = 0.0
    told: Attributes = field(default_factory=dict)


class Receiver(ThreadingHTTPServer):
    """Takes OTLP over HTTP (also at Langfuse's path) and LangSmith's multipart, and keeps what it decoded."""

    daemon_threads = True

    def __init__(self, *, compression: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.compression = compression
        self.otlp: list[Seen] = []
        self.resources: list[Attributes] = []
        self.runs: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_GET(self) -> None:
        flags = {"zstd_compression_enabled": self.server.compression}
        self._answer(json.dumps({"version": "0.18.0", "instance_flags": flags}).encode())

    def do_POST(self) -> None:
        body = self._body()
        match self.headers.get("content-encoding"):
            case "gzip":
                body = gzip.decompress(body)
            case "zstd":
                body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        self.server.paths.append(self.path)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.path.endswith("/v1/traces"):
            self._take_spans(ExportTraceServiceRequest.FromString(body))
        else:
            self._take_runs(body)
        self._answer(b"")

    def log_message(self, *_: Any) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers["content-length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _take_spans(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            self.server.resources.append(_attributes(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.server.otlp.extend(map(_seen, scope.spans))

    def _take_runs(self, body: bytes) -> None:
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        whole: dict[tuple[str, str], dict[str, Any]] = {}
        for part in message_from_bytes(head + body).get_payload():
            assert not isinstance(part, str)
            name = part.get_param("name", header="content-disposition")
            assert isinstance(name, str)
            act, identity, *rest = name.split(".")
            value = json.loads(part.get_payload(decode=True))  # type: ignore[arg-type]
            run = whole.setdefault((act, identity), {})
            run.update({rest[0]: value} if rest else value)
        self.server.runs.extend((act, run) for (act, _), run in whole.items())


def _seen(span: Any) -> Seen:
    told = _attributes(span.attributes)
    tokens = told.get("gen_ai.usage.input_tokens")
    return Seen(
        span.name, span.span_id.hex(), span.parent_span_id.hex(), span.trace_id.hex(),
        failed=span.status.message if span.status.code == Status.STATUS_CODE_ERROR else "",
        tokens=None if tokens is None else (tokens, told["gen_ai.usage.output_tokens"]),
        began=span.start_time_unix_nano / 1e9, ended=span.end_time_unix_nano / 1e9, told=told,
    )  # fmt: skip


def _attributes(pairs: Any) -> Attributes:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def _runs_seen(receiver: Receiver) -> list[Seen]:
    """LangSmith's runs but for roots, which are the runs themselves and not plays of them."""
    found = []
    for act, run in receiver.runs:
        usage = (run.get("outputs") or {}).get("usage_metadata")
        if act == "post" and run.get("parent_run_id"):
            found.append(Seen(
                run["name"], run["id"], run["parent_run_id"], run["trace_id"], failed=run.get("error") or "",
                tokens=usage and (usage["input_tokens"], usage["output_tokens"]),
                began=datetime.fromisoformat(run["start_time"]).timestamp(),
                ended=datetime.fromisoformat(run["end_time"]).timestamp(), told=run,
            ))  # fmt: skip
    return found


@dataclass
class Vendor:
    """One tracing service: how its tracer is made, and where its spans are found."""

    name: str
    options: Callable[[str], dict[str, Any]]

    def tracer(self, url: str, **more: Any) -> Tracer:
        return tracing.tracer(self.name, "my-ops", **self.options(url), **more)

    def seen(self, receiver: Receiver) -> list[Seen]:
        return _runs_seen(receiver) if self.name == "langsmith" else receiver.otlp


VENDORS = [
    Vendor("otel", lambda url: {"endpoint": f"{url}/v1/traces"}),
    Vendor("langfuse", lambda url: {"public_key": "pk-1", "secret_key": "sk-1", "base_url": url}),
    Vendor("langsmith", lambda url: {"api_key": "ls-1", "api_url": url}),
]
OTEL, LANGFUSE, LANGSMITH = VENDORS
everywhere = pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY", "LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_fault_is_kept_from_the_test(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record.exc_info for record in caplog.get_records("call") if record.name == RECORDER]


@pytest.fixture(params=[True], ids=["compressed"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with serving(Receiver(compression=request.param)) as server:
        yield server


def begin(tracer: Tracer, **changed: Any) -> RunTrace:
    facts: dict[str, Any] = {
        "run_id": "run_1", "operator_id": "revenue_ops", "workflow_id": "lead_qualification",
        "input": {"contact_id": "101"}, "traceparent": TRACEPARENT, "started": STARTED, "epoch": 1,
    }  # fmt: skip
    return tracer.run(**{**facts, **changed})


def ask(step: tracing.StepTrace, *, tokens: tuple[int, int] = (25, 15), cost: str | None = "0.0042") -> None:
    with step.call(model="claude-haiku-4-5", provider="anthropic", system="Be brief.", user="Score it.") as call:
        call.answered(
            "81", tokens_in=tokens[0], tokens_out=tokens[1], cost_usd=Decimal(cost) if cost else None,
            model="claude-haiku-4-5-20251001",
        )  # fmt: skip


def played(tracer: Tracer, receiver: Receiver, vendor: Vendor) -> dict[str, Seen]:
    """Play a run with one step and one call, and return what arrived: the play, the step, the call."""
    run = begin(tracer)
    with run.step("score", "step-1") as step:
        ask(step)
        step.finished({"score": 81})
    run.end("completed", output={"score": 81})
    tracer.close(SOON)
    call, score, play = sorted(vendor.seen(receiver), key=lambda seen: seen.began, reverse=True)
    return {"play": play, "step": score, "call": call}


@everywhere
def test_a_play_holds_its_steps_and_a_step_its_calls(vendor: Vendor, receiver: Receiver) -> None:
    seen = played(vendor.tracer(receiver.url), receiver, vendor)
    assert seen["step"].name == "score"
    assert seen["call"].parent == seen["step"].id
    assert seen["step"].parent == seen["play"].id
    assert seen["call"].name.endswith("claude-haiku-4-5")
    assert len({span.trace for span in seen.values()}) == 1
    assert seen["play"].began <= seen["step"].began <= seen["call"].began
    assert seen["call"].ended <= seen["step"].ended <= seen["play"].ended


@everywhere
def test_tokens_arrive_with_the_call(vendor: Vendor, receiver: Receiver) -> None:
    seen = played(vendor.tracer(receiver.url), receiver, vendor)
    assert seen["call"].tokens == (25, 15)
    assert seen["play"].tokens is None


@everywhere
def test_all_plays_of_a_run_join_one_trace_whoever_plays_them(vendor: Vendor, receiver: Receiver) -> None:
    first = vendor.tracer(receiver.url)
    run = begin(first)
    with run.step("score", "step-1"):
        pass
    run.end("waiting")
    first.close(SOON)
    later = vendor.tracer(receiver.url)
    run = begin(later, input=None, epoch=2)
    with run.step("send", "step-2"):
        pass
    run.end("completed")
    later.close(SOON)
    seen = vendor.seen(receiver)
    assert len({span.trace for span in seen}) == 1
    plays = [span for span in seen if span.name not in ("score", "send")]
    assert len({span.id for span in seen}) == 4
    assert len({span.parent for span in plays}) == 1, "both plays hang at the same place"


@pytest.mark.parametrize("vendor", [OTEL, LANGFUSE], ids=lambda vendor: vendor.name)
def test_the_trace_is_the_one_that_traceparent_names(vendor: Vendor, receiver: Receiver) -> None:
    seen = played(vendor.tracer(receiver.url), receiver, vendor)
    assert {span.trace for span in seen.values()} == {TRACE}
    assert seen["play"].parent == PARENT


@everywhere
def test_ids_follow_from_run_epoch_and_step(vendor: Vendor, receiver: Receiver) -> None:
    def ids(**changed: Any) -> list[str]:
        known = len(vendor.seen(receiver))
        tracer = vendor.tracer(receiver.url)
        run = begin(tracer, **changed)
        with run.step("score", "step-1"), run.step("score", "step-1"):
            pass
        run.end("completed")
        tracer.close(SOON)
        fresh = vendor.seen(receiver)[known:]
        # LangSmith's ids hold the time, as it wants them; there ours goes along as metadata.
        return [span.told.get("extra", {}).get("metadata", {}).get("span_id", span.id) for span in fresh]

    first = ids()
    assert len(set(first)) == 3, "two tries of a step are two spans"
    assert set(ids()) == set(first)
    assert not set(ids(epoch=2)) & set(first)
    assert not set(ids(run_id="run_2")) & set(first)
    assert set(ids(epoch=0)) != set(ids(epoch=0)), "without an epoch they are chosen by chance"


@everywhere
def test_a_failure_arrives_and_reaches_the_caller(vendor: Vendor, receiver: Receiver) -> None:
    tracer = vendor.tracer(receiver.url)
    run = begin(tracer)
    asked = {"model": "m", "provider": "anthropic", "system": "", "user": "?"}
    with pytest.raises(ZeroDivisionError), run.step("score", "step-1") as step, step.call(**asked):
        raise ZeroDivisionError("no divisor")
    run.end("failed", error="Node 'score' failed")
    tracer.close(SOON)
    assert sorted(span.failed for span in vendor.seen(receiver)) == [
        "Node 'score' failed", "no divisor", "no divisor"
    ]  # fmt: skip
    assert {span.tokens for span in vendor.seen(receiver)} == {None}


class Pause(Exception):
    """What a gate raises."""


@everywhere
def test_waiting_is_no_failure(vendor: Vendor, receiver: Receiver) -> None:
    tracer = vendor.tracer(receiver.url)
    run = begin(tracer)
    with pytest.raises(Pause), run.step("approve", "step-1", pauses=(Pause,)):
        raise Pause
    run.end("waiting")
    tracer.close(SOON)
    assert [span.failed for span in vendor.seen(receiver)] == ["", ""]


@everywhere
def test_a_play_ends_once(vendor: Vendor, receiver: Receiver) -> None:
    tracer = vendor.tracer(receiver.url)
    run = begin(tracer)
    run.end("completed")
    run.end("failed", error="too late")
    tracer.close(SOON)
    assert [span.failed for span in vendor.seen(receiver)] == [""]


@everywhere
def test_a_trace_that_makes_no_sense_is_replaced(vendor: Vendor, receiver: Receiver) -> None:
    tracer = vendor.tracer(receiver.url)
    begin(tracer, traceparent="00-none").end("completed")
    tracer.close(SOON)
    [span] = vendor.seen(receiver)
    assert len(span.trace.replace("-", "")) == 32


@everywhere
def test_runs_of_many_threads_do_not_mix(vendor: Vendor, receiver: Receiver) -> None:
    tracer = vendor.tracer(receiver.url)

    def play(number: int) -> None:
        run = begin(tracer, run_id=f"run_{number}", traceparent=f"00-{number:032x}-{PARENT}-01")
        for step in range(3):
            with run.step(f"n{number}", f"step-{step}") as taken:
                ask(taken, tokens=(number, step))
        run.end("completed")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(play, range(1, 17)))
    tracer.close(SOON)
    seen = {span.id: span for span in vendor.seen(receiver)}
    assert len(seen) == 16 * 7
    for span in seen.values():
        if span.tokens:
            above = seen[span.parent]
            assert above.name == f"n{span.tokens[0]}"
            assert above.trace == span.trace


@everywhere
def test_flush_delivers_and_the_tracer_goes_on(vendor: Vendor, receiver: Receiver) -> None:
    tracer = vendor.tracer(receiver.url)
    begin(tracer).end("completed")
    tracer.flush(SOON)
    assert len(vendor.seen(receiver)) == 1
    begin(tracer, run_id="run_2").end("completed")
    tracer.close(SOON)
    assert len(vendor.seen(receiver)) == 2


@everywhere
def test_values_that_json_does_not_know_do_no_harm(vendor: Vendor, receiver: Receiver) -> None:
    tracer = vendor.tracer(receiver.url)
    run = begin(tracer, input={"when": STARTED, "odd": object(), "nul": "a\0b", "big": 2**70})
    with run.step("score", "step-1") as step:
        step.finished({"share": float("nan"), "what": {1, 2}})
    run.end("completed", output=[Decimal("1.5")])
    tracer.close(SOON)
    assert len(vendor.seen(receiver)) == 2


@everywhere
@pytest.mark.parametrize("kind", ["refuses", "is silent"])
def test_a_dead_receiver_neither_disturbs_nor_slows_the_run(
    vendor: Vendor, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Receiver() as silent:  # listens, and never answers, because nothing serves it
        url = "http://127.0.0.1:9" if kind == "refuses" else silent.url
        tracer = vendor.tracer(url)
        begun = time.perf_counter()
        for number in range(100):
            run = begin(tracer, run_id=f"run_{number}")
            with run.step("score", "step-1") as step:
                ask(step)
            run.end("completed")
        assert time.perf_counter() - begun < 2.0, "a run is not slowed (300 spans)"
        begun = time.perf_counter()
        tracer.flush(0.5)
        tracer.close(0.5)
        assert time.perf_counter() - begun < 2.0
    complaints = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(complaints) < 10, [record.getMessage() for record in complaints]


class Broken:
    """A sink that fails at everything."""

    loggers: tuple[str, ...] = ()

    def began(self, span: Any) -> None:
        raise RuntimeError("broken")

    ended = began

    def flush(self) -> None:
        raise RuntimeError("broken")

    close = flush


def test_a_fault_of_tracing_is_logged_once_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    tracer = Recorder(Broken())
    run = begin(tracer)
    with run.step("score", "step-1") as step:
        ask(step)
    run.end("completed")
    tracer.flush()
    tracer.close()
    [record] = [record for record in caplog.records if record.name == RECORDER]
    assert "Tracing fails" in record.getMessage()
    caplog.clear()


def test_open_telemetry_gets_the_conventions_for_generative_ai(receiver: Receiver) -> None:
    seen = played(OTEL.tracer(receiver.url), receiver, OTEL)
    call, play = seen["call"], seen["play"]
    assert (play.name, call.name) == ("invoke_workflow lead_qualification", "chat claude-haiku-4-5")
    assert call.told["gen_ai.operation.name"] == "chat"
    assert call.told["gen_ai.provider.name"] == "anthropic"
    assert call.told["gen_ai.request.model"] == "claude-haiku-4-5"
    assert call.told["gen_ai.response.model"] == "claude-haiku-4-5-20251001"
    assert call.told["gen_ai.conversation.id"] == "run_1"
    assert call.told["openvibe.cost_usd"] == pytest.approx(0.0042)
    assert play.told["gen_ai.workflow.name"] == "lead_qualification"
    assert play.told["openvibe.status"] == "completed"
    assert seen["step"].told["openvibe.step_id"] == "step-1"
    assert receiver.resources[0]["service.name"] == "my-ops"


def test_whoever_is_asked_inside_a_call_goes_on_in_the_calls_span(receiver: Receiver) -> None:
    tracer = OTEL.tracer(receiver.url)
    run = begin(tracer)
    with run.step("score", "step-1") as step, step.call(model="haiku", provider="anthropic", system="", user="?"):
        asked_in = trace.current()
    run.end("completed")
    tracer.close(SOON)
    [call] = [span for span in OTEL.seen(receiver) if span.name.startswith("chat")]
    assert asked_in == f"00-{TRACE}-{call.id}-{TRACEPARENT[-2:]}"
    assert trace.current() == ""


def test_an_unknown_cost_is_not_told_as_zero(receiver: Receiver) -> None:
    tracer = OTEL.tracer(receiver.url)
    run = begin(tracer)
    with run.step("score", "step-1") as step:
        ask(step, cost=None)
    run.end("completed")
    tracer.close(SOON)
    assert not any("openvibe.cost_usd" in span.told for span in receiver.otlp)


def converse(tracer: Tracer) -> None:
    wish = ToolCall("call_1", "search", {"for": "Acme"})
    history = (Turn("assistant", "", (wish,)), Turn("tool", "Acme makes anvils", call_id="call_1"))
    run = begin(tracer)
    asked: dict[str, Any] = {"model": "m", "provider": "openai", "system": "Be brief.", "user": "Who?"}
    with run.step("agent", "step-1") as step, step.call(**asked, history=history) as call:
        call.answered("Anvils", tokens_in=1, tokens_out=1, cost_usd=None, tool_calls=(wish,))
    run.end("completed")
    tracer.close(SOON)


def test_open_telemetry_gets_no_contents_unless_somebody_asks(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    converse(OTEL.tracer(receiver.url))
    assert "Acme" not in str(receiver.otlp)
    assert "Be brief" not in str(receiver.otlp)
    receiver.otlp.clear()
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    converse(OTEL.tracer(receiver.url))
    call = receiver.otlp[0].told
    assert json.loads(call["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief."}]
    wish = {"type": "tool_call", "id": "call_1", "name": "search", "arguments": {"for": "Acme"}}
    assert json.loads(call["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "Who?"}]},
        {"role": "assistant", "parts": [wish]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "Acme makes anvils"}]},
    ]
    assert json.loads(call["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Anvils"}, wish]}
    ]


def test_open_telemetry_leaves_out_what_its_caller_does_not_sample(receiver: Receiver) -> None:
    tracer = OTEL.tracer(receiver.url)
    begin(tracer, traceparent=f"00-{TRACE}-{PARENT}-00").end("completed")
    begin(tracer, run_id="run_2").end("completed")
    tracer.close(SOON)
    assert [span.told["openvibe.run_id"] for span in receiver.otlp] == ["run_2"]


def test_open_telemetry_finds_its_collector_in_the_environment(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=ops")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-outside")
    tracer = tracing.tracer("otel")
    begin(tracer).end("completed")
    tracer.close(SOON)
    assert receiver.paths == ["/v1/traces"]
    assert receiver.headers[0]["x-team"] == "ops"
    assert receiver.resources[0]["service.name"] == "from-outside"


def test_langfuse_gets_generations_with_contents_tokens_and_cost(receiver: Receiver) -> None:
    seen = played(LANGFUSE.tracer(receiver.url), receiver, LANGFUSE)
    call, play = seen["call"].told, seen["play"].told
    assert receiver.paths == ["/api/public/otel/v1/traces"]
    assert receiver.headers[0]["authorization"] == f"Basic {base64.b64encode(b'pk-1:sk-1').decode()}"
    assert call["langfuse.observation.type"] == "generation"
    assert call["langfuse.observation.model.name"] == "claude-haiku-4-5-20251001"
    assert json.loads(call["langfuse.observation.usage_details"]) == {"input": 25, "output": 15}
    assert json.loads(call["langfuse.observation.cost_details"]) == {"total": 0.0042}
    assert [item["content"] for item in json.loads(call["langfuse.observation.input"])] == ["Be brief.", "Score it."]
    assert json.loads(call["langfuse.observation.output"])["content"] == "81"
    assert play["langfuse.trace.name"] == "revenue_ops.lead_qualification"
    assert play["langfuse.internal.as_root"] is True
    assert json.loads(play["langfuse.observation.input"]) == {"contact_id": "101"}
    assert json.loads(play["langfuse.observation.output"]) == {"score": 81}
    assert json.loads(seen["step"].told["langfuse.observation.output"]) == {"score": 81}


def test_langfuse_gets_every_run_whatever_its_caller_samples(receiver: Receiver) -> None:
    tracer = LANGFUSE.tracer(receiver.url)
    begin(tracer, traceparent=f"00-{TRACE}-{PARENT}-00").end("failed", error="no")
    tracer.close(SOON)
    [span] = receiver.otlp
    assert span.told["langfuse.observation.level"] == "ERROR"
    assert span.told["langfuse.observation.status_message"] == "no"


@pytest.mark.parametrize("receiver", [True, False], indirect=True, ids=["compressed", "plain"])
def test_langsmith_gets_a_root_for_the_run_with_its_plays_below(receiver: Receiver) -> None:
    tracer = LANGSMITH.tracer(receiver.url)
    begin(tracer, run_id="run_0").end("completed")
    tracer.flush(SOON)  # by then the client knows whether the receiver takes compressed bodies
    receiver.runs.clear()
    seen = played(tracer, receiver, LANGSMITH)
    assert set(receiver.paths) == {"/runs/multipart"}
    assert receiver.headers[-1]["x-api-key"] == "ls-1"
    assert receiver.headers[-1].get("content-encoding") == ("zstd" if receiver.compression else None)
    roots = [(act, run) for act, run in receiver.runs if not run.get("parent_run_id")]
    root: dict[str, Any] = {}
    for _, part in roots:
        root |= {name: value for name, value in part.items() if value is not None}
    assert root["id"] == root["trace_id"] == seen["play"].parent == seen["call"].trace
    assert root["name"] == "revenue_ops.lead_qualification"
    assert root["session_name"] == "my-ops"
    assert (root["inputs"], root["outputs"]) == ({"contact_id": "101"}, {"score": 81})
    assert datetime.fromisoformat(root["start_time"]) == STARTED
    assert root["extra"]["metadata"]["thread_id"] == TRACE
    assert root["extra"]["metadata"]["traceparent"] == TRACEPARENT
    call = seen["call"].told
    assert call["run_type"] == "llm"
    assert call["extra"]["metadata"]["ls_model_name"] == "claude-haiku-4-5-20251001"
    assert [item["content"] for item in call["inputs"]["messages"]] == ["Be brief.", "Score it."]
    assert call["outputs"]["messages"][0]["content"] == "81"
    assert call["outputs"]["usage_metadata"]["total_cost"] == pytest.approx(0.0042)


def test_langsmith_gets_an_order_that_leads_from_the_root_to_each_span(receiver: Receiver) -> None:
    seen = played(LANGSMITH.tracer(receiver.url), receiver, LANGSMITH)
    path = seen["call"].told["dotted_order"].split(".")
    assert [part.split("Z")[1] for part in path] == [
        seen["play"].parent, seen["play"].id, seen["step"].id, seen["call"].id
    ]  # fmt: skip
    assert path[0].startswith("20260301T120000123456Z")
    assert seen["step"].told["dotted_order"] == ".".join(path[:3])
    assert seen["call"].id[14] == "7", "LangSmith wants UUIDs of version 7"


def test_langsmith_makes_the_root_once_and_closes_it_when_the_run_ends(receiver: Receiver) -> None:
    tracer = LANGSMITH.tracer(receiver.url)
    begin(tracer).end("waiting")
    tracer.flush(SOON)
    [root] = [run for _, run in receiver.runs if not run.get("parent_run_id")]
    assert root.get("end_time") is None
    tracer.close(SOON)
    receiver.runs.clear()
    later = LANGSMITH.tracer(receiver.url)
    begin(later, input=None, epoch=2).end("completed", output={"score": 81})
    later.close(SOON)
    [(act, closed)] = [(act, run) for act, run in receiver.runs if not run.get("parent_run_id")]
    assert act == "patch"
    assert (closed["id"], closed["dotted_order"]) == (root["id"], root["dotted_order"])
    assert closed["outputs"] == {"score": 81}
    assert closed["end_time"]


def test_two_runs_of_one_trace_are_two_roots_in_langsmith(receiver: Receiver) -> None:
    tracer = LANGSMITH.tracer(receiver.url)
    begin(tracer).end("completed")
    begin(tracer, run_id="run_2", started=STARTED + timedelta(seconds=1)).end("completed")
    tracer.close(SOON)
    roots = [run for _, run in receiver.runs if not run.get("parent_run_id")]
    assert len({run["id"] for run in roots}) == 2
    assert {run["extra"]["metadata"]["thread_id"] for run in roots if run.get("extra")} == {TRACE}


def test_no_tracer_costs_nothing() -> None:
    tracer = tracing.tracer("none", "my-ops")
    assert isinstance(tracer, NoTracer)

    def play() -> None:
        run = begin(tracer)
        with run.step("score", "step-1") as step:
            ask(step)
            step.finished({})
        run.end("completed")

    play()
    tracemalloc.start()
    for _ in range(100):
        play()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 10_000
    with pytest.raises(ZeroDivisionError), begin(tracer).step("score", "step-1"):
        raise ZeroDivisionError
    tracer.flush()
    tracer.close()


def test_no_tracer_needs_no_vendor() -> None:
    program = (
        "import sys, openvibe.tracing as t; t.NoTracer(); t.tracer('none');"
        "sys.exit(any(name.split('.')[0] in ('opentelemetry', 'langfuse', 'langsmith') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("name", ["langfuse", "langsmith"])
def test_a_missing_key_is_told(name: str) -> None:
    with pytest.raises(SetupError, match=f"{name.upper()}.*_KEY"):
        tracing.tracer(name)


def test_an_unknown_tracer_is_told() -> None:
    with pytest.raises(SetupError, match="'datadog'; use one of: none, otel, langfuse, langsmith"):
        tracing.tracer("datadog")


@everywhere
def test_a_missing_package_is_told_with_its_remedy(vendor: Vendor) -> None:
    program = (
        f"import sys; sys.modules.update(opentelemetry=None, langfuse=None, langsmith=None)\n"
        f"from openvibe import tracing\n"
        f"try: tracing.tracer({vendor.name!r})\n"
        f"except tracing.SetupError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", program], check=False, timeout=60, capture_output=True, text=True)
    assert f"pip install openvibe[{vendor.name}]" in told.stdout, told.stderr


@operator(id="desk")
class Desk:
    letter: str = ""
    sent: bool = False

    @workflow(id="write")
    class Write:
        @llm_node(model="haiku")
        def draft(self, state):
            return {"system": "You write.", "user": "Write a letter.", "output_key": "letter"}

        @human_in_the_loop(prompt="Send?")
        def review(self, state):
            return {"letter": state["letter"]}

        @node
        def send(self, state):
            return {"sent": True}

    @workflow(id="fall")
    class Fall:
        @node
        def fall(self, state):
            raise ValueError("broken")


@pytest.fixture
def traced(vendor: Vendor, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[OperatorRuntime]:
    """A runtime that finds its tracer as a script's author would have it."""
    url = receiver.url
    for name, value in {
        "OTEL_EXPORTER_OTLP_ENDPOINT": url, "LANGFUSE_PUBLIC_KEY": "pk-1", "LANGFUSE_SECRET_KEY": "sk-1",
        "LANGFUSE_BASE_URL": url, "LANGSMITH_API_KEY": "ls-1", "LANGSMITH_ENDPOINT": url,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    before = current()
    configure(tracing=vendor.name, tracing_project="my-ops")
    with OperatorRuntime() as runtime:
        runtime.register(Desk)
        yield runtime
    restore(before)


@everywhere
def test_a_run_arrives_with_its_steps_and_calls_across_its_gate(
    vendor: Vendor, receiver: Receiver, traced: OperatorRuntime
) -> None:
    run = traced.activate("desk", "write")
    run = traced.resume(run.id, "approve")
    assert run.status == "completed"
    traced.close()
    seen = vendor.seen(receiver)
    by_name = {span.name: span for span in seen}
    call = next(span for span in seen if "haiku" in span.name)
    assert call.parent == by_name["draft"].id
    assert (call.tokens or (0, 0))[0] > 0
    assert {"draft", "review", "send"} <= set(by_name)
    assert not [span.failed for span in seen if span.failed]
    assert len({span.trace for span in seen}) == 1


@everywhere
def test_a_step_that_breaks_arrives_as_failed(vendor: Vendor, receiver: Receiver, traced: OperatorRuntime) -> None:
    assert traced.activate("desk", "fall").status == "failed"
    traced.close()
    [step] = [span for span in vendor.seen(receiver) if span.name == "fall"]
    assert "broken" in step.failed
