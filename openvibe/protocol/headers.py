"""Headers of `cmd` and `evt` messages: the trace, and who sent what when."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

from openvibe.protocol import subjects

SENDER = "openvibe"
# A trace or a parent of zeros only is invalid (W3C Trace Context §3.2.2).
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def stamped(kind: str, *, message_id: str, traceparent: str = "", depth: int = 0) -> dict[str, str]:
    """Return the headers of a message of ours; a missing trace is begun."""
    return {
        "Nats-Msg-Id": message_id,
        "traceparent": traceparent if valid(traceparent) else new_trace(),
        "CG-Timestamp": datetime.now(UTC).isoformat(),
        "CG-Version": subjects.VERSION,
        "CG-Msg-Type": kind,
        "CG-Sender": SENDER,
        "CG-Recursion-Depth": str(depth),
    }


def new_trace() -> str:
    """Begin a trace (W3C Trace Context §3.2)."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def trace_of(name: str) -> str:
    """Return the trace that always belongs to this name, where there is no place to keep one."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


def valid(traceparent: str) -> bool:
    """Tell whether this is a usable `traceparent`."""
    return bool(_TRACEPARENT.fullmatch(traceparent))


def traceparent(headers: Mapping[str, str] | None) -> str:
    """Return the trace that a message belongs to, or an empty text."""
    text = (headers or {}).get("traceparent", "")
    return text if valid(text) else ""


def depth(headers: Mapping[str, str] | None) -> int:
    """Return how many runs a message's run is below the first one; 0 where nobody said, or said it wrongly."""
    text = (headers or {}).get("CG-Recursion-Depth", "")
    return int(text) if text.isdecimal() and len(text) < 6 else 0
