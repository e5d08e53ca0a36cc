"""One byte sequence for one JSON value (RFC 8785), so that two readers hash the same thing."""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any

import orjson
import rfc8785
from pydantic import BaseModel

# A string, and what RFC 8785 writes otherwise than `orjson`: exponents, whole floats, integers from 10**15 on.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_OTHERWISE = re.compile(rb"\d[eE]|\.0(?!\d)|(?<![.\d])\d{16}")
# How a character begins that sorts otherwise by UTF-16 than by its number.
_ASTRAL = re.compile(rb"[\xf0-\xf4]")


def text(value: Any) -> bytes:
    """Return a JSON value as RFC 8785 writes it, or with sorted keys if it has numbers for which that has no text."""
    quick = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    # The library of the standard takes a hundred times as long.
    if not (_ASTRAL.search(quick) or _OTHERWISE.search(_STRING.sub(b"", quick))):
        return quick
    try:
        return bytes(rfc8785.dumps(value))
    except rfc8785.CanonicalizationError:
        return quick


def sha256(value: Any) -> str:
    """Return the hex SHA-256 of a JSON-compatible value's RFC 8785 canonical form."""
    return hashlib.sha256(text(jsonable(value))).hexdigest()


def dumps(value: Any) -> str:
    """Return a value as JSON text; what JSON does not know becomes its text."""
    return orjson.dumps(jsonable(value)).decode()


def jsonable(value: Any) -> Any:
    """Reduce a value to plain JSON types; what JSON does not know becomes its text.

    Integers from 2**53 on have no exact JSON number (RFC 8785 §3.2.2.3) and become text too. Halves of surrogate pairs,
    which UTF-8 cannot say, and NUL, which PostgreSQL does not keep, are replaced.
    """
    if isinstance(value, dict):
        return {_text(str(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(jsonable, value), key=str)
    if isinstance(value, int) and abs(value) >= 2**53:
        return str(value)
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, (int, bool)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, BaseModel):
        return jsonable(value.model_dump(mode="json"))
    return _foreign(value)


def _text(value: str) -> str:
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _foreign(value: Any) -> Any:
    try:
        return jsonable(orjson.loads(orjson.dumps(value)))
    except orjson.JSONEncodeError:
        return str(value)
