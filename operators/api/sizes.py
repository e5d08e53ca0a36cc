"""How large a JSON value of a request may be, and what kinds of values can be kept at all."""

from __future__ import annotations

from typing import Any

import orjson
from rest_framework.exceptions import APIException

from openvibe import canonical
from openvibe.protocol.nesting import MOST_LEVELS, deep
from operators.errors import Misfit

MIB = 1024 * 1024
UNKEEPABLE = "a whole number from 2**53 on, a NUL or half a character cannot be kept"


class TooLarge(APIException):
    """A value is over its limit."""

    status_code = 413
    default_code = "too_large"


def given(body: Any, field: str, *, most: int | None = None) -> Any:
    """Return a body's value of any JSON type that can be kept; raises as `keepable` does, and `Misfit` without one."""
    if field not in body:
        raise Misfit(f"{field}: is required", errors=[{"field": field, "message": "is required"}])
    return keepable(body[field], field=field, most=most)


def keepable(value: Any, *, field: str, most: int | None = None) -> Any:
    """Return a JSON value that databases of every kind give back as it was, of at most `most` bytes of JSON.

    Raises:
        Misfit: it holds what cannot be kept.
        TooLarge: it is over the limit.
    """
    if deep(value):
        message = f"has more than {MOST_LEVELS} levels"
        raise Misfit(f"{field} {message}", errors=[{"field": field, "message": message}])
    if canonical.jsonable(value) != value:
        raise Misfit(f"{field}: {UNKEEPABLE}", errors=[{"field": field, "message": UNKEEPABLE}])
    size = len(orjson.dumps(value))
    if most is not None and size > most:
        raise TooLarge(f"{field} has {size} bytes of JSON; {most} are taken")
    return value
