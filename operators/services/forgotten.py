"""Waits whose questions the bus keeps no longer: whoever was away for so long has never heard them, and is asked again.

It is the same message as before, so that whoever has heard it knows it by its id.
"""

from __future__ import annotations

from datetime import datetime

from openvibe.protocol.streams import STREAMS
from openvibe.protocol.subjects import VERSION
from operators.models import Wait

_KEPT = {stream.name: stream.max_age for stream in STREAMS}
#: Which stream keeps the question, or, where nothing keeps that, the answer.
_STREAMS = {
    Wait.Kind.TOOL: f"cg_cmd_{VERSION}",
    Wait.Kind.REPLY: f"cg_cmd_{VERSION}",
    Wait.Kind.WORK: "sessions",
    Wait.Kind.APPROVAL: "sessions",
}


def ask_again(now: datetime) -> int:
    """Let the clock ask again what has been forgotten unanswered, and return how many waits that are."""
    return sum(
        Wait.objects.pending().filter(kind=kind, sent_at__lt=now - _KEPT[stream]).update(sent_at=None)
        for kind, stream in _STREAMS.items()
    )
