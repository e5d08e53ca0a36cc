"""The servers that share this one's bus, as the registry knows them."""

from __future__ import annotations

from django.conf import settings
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from agents_ui.access import PageRequest, signed_in
from operators.models import Operator, Project
from operators.models.server import BEAT_SECONDS, MOST_MISSED
from operators.services import servers

#: Seconds between two looks of an open page; the registry changes with every heartbeat.
LOOK_SECONDS = BEAT_SECONDS / 2


@signed_in
@require_safe
def index(request: PageRequest) -> HttpResponse:
    """All that a project has heard of, with what they offer it."""
    projects = list(Project.objects.visible_to(request.user).order_by("id").distinct())
    asked = request.GET.get("project", "")
    project = next((item for item in projects if item.id == asked or not asked), None)
    if project is None and asked:
        raise Http404("There is no such project")
    found = servers.listing(project.id) if project else []
    known = Operator.objects.filter(project=project, retired=False).values_list("slug", "name") if found else ()
    context = {
        "project": project,
        "projects": projects,
        "servers": found,
        "stale": sum(server.state == "stale" for server in found),
        "names": dict(known),
        "own": settings.OPENVIBE.server,
        "look": f"{LOOK_SECONDS:g}",
        "missed": MOST_MISSED,
    }
    return render(request, "servers/index.html", context)
