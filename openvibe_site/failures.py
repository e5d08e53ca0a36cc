"""What is answered where no view does: that the database is away for a moment, a fault of ours, a body too large."""

from __future__ import annotations

import sys

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.views.defaults import server_error

from operators import outages
from operators.api import problems

#: Where programs ask, which want a problem body.
PROGRAMS = ("/v1/", "/api/")


def answer(request: HttpRequest) -> HttpResponse:
    """Answer a request whose view raised; Django calls this while it deals with the exception."""
    error = sys.exc_info()[1]
    if not isinstance(error, outages.AWAY):
        return server_error(request)
    outages.noticed(error)
    if request.path.startswith(PROGRAMS):
        return problems.away()
    # Without the request: what every page knows lies in the database.
    told = {"again": outages.RETRY_SECONDS if request.method == "GET" else None}
    headers = {"Retry-After": str(outages.RETRY_SECONDS)}
    return HttpResponse(render_to_string("503.html", told), status=503, headers=headers)


def too_large(path: str, detail: str) -> HttpResponse:
    """Answer a request whose body is over the limit."""
    return problems.too_large(detail) if path.startswith(PROGRAMS) else HttpResponse(detail, status=413)
