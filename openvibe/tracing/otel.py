"""OpenTelemetry: spans with the conventions for generative AI, sent by OTLP over HTTP.

The provider is this tracer's own, so that it neither needs nor disturbs one that the process has. What OpenTelemetry's
SDK reads from the environment (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`,
`OTEL_RESOURCE_ATTRIBUTES`, …) counts here too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from openvibe import canonical
from openvibe.llm.protocol import Turn
from openvibe.tracing.recorder import Recorder
from openvibe.tracing.spans import Call, Span

#: How long one delivery may take, in seconds, where the environment does not say.
TIMEOUT = 5.0

_ASKED_FOR_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

Attributes = dict[str, Any]


class OtelSink:
    """Turns finished spans into OpenTelemetry's, with our ids, and leaves them to a background thread of the SDK.

    Attributes follow https://opentelemetry.io/docs/specs/semconv/gen-ai/; what has no name there is `openvibe.…`.
    """

    loggers: tuple[str, ...] = (
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "opentelemetry.sdk._shared_internal",
    )

    def __init__(
        self, exporter: SpanExporter, *, service: str, content: bool = False, sampler: Sampler | None = None
    ) -> None:
        self._content = content
        self._ids = _Ids()
        self._provider = TracerProvider(
            sampler, resource=Resource.create({"service.name": service}), id_generator=self._ids
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("openvibe")

    def began(self, span: Span) -> None:
        """Nothing is sent before a span is over."""

    def ended(self, span: Span) -> None:
        """Queue a span."""
        parent = SpanContext(
            int(span.play.trace_id, 16), int(span.parent_id, 16), is_remote=span.parent is None,
            trace_flags=TraceFlags(TraceFlags.SAMPLED if span.play.sampled else TraceFlags.DEFAULT),
        )  # fmt: skip
        self._ids.next.span_id = int(span.id, 16)
        told = self._tracer.start_span(
            name(span),
            context=set_span_in_context(NonRecordingSpan(parent), Context()),
            kind=SpanKind.CLIENT if span.call else SpanKind.INTERNAL,
            attributes={key: value for key, value in self.attributes(span).items() if value is not None},
            start_time=span.began,
        )
        if span.error or span.status == "failed":
            told.set_status(Status(StatusCode.ERROR, span.error))
        told.end(span.ended)

    def flush(self) -> None:
        """Send what is queued."""
        self._provider.force_flush()

    def close(self) -> None:
        """Send what is queued and end the background thread."""
        self._provider.shutdown()

    def attributes(self, span: Span) -> Attributes:
        """Return what is told of a span."""
        return {**general(span), **(self._contents(span.call) if span.call and self._content else {})}

    def _contents(self, call: Call) -> Attributes:
        answer = Turn("assistant", call.content, call.tool_calls) if call.content is not None else None
        return {
            "gen_ai.system_instructions": canonical.dumps([_text(call.system)]) if call.system else None,
            "gen_ai.input.messages": canonical.dumps([_message(turn) for turn in call.turns]),
            "gen_ai.output.messages": canonical.dumps([_message(answer)]) if answer else None,
        }


def tracer(
    project: str = "",
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    content: bool | None = None,
) -> Recorder:
    """Make the tracer (called by `openvibe.tracing.tracer`).

    `project` is the service's name. `endpoint` is the whole address, such as `http://collector:4318/v1/traces`.
    `content` tells whether prompts and answers go along; by default they do only where the environment sets
    `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`, as the conventions ask for.
    """
    if content is None:
        content = os.environ.get(_ASKED_FOR_CONTENT, "").lower() not in ("", "false", "no_content")
    service = project or os.environ.get("OTEL_SERVICE_NAME") or "openvibe"
    return Recorder(OtelSink(exporter(endpoint, headers), service=service, content=content))


def exporter(endpoint: str | None, headers: Mapping[str, str] | None) -> SpanExporter:
    """Make what sends spans; a timeout that the environment sets goes first."""
    set_outside = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT") or os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT")
    return OTLPSpanExporter(endpoint=endpoint, headers=headers, timeout=None if set_outside else TIMEOUT)


def name(span: Span) -> str:
    """Return a span's name, as the conventions for generative AI make it."""
    if span.kind == "play":
        return f"invoke_workflow {span.play.workflow_id}"
    return f"chat {span.name}" if span.call else span.name


def general(span: Span) -> Attributes:
    """Return what is told of a span but for contents."""
    facts: Attributes = {f"openvibe.{key}": value for key, value in span.play.facts.items() if key != "traceparent"}
    told: Attributes = {
        **facts,
        "openvibe.status": span.status,
        "gen_ai.agent.id": span.play.operator_id,
        "gen_ai.conversation.id": span.play.run_id,
        "error.type": span.error_type or ("failed" if span.error else None),
    }
    if span.kind == "play":
        return told | {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": span.play.workflow_id}
    told |= {"openvibe.node": span.name if span.kind == "step" else None, "openvibe.step_id": span.step_id}
    return told | (_called(span.call) if span.call else {})


def _called(call: Call) -> Attributes:
    asked = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": call.provider,
        "gen_ai.request.model": call.model,
    }
    if call.content is None:
        return asked
    return asked | {
        "gen_ai.response.model": call.answered_by or call.model,
        "gen_ai.usage.input_tokens": call.tokens_in,
        "gen_ai.usage.output_tokens": call.tokens_out,
        "openvibe.cost_usd": None if call.cost_usd is None else float(call.cost_usd),
    }


def _message(turn: Turn) -> dict[str, Any]:
    """Return a turn in the form of the conventions' JSON schemas for messages."""
    if turn.role == "tool":
        return {"role": "tool", "parts": [{"type": "tool_call_response", "id": turn.call_id, "response": turn.content}]}
    calls = [{"type": "tool_call", **call.as_json()} for call in turn.calls]
    return {"role": turn.role, "parts": [*([_text(turn.content)] if turn.content else []), *calls]}


def _text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}


class _Ids(RandomIdGenerator):
    """Gives the next span of this thread the id that was laid ready for it."""

    def __init__(self) -> None:
        self.next = threading.local()

    def generate_span_id(self) -> int:
        ready: int | None = self.next.__dict__.pop("span_id", None)
        return ready or super().generate_span_id()
