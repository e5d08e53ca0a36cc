"""JSON bodies, whatever content type a caller forgot to set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework import parsers
from rest_framework.exceptions import ParseError

from openvibe.protocol import nesting

TOO_DEEP = "JSON parse error - too many levels"


class DocumentParser(parsers.JSONParser):
    """Takes every body for JSON: the API speaks nothing else, and `curl -d` sends a form's content type."""

    media_type = "*/*"
    strict = True

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        """Return what the body holds."""
        try:
            body = super().parse(stream, media_type, parser_context)
        except RecursionError as error:
            raise ParseError(TOO_DEEP) from error
        # What is only a little too deep is refused by its own field, where one may say so.
        if nesting.deep(body, most=2 * nesting.MOST_LEVELS):
            raise ParseError(TOO_DEEP)
        return body


class JSONParser(DocumentParser):
    """Takes objects only: every body is one, unless a view says otherwise."""

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the object that the body holds."""
        body = super().parse(stream, media_type, parser_context)
        if not isinstance(body, dict):
            raise ParseError("The body must be a JSON object: { ... }")
        return body
