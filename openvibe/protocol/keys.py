"""Names of buckets and keys as NATS KV accepts them. A key may be any text; its encoding is reversible and readable."""

from __future__ import annotations

import re

#: The buckets of the shared context. A key is any text; `<whose id>/<what>` is the custom.
BUCKETS = ("companies", "leads", "content", "accounts", "market")
#: What a context bucket's name begins with on the bus, as in `context-companies`.
CONTEXT = "context-"

_BUCKET = re.compile(r"[A-Za-z0-9_-]{1,255}")
# A dot parts tokens, none of which may be empty; an equals sign begins an escape.
_ESCAPED = re.compile(r"^\.|(?<=\.)\.|\.$|[^A-Za-z0-9_/.-]")
_TAKEN = re.compile(r"[A-Za-z0-9_/=-]+(\.[A-Za-z0-9_/=-]+)*")
_ESCAPE = re.compile(r"(?:=[0-9A-F]{2})+")
#: An empty key has no letters to encode.
_EMPTY = "="


def encoded(key: str) -> str:
    """Return the key as NATS KV takes it: letters, digits and `-_/.` stay, all else is `=` and two digits a byte.

    A key that NATS takes as it is stays whole, also one with `=`, unless it reads as the spelling of another one.
    """
    return key if _stays(key) else _spelled(key)


def decoded(name: str) -> str:
    """Return the key that was encoded so; what is no encoding of ours stays as it is, and is encoded so again."""
    return name if _stays(name) else _read(name)


def bucket(name: str) -> bool:
    """Tell whether a bucket may bear this name."""
    return bool(_BUCKET.fullmatch(name))


def _stays(text: str) -> bool:
    # What reads as the spelling of a key that is never spelled is itself never one.
    while (inner := _read(text)) != text and _spelled(inner) == text:
        text = inner
    return bool(_TAKEN.fullmatch(text))


def _spelled(key: str) -> str:
    return _ESCAPED.sub(lambda found: _escape(found[0]), key) or _EMPTY


def _read(name: str) -> str:
    return "" if name == _EMPTY else _ESCAPE.sub(lambda found: _unescape(found[0]), name)


def _escape(text: str) -> str:
    # JSON may hold halves of surrogate pairs; they are no UTF-8 and still must come back as they were.
    return "".join(f"={byte:02X}" for byte in text.encode(errors="surrogatepass"))


def _unescape(text: str) -> str:
    try:
        return bytes.fromhex(text.replace("=", "")).decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return text
