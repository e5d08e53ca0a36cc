"""Langfuse, through the OTLP endpoint that it offers, with the attributes by which it knows models, tokens and cost.

Langfuse's own client is left alone: it keeps one instance for each key and takes the process's OpenTelemetry provider.
"""

from __future__ import annotations

import base64
import os

from langfuse import LangfuseOtelSpanAttributes as Name
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from openvibe import canonical
from openvibe.errors import SetupError
from openvibe.tracing import otel
from openvibe.tracing.recorder import Recorder
from openvibe.tracing.spans import Call, Span

CLOUD = "https://cloud.langfuse.com"

_TYPES = {"play": "chain", "step": "span", "call": "generation"}


class LangfuseSink(otel.OtelSink):
    """Adds Langfuse's attributes (https://langfuse.com/integrations/native/opentelemetry) to OpenTelemetry's."""

    def attributes(self, span: Span) -> otel.Attributes:
        """Return what is told of a span."""
        told: otel.Attributes = {
            **otel.general(span),
            Name.OBSERVATION_TYPE: _TYPES[span.kind],
            Name.TRACE_NAME: f"{span.play.operator_id}.{span.play.workflow_id}",
            **{f"{Name.TRACE_METADATA}.{key}": str(value) for key, value in span.play.facts.items() if key != "epoch"},
        }
        if span.error or span.status == "failed":
            told |= {Name.OBSERVATION_LEVEL: "ERROR", Name.OBSERVATION_STATUS_MESSAGE: span.error}
        if span.call:
            return told | _generation(span.call)
        if span.output is not None:
            told[Name.OBSERVATION_OUTPUT] = canonical.dumps(span.output)
        if span.kind == "play":
            # The span above a play lies outside of Langfuse; without this mark the trace would have no beginning.
            told[Name.AS_ROOT] = True
            if span.play.input is not None:
                told[Name.OBSERVATION_INPUT] = canonical.dumps(span.play.input)
        return told


def tracer(
    project: str = "", *, public_key: str | None = None, secret_key: str | None = None, base_url: str | None = None
) -> Recorder:
    """Make the tracer (called by `openvibe.tracing.tracer`); a key belongs to one of Langfuse's projects.

    Keys and address are by default those of `LANGFUSE_PUBLIC_KEY`, `LANGFUSE_SECRET_KEY` and `LANGFUSE_BASE_URL`.
    """
    public = public_key or os.environ.get("LANGFUSE_PUBLIC_KEY")
    secret = secret_key or os.environ.get("LANGFUSE_SECRET_KEY")
    if not (public and secret):
        raise SetupError("Tracing 'langfuse' needs its keys: set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY")
    address = base_url or os.environ.get("LANGFUSE_BASE_URL") or os.environ.get("LANGFUSE_HOST") or CLOUD
    headers = {
        "Authorization": f"Basic {base64.b64encode(f'{public}:{secret}'.encode()).decode()}",
        "x-langfuse-ingestion-version": "4",
    }
    endpoint = f"{address.rstrip('/')}/api/public/otel/v1/traces"
    sends = otel.exporter(endpoint, headers)
    # Whoever thins out the traces of a whole system by `traceparent` does not mean its calls to models.
    return Recorder(LangfuseSink(sends, service=project or "openvibe", sampler=ALWAYS_ON))


def _generation(call: Call) -> otel.Attributes:
    shown = [{"role": "system", "content": call.system}] if call.system else []
    asked = {
        Name.OBSERVATION_MODEL: call.answered_by or call.model,
        Name.OBSERVATION_INPUT: canonical.dumps([*shown, *(turn.as_json() for turn in call.turns)]),
    }
    if call.content is None:
        return asked
    wishes = [wish.as_json() for wish in call.tool_calls]
    answer = {"role": "assistant", "content": call.content, **({"calls": wishes} if wishes else {})}
    cost = {"total": float(call.cost_usd)} if call.cost_usd is not None else None
    return asked | {
        Name.OBSERVATION_OUTPUT: canonical.dumps(answer),
        Name.OBSERVATION_USAGE_DETAILS: canonical.dumps({"input": call.tokens_in, "output": call.tokens_out}),
        Name.OBSERVATION_COST_DETAILS: canonical.dumps(cost) if cost else None,
    }
