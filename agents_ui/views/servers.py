"""The servers that share this one's bus, as the registry knows them."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from agents_ui.access import PageRequest, signed_in
from operators.models import Operator, Project
from operators.models.project import DEFAULT
from operators.models.server import BEAT_SECONDS, MOST_MISSED
from operators.services import servers

#: Seconds between two looks of an open page; the registry changes with every heartbeat.
LOOK_SECONDS = BEAT_SECONDS / 2


@signed_in
@require_safe
def index(request: PageRequest) -> HttpResponse:
    """All of them, with what they offer; the bus belongs to the project `default`."""
    mine = Project.objects.visible_to(request.user).filter(id=DEFAULT).exists()
    found = servers.listing() if mine else []
    known = Operator.objects.filter(project_id=DEFAULT, retired=False).values_list("slug", "name") if found else ()
    context = {
        "member": mine,
        "servers": found,
        "stale": sum(server.state == "stale" for server in found),
        "names": dict(known),
        "own": settings.OPENVIBE.server,
        "look": f"{LOOK_SECONDS:g}",
        "missed": MOST_MISSED,
    }
    return render(request, "servers/index.html", context)
