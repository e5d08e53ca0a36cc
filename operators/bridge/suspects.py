"""Keeps a message that ends the bridge from ending it for ever.

Who ends counts nothing, and a message is acknowledged only when all of its batch is in the database. So one that was
delivered often is taken by itself, and marked before: a mark that is found again tells of a bridge that ended at it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from django.db.models import F
from django.utils import timezone

from openvibe.bus import Message
from operators.bridge import letters
from operators.bridge.letters import AWAY
from operators.models import Suspect

#: How often a message may come before it is taken by itself.
OFTEN = 3
#: How many bridges may end at it.
MOST = 5
#: For how long a mark is remembered whose message never came again.
REMEMBERED = timedelta(days=30)


def parted(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Return those that came often, and the others."""
    often: list[Message] = []
    others: list[Message] = []
    for message in messages:
        (often if message.deliveries > OFTEN and message.position else others).append(message)
    return often, others


def take(message: Message, work: Callable[[Sequence[Message]], Sequence[Message]]) -> Sequence[Message]:
    """Do the work with one message that came often, or give it up; return what is to come again."""
    ended = _mark(message)
    if ended >= MOST:
        letters.bury(message, f"{ended} times the bridge ended while it dealt with this")
        again: Sequence[Message] = []
    else:
        try:
            again = work([message])
        except AWAY:
            # Nobody ended: the database went.
            _forgive(message)
            raise
    _forgive(message)
    return again


def _mark(message: Message) -> int:
    """Say that this is begun; return how many have begun it before and not come back."""
    now = timezone.now()
    row, made = Suspect.objects.get_or_create(position=message.position, defaults={"begun_at": now})
    if made:
        Suspect.objects.filter(begun_at__lt=now - REMEMBERED).delete()
    Suspect.objects.filter(position=message.position).update(times=F("times") + 1, begun_at=now)
    return row.times


def _forgive(message: Message) -> None:
    Suspect.objects.filter(position=message.position).delete()
