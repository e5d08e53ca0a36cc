"""LangSmith, through its own client, which batches in the background.

LangSmith's traces have a root, which is here the run itself: made when the run is first played, closed when it ends.
Its id and place in the trace follow from the trace, the run and the run's start, so that a later play in another
process finds it. Each play hangs below the root, with its steps and their calls.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import requests
from langsmith import Client
from urllib3 import Retry

from openvibe import canonical
from openvibe.errors import SetupError
from openvibe.tracing.recorder import Recorder
from openvibe.tracing.spans import Call, Play, Span, moment

#: How long one request may take, and for how long nobody asks after one has failed, in seconds.
TIMEOUT = 5.0
REST = 15.0

_TYPES = {"play": "chain", "step": "chain", "call": "llm"}


class LangSmithSink:
    """Writes runs in LangSmith's form (https://docs.langchain.com/langsmith/run-data-format)."""

    loggers: tuple[str, ...] = ("langsmith.client", "langsmith.utils")

    def __init__(self, client: Client, *, project: str) -> None:
        self._client, self._project = client, project

    def began(self, span: Span) -> None:
        """Make the root with the run's first play."""
        play = span.play
        if span.kind == "play" and play.input is not None:
            self._client.create_run(
                name=_title(play), run_type="chain", inputs=canonical.jsonable(dict(play.input)),
                start_time=play.started, extra={"metadata": _metadata(play)}, **self._place(span, root=True),
            )  # fmt: skip

    def ended(self, span: Span) -> None:
        """Write a span, and close the root where the run has ended."""
        self._client.create_run(
            name=_name(span), run_type=_TYPES[span.kind],  # type: ignore[arg-type]
            inputs=_inputs(span), outputs=_outputs(span), error=_error(span),
            start_time=moment(span.began), end_time=moment(span.ended), extra={"metadata": _details(span)},
            **self._place(span),
        )  # fmt: skip
        if span.kind == "play" and span.status != "waiting":
            self._client.update_run(
                run_id=run_uuid(span.play), name=_title(span.play), run_type="chain", outputs=_outputs(span),
                error=_error(span), start_time=span.play.started, end_time=moment(span.ended),
                session_name=self._project, **self._order(span, root=True),
            )  # fmt: skip

    def flush(self) -> None:
        """Send what is queued."""
        self._client.flush()

    def close(self) -> None:
        """Send what is queued and end the background threads."""
        self._client.flush()
        self._client.cleanup()

    def _place(self, span: Span, *, root: bool = False) -> dict[str, Any]:
        identity = run_uuid(span.play) if root else _uuid(span)
        return {"id": identity, "project_name": self._project, **self._order(span, root=root)}

    def _order(self, span: Span, *, root: bool) -> dict[str, Any]:
        trace_id = run_uuid(span.play)
        if root:
            return {"trace_id": trace_id, "dotted_order": _root_order(span.play)}
        above = _uuid(span.parent) if span.parent else trace_id
        return {"trace_id": trace_id, "parent_run_id": above, "dotted_order": _order(span)}


def tracer(project: str = "", *, api_key: str | None = None, api_url: str | None = None) -> Recorder:
    """Make the tracer (called by `openvibe.tracing.tracer`).

    By default key, address and project are those of `LANGSMITH_API_KEY`, `LANGSMITH_ENDPOINT` and `LANGSMITH_PROJECT`.
    """
    key = api_key or os.environ.get("LANGSMITH_API_KEY") or os.environ.get("LANGCHAIN_API_KEY")
    if not key:
        raise SetupError("Tracing 'langsmith' needs a key: set LANGSMITH_API_KEY")
    filed = project or os.environ.get("LANGSMITH_PROJECT") or "openvibe"
    client = Client(
        api_url=api_url, api_key=key, session=_Patience(), retry_config=Retry(total=1, read=0, backoff_factor=0.5)
    )
    return Recorder(LangSmithSink(client, project=filed))


