"""The servers that share this server's bus."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operators.api import scope
from operators.models import Server
from operators.services import servers


class ServerView(serializers.ModelSerializer[Server]):
    """A server: its operators, what may be asked of each, how many runs it plays, and if it was heard of lately."""

    id = serializers.CharField(source="name", read_only=True)
    state = serializers.ChoiceField(["fresh", "stale"], read_only=True)

    class Meta:
        model = Server
        fields: tuple[str, ...] = ("id", "state", "operators", "capabilities", "load", "version", "beat_at", "heard_at")
        read_only_fields = fields


class ServerList(serializers.Serializer[Any]):
    """The servers, by name."""

    servers = ServerView(many=True)


class Servers(APIView):
    """The servers that share a bus, as a project knows them."""

    @extend_schema(responses=ServerList, operation_id="list_servers")
    def get(self, request: Request) -> Response:
        """List them; after three missed heartbeats one is `stale`."""
        found = servers.listing(scope.project(request).pk)
        return Response(ServerList({"servers": found}).data)
