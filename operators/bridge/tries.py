"""Counts how often this bridge failed at a message, by which it comes again later and later, and not for ever.

How often it was delivered says less: it also comes again when the database was away, or a bridge was killed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from openvibe.bus import Message
from operators.bridge.letters import digest

#: After how many failures a message is given up.
MOST = 10
#: How long it is left alone after the first one, in seconds, and how long at most; the pause doubles.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
#: How many messages are remembered; those longest ago are forgotten, and get their tries anew.
MOST_MESSAGES = 10_000

_failed: dict[str, int] = {}
_lock = threading.Lock()


def failed(message: Message) -> int:
    """Count one more failure, and return how many there were."""
    name = _name(message)
    with _lock:
        count = _failed[name] = _failed.pop(name, 0) + 1
        if len(_failed) > MOST_MESSAGES:
            del _failed[next(iter(_failed))]
    return count


def pause(message: Message) -> float:
    """Return for how long a message is to be left alone, in seconds."""
    return float(min(FIRST_PAUSE * 2 ** max(0, _failed.get(_name(message), 0) - 1), LONGEST_PAUSE))


def forget(messages: Iterable[Message]) -> None:
    """Forget what has been dealt with."""
    if not _failed:
        return
    with _lock:
        for message in messages:
            _failed.pop(_name(message), None)


def _name(message: Message) -> str:
    return message.position or digest(message)
