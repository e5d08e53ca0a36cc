"""JSON bodies, whatever content type a caller forgot to set."""

from __future__ import annotations

from rest_framework import parsers


class JSONParser(parsers.JSONParser):
    """Takes every body for JSON: the API speaks nothing else, and `curl -d` sends a form's content type."""

    media_type = "*/*"
    strict = True
