"""Cards over REST: large values that messages and events point at."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from openvibe import canonical
from operators.api import scope
from operators.api.sizes import MIB, given
from operators.models import Card
from operators.services import cards

#: The largest content, in bytes of JSON.
MOST_BYTES = 8 * MIB


class CardBody(serializers.Serializer[Any]):
    """What a card is to hold."""

    content = serializers.JSONField(allow_null=True, help_text=f"Any JSON value of at most {MOST_BYTES} bytes")


class Pointer(serializers.Serializer[Any]):
    """What travels in a card's place: the SHA-256 of its content, and its size in bytes."""

    card = serializers.CharField()
    size = serializers.IntegerField()


class CardView(serializers.ModelSerializer[Card]):
    """A card, whole."""

    content = serializers.JSONField(allow_null=True)

    class Meta:
        model = Card
        fields = ("sha256", "size", "created_at", "content")
        read_only_fields = fields


class Cards(APIView):
    """The cards of a project."""

    @extend_schema(
        request=CardBody,
        responses={201: Pointer, 200: OpenApiResponse(Pointer, "There is a card with this content")},
        operation_id="create_card",
    )
    def post(self, request: Request) -> Response:
        """Keep a value, once. Its name is the SHA-256 of its canonical JSON (RFC 8785)."""
        project = scope.project(request, operable=True)
        content = given(request.data, "content", most=MOST_BYTES)
        known = cards.known(project.pk, cards.name(content))
        pointer = cards.keep(project.pk, content, canonical.text(content))
        return Response(
            Pointer(pointer).data, status=200 if known else 201, headers={"Location": f"/v1/cards/{pointer['card']}"}
        )


class CardPage(APIView):
    """One card."""

    @extend_schema(responses=CardView, operation_id="read_card")
    def get(self, request: Request, sha256: str) -> Response:
        """Read it. What bears this name never changes."""
        card = Card.objects.filter(project=scope.project(request), sha256=sha256).first()
        if card is None:
            raise Http404(f"There is no card {sha256!r}")
        kept = {"ETag": f'"{sha256}"', "Cache-Control": "private, max-age=31536000, immutable"}
        return Response(CardView(card).data, headers=kept)
