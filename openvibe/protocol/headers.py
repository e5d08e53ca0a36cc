"""Headers of `cmd` and `evt` messages: the trace, and who sent what when."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from openvibe.protocol import subjects
from openvibe.protocol.envelope import ProtocolViolation, TooDeep

SENDER = "openvibe"
DEPTH = "CG-Recursion-Depth"
#: How many runs stand above one another at most, each started by the one above it.
MOST_DEPTH = 20
TRACESTATE = "tracestate"
#: What goes on, as the trace does, in everything that follows from a message.
PASSED_ON = ("CG-User-ID", "CG-Channel-ID", "CG-Context-ID")
#: How long one of these may be; as much of a `tracestate` has to be passed on (W3C Trace Context §3.3.1.5).
LONGEST_PASSED_ON, LONGEST_TRACESTATE = 200, 512
# One entry of a `tracestate`, or none (W3C Trace Context §3.3.1.3).
_ENTRY = re.compile(
    r"[ \t]*(?:[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])?[ \t]*"
)
# A trace or a parent of zeros only is invalid (W3C Trace Context §3.2.2).
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def stamped(
    kind: str,
    *,
    message_id: str,
    traceparent: str = "",
    depth: int = 0,
    sender: str = SENDER,
    passed_on: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Return the headers of a message of ours; a missing trace is begun. `passed_on` is what `passed_on` has found."""
    return {
        **passed_on,
        "Nats-Msg-Id": message_id,
        "traceparent": traceparent if valid(traceparent) else new_trace(),
        "CG-Timestamp": datetime.now(UTC).isoformat(),
        "CG-Version": subjects.VERSION,
        "CG-Msg-Type": kind,
        "CG-Sender": sender,
        DEPTH: str(depth),
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


def passed_on(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return those headers that go on in whatever follows from a message; one that is too long or unfit is left out.

    A `tracestate` belongs to its `traceparent`, and goes nowhere without it.
    """
    given = headers or {}
    found = {name: text for name in PASSED_ON if _fits(text := given.get(name, ""))}
    state = given.get(TRACESTATE, "")
    return found | ({TRACESTATE: state} if traceparent(given) and _is_state(state) else {})


def depth(headers: Mapping[str, str] | None) -> int:
    """Return how many runs a message's run is below the first one; 0 where nobody said, or said it wrongly."""
    text = (headers or {}).get(DEPTH, "")
    return int(text) if _natural(text) else 0


def required_depth(headers: Mapping[str, str] | None) -> int:
    """Return the same of a message that may start runs, which must say it.

    Raises:
        ProtocolViolation: the header is missing, or no natural number.
        TooDeep: it has come to `MOST_DEPTH`.
    """
    text = (headers or {}).get(DEPTH)
    if text is None:
        raise ProtocolViolation(f"{DEPTH} is missing: 0 where nobody started you, else the depth of your run")
    if not _natural(text):
        raise ProtocolViolation(f"{DEPTH}: {text!r} is no natural number")
    if int(text) >= MOST_DEPTH:
        raise TooDeep(
            f"{DEPTH} is {text}, {MOST_DEPTH} is where a chain ends: break the circle in which runs start runs"
        )
    return int(text)


def misplaced(body: Mapping[str, Any]) -> list[str]:
    """Return the keys of a body and of its payload that belong into headers."""
    payload = body.get("payload")
    keys = [*body, *(payload if isinstance(payload, dict) else ())]
    return sorted({key for key in keys if key[:3].upper() == "CG-"})


def _fits(text: str) -> bool:
    return 0 < len(text) <= LONGEST_PASSED_ON and text.isprintable() and text.strip() == text


def _is_state(text: str) -> bool:
    entries = text.split(",")
    return (
        bool(text.strip())
        and len(text) <= LONGEST_TRACESTATE
        and len(entries) <= 32
        and all(map(_ENTRY.fullmatch, entries))
    )


def _natural(text: str) -> bool:
    # Python reads digits of any script; the wire has those of ASCII.
    return text.isascii() and text.isdecimal() and len(text) < 6
