"""The list of runs."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from agents_ui import rendering, triggers
from agents_ui.access import PageRequest, signed_in
from operators.models import Operator, Run, Wait

PAGE = 25


@signed_in
@require_safe
def index(request: PageRequest) -> HttpResponse:
    """Newest first, by status, operator, trigger and the run that started them, if asked."""
    chosen = {name: request.GET.get(name, "") for name in ("status", "operator", "trigger", "parent")}
    runs = _filtered(Run.objects.visible_to(request.user), **chosen)
    names = Operator.objects.visible_to(request.user).order_by("name").values_list("slug", "name").distinct()
    context = {
        "page": Paginator(listed(runs), PAGE).get_page(request.GET.get("page")),
        "statuses": Run.Status.values,
        "operators": names,
        "triggers": triggers.KINDS.items(),
        "filtered": any(chosen.values()),
    }
    return render(request, "runs/index.html", {**context, **chosen})


def listed(runs: QuerySet[Run]) -> QuerySet[Run]:
    """Return runs with what a row of a list says of them."""
    waits = Prefetch("waits", Wait.objects.pending(), to_attr="open_waits")
    return runs.select_related(*rendering.SHOWN).prefetch_related(waits)


def _filtered(runs: QuerySet[Run], *, status: str, operator: str, trigger: str, parent: str) -> QuerySet[Run]:
    if status:
        runs = runs.filter(status=status)
    if trigger:
        runs = runs.filter(Q(trigger=trigger) | Q(trigger__startswith=f"{trigger}:"))
    if parent:
        runs = runs.filter(parent_id=parent)
    return runs.filter(operator__slug=operator) if operator else runs
