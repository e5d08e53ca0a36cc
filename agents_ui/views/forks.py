"""A new run that begins with another one's state at a step: the question first, then the start."""

from __future__ import annotations

import secrets
from typing import Any

from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from agents_ui import rendering, schemas
from agents_ui.access import PageRequest, signed_in
from openvibe import canonical
from operators.errors import DomainError, Misfit
from operators.models import Run
from operators.services import forks


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def index(request: PageRequest, run_id: str, step_id: str) -> HttpResponse:
    """Ask where the new run is to begin, and with what; a POST starts it."""
    runs = Run.objects.operable_by(request.user).select_related(*rendering.SHOWN)
    run = get_object_or_404(runs, id=run_id)
    found = forks.steps(run, step_id=step_id)
    if not found:
        raise Http404("There is no such step, or its state is no longer kept")
    if request.method != "POST":
        return _form(request, run, found[0])
    try:
        return redirect("run", _forked(request, run, found[0]).id)
    except DomainError as error:
        return _form(request, run, found[0], sent=request.POST.dict(), errors=_sentences(error), status=error.status)


def _forked(request: PageRequest, run: Run, step: forks.Step) -> Run:
    before = request.POST.get("before") == "yes" or not step.finished
    values = _values(request.POST.get("values", ""))
    # Sent again, under the name that the page gave it, it is the same fork; with other values it is another one.
    named = {"name": request.POST.get("name", ""), "step_id": step.step_id, "before": before, "values": values}
    key = f"page:{canonical.sha256(named)}"
    return forks.fork(run, step_id=step.step_id, values=values, before=before, actor=request.user, key=key)


def _values(text: str) -> dict[str, Any]:
    try:
        values = schemas.parsed(text) if text.strip() else {}
    except ValueError as error:
        raise Misfit(f"The fields are no JSON: {error}") from error
    if not isinstance(values, dict):
        raise Misfit('The fields must be a JSON object, such as {"name": "Ada"}')
    return values


def _sentences(error: DomainError) -> list[str]:
    problems = error.detail.get("errors", [])
    told = [f"{item['field'].removeprefix('values.')}: {item['message']}" for item in problems] or [str(error)]
    # A name that was sent is quoted here, and may hold what no page can.
    return [str(canonical.jsonable(sentence)) for sentence in told]


def _form(
    request: PageRequest, run: Run, step: forks.Step, *, sent: dict[str, str] | None = None,
    errors: list[str] | None = None, status: int = 200,
) -> HttpResponse:  # fmt: skip
    context = {
        "run": run, "step": step, "sent": sent or {}, "errors": errors or [], "written": (sent or {}).get("values", ""),
        "name": (sent or {}).get("name") or secrets.token_urlsafe(12),
    }  # fmt: skip
    return render(request, "run/fork.html", context, status=status)
