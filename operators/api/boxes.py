"""Boxes over REST: ordered lists of cards, of turns or of one's own."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from openvibe.ids import random_text
from operators.api import scope
from operators.models import Box
from operators.services import boxes

#: The most cards of one box.
MOST = 1000


class BoxBody(serializers.Serializer[Any]):
    """Which cards a box is to hold, in order."""

    cards = serializers.ListField(child=serializers.CharField(max_length=64), max_length=MOST)


class BoxView(serializers.ModelSerializer[Box]):
    """A box: its name, and its cards' `sha256`, in order."""

    box = serializers.CharField(source="name")
    cards = serializers.ListField(child=serializers.CharField())

    class Meta:
        model = Box
        fields = ("box", "cards", "created_at")
        read_only_fields = fields


class Boxes(APIView):
    """The boxes of a project."""

    @extend_schema(request=BoxBody, responses={201: BoxView}, operation_id="create_box")
    def post(self, request: Request) -> Response:
        """Keep a list of cards that are there; it never changes."""
        project = scope.project(request, operable=True)
        body = BoxBody(data=request.data)
        body.is_valid(raise_exception=True)
        box = boxes.make(project, f"box_{random_text(16)}", body.validated_data["cards"])
        return Response(BoxView(box).data, status=201, headers={"Location": f"/v1/boxes/{box.name}"})


class BoxPage(APIView):
    """One box."""

    @extend_schema(responses=BoxView, operation_id="read_box")
    def get(self, request: Request, name: str) -> Response:
        """Read which cards it holds, in order."""
        box = Box.objects.filter(project=scope.project(request), name=name).first()
        if box is None:
            raise Http404(f"There is no box {name!r}")
        return Response(BoxView(box).data)
