"""The list of runs."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from agents_ui.access import PageRequest, signed_in
from operators.models import Operator, Run

PAGE = 25


@signed_in
@require_safe
def index(request: PageRequest) -> HttpResponse:
    """Newest first, by status and operator if asked."""
    status, operator = request.GET.get("status", ""), request.GET.get("operator", "")
    runs = _filtered(Run.objects.visible_to(request.user), status=status, operator=operator)
    page = Paginator(runs.select_related("operator", "workflow", "started_by"), PAGE).get_page(request.GET.get("page"))
    names = Operator.objects.visible_to(request.user).order_by("name").values_list("slug", "name").distinct()
    chosen = {"status": status, "operator": operator}
    context = {"page": page, "statuses": Run.Status.values, "operators": names, "filtered": any(chosen.values())}
    return render(request, "runs/index.html", {**context, **chosen})


def _filtered(runs: QuerySet[Run], *, status: str, operator: str) -> QuerySet[Run]:
    if status:
        runs = runs.filter(status=status)
    return runs.filter(operator__slug=operator) if operator else runs
