"""Messages as Redis carries them: one line of JSON `[headers, reply, subject]`, a line feed, and the bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from openvibe.bus.protocol import Message


def dumps(data: bytes, *, headers: Mapping[str, str] | None = None, reply: str = "", subject: str = "") -> bytes:
    """Return a message as one run of bytes."""
    return json.dumps([dict(headers or {}), reply, subject]).encode() + b"\n" + data


def loads(frame: bytes, subject: str) -> Message:
    """Return the message; `subject` is where it was heard. What is no frame of ours is a message without headers."""
    line, _, data = frame.partition(b"\n")
    try:
        headers, reply, named = json.loads(line)
        texts = {str(key): str(value) for key, value in headers.items()}
        return Message(str(named or subject), data, texts, str(reply))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Message(subject, frame)


def glob(pattern: str) -> str:
    """Return the Redis pattern that fits at least what a NATS pattern fits: there a star stands for dots too."""
    *parts, last = [part if part == "*" else _escaped(part) for part in pattern.split(".")]
    return ".".join([*parts, "*" if last == ">" else last])


def lua_pattern(pattern: str) -> str:
    """Return the Lua pattern that fits exactly what a NATS pattern fits."""
    *parts, last = ["[^.]*" if part == "*" else re.sub(r"(\W)", r"%\1", part) for part in pattern.split(".")]
    return "^" + "%.".join([*parts, ".*" if last == "%>" else last]) + "$"


def wild(pattern: str) -> bool:
    """Tell whether a pattern fits more than one subject."""
    return bool({"*", ">"} & set(pattern.split(".")))


def _escaped(part: str) -> str:
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", part)
