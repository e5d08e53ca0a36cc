"""The context that a project's operators share: every value, and what it was before."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.db.models import Count
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from agents_ui.access import PageRequest, signed_in
from openvibe.protocol.keys import BUCKETS
from operators.models import ContextEntry, Project
from operators.services import mirroring

PAGE = 50
#: How many former values a page shows.
HISTORY = 50


@signed_in
@require_safe
def index(request: PageRequest) -> HttpResponse:
    """The values of one project, by bucket and key."""
    projects = list(Project.objects.visible_to(request.user).order_by("id").distinct())
    asked, bucket = request.GET.get("project", ""), request.GET.get("bucket", "")
    project = next((item for item in projects if item.id == asked or not asked), None)
    if (asked and project is None) or (bucket and bucket not in BUCKETS):
        raise Http404("There is no such context")
    entries = ContextEntry.objects.present().filter(project=project)
    found = entries.filter(bucket=bucket) if bucket else entries
    if wanted := request.GET.get("key", "").strip():
        found = found.filter(key__icontains=wanted)
    counted = dict(entries.order_by().values_list("bucket").annotate(Count("id")))
    context = {
        "project": project,
        "projects": projects,
        "buckets": [(name, counted.get(name, 0)) for name in BUCKETS],
        "bucket": bucket,
        "wanted": wanted,
        "page": Paginator(found, PAGE).get_page(request.GET.get("page")),
    }
    return render(request, "context/index.html", context)


@signed_in
@require_safe
def detail(request: PageRequest, entry_id: int) -> HttpResponse:
    """One value with its history, the newest first."""
    if entry_id >= 2**63:
        raise Http404("No database counts that far")
    entries = ContextEntry.objects.visible_to(request.user).select_related("project")
    entry = get_object_or_404(entries.distinct(), id=entry_id)
    found = {"entry": entry, "history": entry.history.all()[:HISTORY], "hindrance": mirroring.hindrance(entry)}
    return render(request, "context/entry.html", found)