def run_uuid(play: Play) -> uuid.UUID:
    """Return LangSmith's id of a run, which is also the id of its trace there.

    It is derived from trace and run together, because LangSmith's trace is one root with all below it, while one
    `traceparent` may have started several runs. The metadata bears the `traceparent`'s trace as `thread_id`, by which
    LangSmith shows such runs together.
    """
    return _uuid7(play.started, play.trace_id, play.run_id)


class _Patience(requests.Session):
    """Gives a dead receiver a rest before it is asked again.

    The client tries every batch many times and ends no process before it has; a whole queue of them, each with its
    timeouts, would hold the end up for minutes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._resting_until = 0.0

    def request(self, *args: Any, **content: Any) -> requests.Response:
        if time.monotonic() < self._resting_until:
            raise requests.ConnectionError("LangSmith did not answer a moment ago, so it is not asked now")
        try:
            return super().request(*args, **{**content, "timeout": TIMEOUT})
        except requests.RequestException:
            self._resting_until = time.monotonic() + REST
            raise


def _uuid(span: Span) -> uuid.UUID:
    return _uuid7(moment(span.began), span.play.trace_id, span.play.run_id, span.id)


def _uuid7(time: datetime, *parts: str) -> uuid.UUID:
    """Return a UUID of version 7 (RFC 9562 §5.7), as LangSmith wants them, that is always the same for these parts."""
    milliseconds = int(time.timestamp() * 1000).to_bytes(6, "big")
    chance = bytearray(hashlib.sha256("\n".join(parts).encode()).digest()[:10])
    chance[0] = 0x70 | chance[0] & 0x0F
    chance[2] = 0x80 | chance[2] & 0x3F
    return uuid.UUID(bytes=milliseconds + bytes(chance))


def _order(span: Span) -> str:
    above = _order(span.parent) if span.parent else _root_order(span.play)
    return f"{above}.{_stamp(moment(span.began))}{_uuid(span)}"


def _root_order(play: Play) -> str:
    return f"{_stamp(play.started)}{run_uuid(play)}"


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y%m%dT%H%M%S%fZ")


def _title(play: Play) -> str:
    return f"{play.operator_id}.{play.workflow_id}"


def _name(span: Span) -> str:
    if span.kind != "play":
        return span.name
    return f"play {span.play.epoch}" if span.play.epoch else "play"


def _metadata(play: Play) -> dict[str, Any]:
    return {**play.facts, "thread_id": play.trace_id}


def _details(span: Span) -> dict[str, Any]:
    told = {**_metadata(span.play), "status": span.status, "span_id": span.id}
    if span.step_id:
        told["step_id"] = span.step_id
    if span.call:
        told |= {"ls_provider": span.call.provider, "ls_model_name": span.call.answered_by or span.call.model}
    return told


def _inputs(span: Span) -> dict[str, Any]:
    if span.call is None:
        return canonical.jsonable(dict(span.play.input)) if span.kind == "play" and span.play.input else {}
    system = [{"role": "system", "content": span.call.system}] if span.call.system else []
    return {"messages": [*system, *(turn.as_json() for turn in span.call.turns)]}


def _outputs(span: Span) -> dict[str, Any] | None:
    if span.call:
        return _answer(span.call)
    if span.output is None:
        return None
    plain = canonical.jsonable(span.output)
    return plain if isinstance(plain, dict) else {"output": plain}


def _answer(call: Call) -> dict[str, Any] | None:
    if call.content is None:
        return None
    usage: dict[str, Any] = {
        "input_tokens": call.tokens_in,
        "output_tokens": call.tokens_out,
        "total_tokens": call.tokens_in + call.tokens_out,
    }
    if call.cost_usd is not None:
        usage["total_cost"] = float(call.cost_usd)
    message: dict[str, Any] = {"role": "assistant", "content": call.content}
    if call.tool_calls:
        message["calls"] = [wish.as_json() for wish in call.tool_calls]
    return {"messages": [message], "usage_metadata": usage}


def _error(span: Span) -> str | None:
    return span.error or (span.status if span.status in ("failed", "cancelled") else None)
