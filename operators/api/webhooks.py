"""The door for other systems' webhooks."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractUser
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import APIException, ParseError
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operators.api import arrivals, scope
from operators.api.authentication import HubSpotAuthentication, TokenAuthentication
from operators.api.parsers import DocumentParser
from operators.api.serializers import StartedRuns
from operators.numbers import natural

MOST_BYTES = 1024 * 1024
EVENT = {
    "type": "object",
    "description": "Fields that are inputs of a workflow become its input; others are ignored.",
    "properties": {"id": {"type": ["string", "integer"]}, "type": {"type": "string"}},
}
BODY = {"application/json": {"oneOf": [EVENT, {"type": "array", "items": EVENT}]}}


class TooLarge(APIException):
    """The body is over the limit."""

    status_code = 413
    default_code = "too_large"
    default_detail = f"The body is over {MOST_BYTES} bytes; send fewer events at a time"


class Known(BasePermission):
    """A token or a signature says who calls; a signature has no user."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Tell whether there is one of them."""
        return request.auth is not None


class Webhook(APIView):
    """What a system calls when something has happened there. It comes with a token or a signature, never a session."""

    authentication_classes = [TokenAuthentication, HubSpotAuthentication]
    permission_classes = [Known]
    parser_classes = [DocumentParser]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse a body that is too large before anybody reads it."""
        if (natural(request.META.get("CONTENT_LENGTH", "")) or 0) > MOST_BYTES:
            raise TooLarge
        super().initial(request, *args, **kwargs)

    @extend_schema(request=BODY, responses={202: StartedRuns}, operation_id="receive_webhook")
    def post(self, request: Request, source: str) -> Response:
        """Start what waits for the source: one run for each event and workflow, however often it is delivered."""
        if not request.body:
            raise ParseError("The body is empty; send an event: { ... }")
        runs = arrivals.start(
            source,
            request.data,
            workflows=scope.startable(request),
            actor=request.user if isinstance(request.user, AbstractUser) else None,
            **scope.trace(request),
        )
        told = [
            {
                "event_id": event_id,
                "operator_id": run.operator.slug,
                "workflow_id": run.workflow.slug,
                "run_id": run.id,
                "new": run.new,
            }
            for event_id, run in runs
        ]
        return Response(StartedRuns({"runs": told}).data, status=202)
