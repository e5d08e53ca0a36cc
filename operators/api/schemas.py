"""JSON Schemas of what goes over the wire and of operators files, for agents in any language and for editors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from openvibe import config
from openvibe.protocol import sessions
from openvibe.protocol.envelope import Envelope

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SUFFIX = ".schema.json"


class SchemaLine(serializers.Serializer[Any]):
    """One schema in the list."""

    name = serializers.CharField()
    url = serializers.CharField()
    title = serializers.CharField()


class SchemaList(serializers.Serializer[Any]):
    """The schemas that there are."""

    schemas = SchemaLine(many=True)


def _envelope() -> dict[str, Any]:
    return {"$schema": DIALECT, **Envelope.model_json_schema(), "title": "The envelope of every message"}


def _session() -> dict[str, Any]:
    return {"$schema": DIALECT, **sessions.SessionMessage.model_json_schema(), "title": "Any message of a session"}


def _message(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return {"$schema": DIALECT, **make()}


SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "envelope": _envelope,
    "operators": config.schema,
    "sessions": _session,
    **{f"sessions.{name}": partial(_message, make) for name, make in sessions.schemas().items()},
}


class Schemas(APIView):
    """The schemas that there are; open to everybody."""

    permission_classes = [AllowAny]

    @extend_schema(responses=SchemaList, operation_id="list_schemas", auth=[])
    def get(self, request: Request) -> Response:
        """List them by name."""
        listed = [
            {"name": name, "url": f"/v1/schemas/{name}", "title": make()["title"]}
            for name, make in sorted(SCHEMAS.items())
        ]
        return Response(SchemaList({"schemas": listed}).data)


class SchemaPage(APIView):
    """One schema; open to everybody."""

    permission_classes = [AllowAny]

    @extend_schema(responses={200: dict[str, Any]}, operation_id="read_schema", auth=[])
    def get(self, request: Request, name: str) -> Response:
        """Return it. The name may end as files of schemas do."""
        make = SCHEMAS.get(name.removesuffix(SUFFIX))
        if make is None:
            raise Http404(f"There is no schema {name!r}; there are: {', '.join(sorted(SCHEMAS))}")
        return Response(make(), content_type="application/schema+json")
