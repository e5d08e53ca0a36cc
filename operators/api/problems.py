"""The one place where a refusal becomes an HTTP answer: a problem body (RFC 9457) that names the field."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from openvibe import canonical
from operators import outages
from operators.errors import DomainError

logger = logging.getLogger(__name__)
CONTENT_TYPE = "application/problem+json"
AWAY = ("database_away", "The database does not answer just now; ask again in a moment. Nothing was done.")
RETRY = {"Retry-After": str(outages.RETRY_SECONDS)}


def answer(error: Exception, context: dict[str, Any]) -> Response | None:
    """Turn an exception of a view into a response; None lets Django answer 500."""
    # A view that draws pages or YAML refuses in JSON, too, also where nobody has asked yet what the caller would like.
    context["request"].accepted_renderer = JSONRenderer()
    context["request"].accepted_media_type = JSONRenderer.media_type
    if isinstance(error, DomainError):
        return _problem(error.status, error.code, error.message, **error.detail)
    if isinstance(error, Http404):
        return _problem(404, "not_found", str(error) or "There is no such thing")
    if isinstance(error, PermissionDenied):
        return _problem(403, "forbidden", str(error) or "You may not do this")
    if isinstance(error, exceptions.ValidationError):
        return _problem(422, "invalid", "The request does not fit", errors=_errors(error.detail))
    if isinstance(error, outages.AWAY):
        outages.noticed(error)
        return _problem(503, *AWAY, headers=RETRY)
    if isinstance(error, exceptions.APIException):
        challenge = getattr(error, "auth_header", None)
        headers = {"WWW-Authenticate": challenge} if challenge else {}
        code = error.get_codes()
        return _problem(
            error.status_code, code if isinstance(code, str) else "error", str(error.detail), headers=headers
        )
    return None


def _problem(status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> Response:
    body = _body(status, code, detail, **extra)
    return Response(body, status=status, headers=headers, content_type=CONTENT_TYPE)


def _body(status: int, code: str, detail: str, **extra: Any) -> dict[str, Any]:
    body = {"type": f"urn:openvibe:problem:{code}", "title": code, "status": status, "detail": detail, **extra}
    # What strangers sent is quoted here, and may hold what no answer can.
    return {name: canonical.jsonable(said) if isinstance(said, (str, list)) else said for name, said in body.items()}


def _errors(detail: Any, path: str = "") -> list[dict[str, str]]:
    if isinstance(detail, dict):
        return [item for key, value in detail.items() for item in _errors(value, f"{path}.{key}".strip("."))]
    if isinstance(detail, list):
        return [item for value in detail for item in _errors(value, path)]
    return [{"field": path, "message": str(detail)}]


# Programs hold no CSRF token; they must hear that the path is wrong, not that they may not ask.
@csrf_exempt
def not_found(request: HttpRequest, path: str = "") -> JsonResponse:
    """Answer a path under /v1/ or /api/ that does not exist."""
    detail = f"There is no {request.path}; see /v1/docs/"
    return JsonResponse(_body(404, "not_found", detail), status=404, content_type=CONTENT_TYPE)


def too_large(detail: str) -> JsonResponse:
    """Answer a program whose body no view gets to see."""
    return JsonResponse(_body(413, "too_large", detail), status=413, content_type=CONTENT_TYPE)


def away() -> JsonResponse:
    """Answer a program whose request met no database before it reached a view."""
    return JsonResponse(_body(503, *AWAY), status=503, content_type=CONTENT_TYPE, headers=RETRY)
