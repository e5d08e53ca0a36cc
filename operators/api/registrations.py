"""Operators that come in over REST, as YAML or as JSON of the same form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import prefetch_related_objects
from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from operators.api import scope, views
from operators.api.serializers import OperatorDetail
from operators.api.sizes import TooLarge
from operators.models import Operator
from operators.services import schedule, sources

MOST_BYTES = 256 * 1024
SOURCE: Mapping[Any, Any] = {"application/yaml": OpenApiTypes.STR, "application/json": OpenApiTypes.OBJECT}


class SourceParser(BaseParser):
    """Takes the body as the text that it is, whatever its content type."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        """Return the text."""
        body: bytes = stream.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            raise TooLarge(f"An operator's text has at most {MOST_BYTES} bytes")
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ParseError(f"The body is no UTF-8: {error}") from error
        if "\0" in text or not text.strip():
            raise ParseError("The body is no text; send the YAML of an operator")
        return text


class Operators(views.Operators):
    """The operators of the caller's project."""

    parser_classes = [SourceParser]

    @extend_schema(
        request=SOURCE,
        responses={201: OperatorDetail, 200: OpenApiResponse(OperatorDetail, "It is registered with this very text")},
        operation_id="register_operator",
    )
    def post(self, request: Request) -> Response:
        """Register one; only an owner of the project may. It can be started at once."""
        project = scope.project(request, owned=True)
        operator, new = sources.add(project, _text(request), actor=scope.caller(request))
        schedule.write(project)
        headers = {"Location": f"/v1/operators/{operator.slug}"}
        return Response(_detail(operator), status=201 if new else 200, headers=headers)


class OperatorPage(views.OperatorPage):
    """One operator."""

    parser_classes = [SourceParser]

    @extend_schema(request=SOURCE, responses=OperatorDetail, operation_id="replace_operator")
    def put(self, request: Request, slug: str) -> Response:
        """Change one that was registered here; only an owner of the project may."""
        operator = _owned(request, slug)
        changed = sources.replace(operator, _text(request), actor=scope.caller(request))
        schedule.write(operator.project)
        return Response(_detail(changed))

    @extend_schema(request=None, responses={204: None}, operation_id="remove_operator")
    def delete(self, request: Request, slug: str) -> Response:
        """Remove one that was registered here; only an owner of the project may. Its runs stay readable."""
        operator = _owned(request, slug)
        sources.remove(operator)
        schedule.write(operator.project)
        return Response(status=204)


def _text(request: Request) -> str:
    text: Any = request.data
    if not isinstance(text, str):
        raise ParseError("The body is empty; send the YAML of an operator")
    return text


def _owned(request: Request, slug: str) -> Operator:
    project = scope.project(request, owned=True)
    found = scope.operators(request).select_related("project").filter(project=project, slug=slug).first()
    if found is None:
        raise Http404(f"There is no operator {slug!r}")
    return found


def _detail(operator: Operator) -> Any:
    prefetch_related_objects([operator], "workflows__nodes")
    return OperatorDetail(operator).data
