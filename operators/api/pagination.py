"""Lists, newest first, a page at a time."""

from __future__ import annotations

from typing import Any

from rest_framework.pagination import CursorPagination


class Pages(CursorPagination):
    """Pages by cursor: rows that arrive meanwhile shift nothing."""

    ordering = ("-created_at", "-id")
    page_size = 50
    page_size_query_param = "limit"
    max_page_size = 200

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Describe a page in OpenAPI 3.1; the parent's `nullable` is a word of 3.0."""
        address = {"type": ["string", "null"], "format": "uri"}
        properties = {"next": address, "previous": address, "results": schema}
        return {"type": "object", "required": list(properties), "properties": properties}
