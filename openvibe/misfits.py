"""Tells an author which option of a description does not fit."""

from __future__ import annotations

from pydantic import ValidationError

from openvibe.errors import SetupError


def explained(where: str, error: ValidationError) -> SetupError:
    """Return the error that names the place, the option, its value and the fault."""
    item = error.errors(include_url=False)[0]
    option = ".".join(map(str, item["loc"]))
    return SetupError(f"{where}: {option}={item['input']!r:.60}: {item['msg']}")
