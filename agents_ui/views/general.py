"""The channels of a project that are no run's: the general one, and the reader's own."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from agents_ui import rendering
from agents_ui.access import PageRequest, signed_in
from openvibe.protocol import subjects
from operators.models import Project
from operators.services import timeline

EVENTS = 200


@signed_in
@require_safe
def channel(request: PageRequest) -> HttpResponse:
    """What everybody should know, newest first."""
    context = _read(request, subjects.PUBLIC) | {"agents_may_post": settings.BUS == "nats"}
    return render(request, "general/index.html", context)


@signed_in
@require_safe
def mine(request: PageRequest) -> HttpResponse:
    """What is asked of the reader, and told to nobody else; newest first."""
    own = subjects.personal(request.user.get_username())
    context = _read(request, own) | {"channel": own, "agents_may_post": settings.BUS == "nats"}
    return render(request, "general/mine.html", context)


def _read(request: PageRequest, name: str) -> dict[str, Any]:
    projects = {project.id: project for project in Project.objects.visible_to(request.user).order_by("id").distinct()}
    asked = request.GET.get("project") or next(iter(projects), "")
    if asked and asked not in projects:
        raise Http404("There is no such project")
    events = timeline.newest(asked, name, limit=EVENTS) if asked else []
    return {
        "project": projects.get(asked),
        "projects": list(projects.values()),
        "timeline": rendering.timeline(events),
        "after": events[-1].seq if events else 0,
    }
