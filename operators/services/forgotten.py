"""Waits whose questions the bus keeps no longer: who has not heard them by then never will, and is asked again.

It is the same message as before, so that whoever has heard it knows it by its id.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone

from openvibe.bus.protocol import DUPLICATE_WINDOW
from openvibe.protocol.streams import STREAMS
from openvibe.protocol.subjects import VERSION
from operators.models import Wait

_KEPT = {stream.name: stream.max_age for stream in STREAMS}
#: Which stream keeps the question.
_QUESTIONS = {
    Wait.Kind.TOOL: f"cg_cmd_{VERSION}",
    Wait.Kind.WORK: "sessions",
    Wait.Kind.APPROVAL: "sessions",
}
#: The same or, where nothing keeps the question, which one keeps the answer.
_STREAMS = {**_QUESTIONS, Wait.Kind.REPLY: f"cg_cmd_{VERSION}"}
#: By how much the clocks of this server and of the bus may differ.
CLOCKS_APART = timedelta(seconds=5)
#: For how long a stream knows a message by its id: the same one would not be kept again, though it is gone.
KNOWN = timedelta(seconds=DUPLICATE_WINDOW)


def ask_again(now: datetime) -> int:
    """Let the clock ask again what is too old for its stream and unanswered, and return how many waits that are."""
    return sum(
        Wait.objects.pending().filter(kind=kind, sent_at__lt=now - _KEPT[stream]).update(sent_at=None)
        for kind, stream in _STREAMS.items()
    )


def lost(stream: str, since: datetime) -> int:
    """Let the clock ask again what a stream has lost that has kept everything `since` then; return how many waits.

    So nothing waits in vain for whoever reads a stream that was purged, or whose server has lost its data. What is
    simply too old is no loss.
    """
    now = timezone.now()
    waits = Wait.objects.pending().filter(
        kind__in=questions(stream),
        sent_at__gte=now - _KEPT[stream],
        sent_at__lt=min(since, now - KNOWN) - CLOCKS_APART,
    )
    return waits.update(sent_at=None)


def questions(stream: str) -> list[Wait.Kind]:
    """Return the kinds of waits whose questions the stream keeps."""
    return [kind for kind, asked in _QUESTIONS.items() if asked == stream]
