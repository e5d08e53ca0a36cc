"""Operators, and the form that starts one of their workflows."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import Prefetch
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from agents_ui import outlines
from agents_ui.access import PageRequest, operates, signed_in
from agents_ui.forms import StartForm
from agents_ui.views.runs import listed
from openvibe.budgets import SPANS, began
from operators.errors import Misfit, OperatorDisabled, Unknown
from operators.models import Operator, Project, Run, Workflow
from operators.services import budgets, intake

RECENT = 10


@signed_in
@require_safe
def index(request: PageRequest) -> HttpResponse:
    """One card for each operator."""
    current = Prefetch("workflows", Workflow.objects.filter(retired=False), to_attr="current")
    operators = list(Operator.objects.visible_to(request.user).prefetch_related(current))
    operable = set(Project.objects.operable_by(request.user).values_list("id", flat=True))
    counted = {operator.pk: outlines.counts(operator.current) for operator in operators}  # type: ignore[attr-defined]
    total = {name: sum(counts[name] for counts in counted.values()) for name in outlines.COUNTED}
    context = {"operators": operators, "operable": operable, "counted": counted, "total": total}
    return render(request, "operators/index.html", context)


@signed_in
@require_safe
def detail(request: PageRequest, slug: str) -> HttpResponse:
    """One operator: what it does, and what it did lately."""
    operator = _operator(request, slug)
    context = {
        "operator": operator,
        "outlines": outlines.of(operator),
        "runs": listed(Run.objects.filter(operator=operator))[:RECENT],
        "may_operate": operates(request.user, operator.project_id),
        "budget": _budget(operator),
        "zone": settings.TIME_ZONE,
        "door": request.build_absolute_uri("/v1/webhooks/"),
    }
    return render(request, "operators/detail.html", context)


def _budget(operator: Operator) -> list[dict[str, Any]]:
    """Return each limit of an operator's budget, and what has been spent of it so far."""
    budget, now = budgets.of(operator), timezone.now()
    limits = {span: getattr(budget, span, None) for span in SPANS}
    return [
        {"span": span, "limit": limit, "spent": None if span == "run" else budgets.cost(operator, began(span, now))}
        for span, limit in limits.items()
        if limit is not None
    ]


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def start(request: PageRequest, slug: str, workflow: str) -> HttpResponse:
    """The start form; a POST queues a run."""
    operator = _operator(request, slug)
    found = get_object_or_404(operator.workflows.select_related("operator"), slug=workflow, retired=False)
    if not operates(request.user, operator.project_id):
        raise Http404("There is no such workflow")
    if request.method != "POST":
        return _form(request, found, StartForm(found))
    form = StartForm(found, request.POST.dict())
    try:
        return redirect("run", intake.request(found, input=form.values(), actor=request.user).id)
    except Unknown as error:
        raise Http404(str(error)) from error
    except Misfit as error:
        form.refuse(error)
        return _form(request, found, form, status=error.status)
    except OperatorDisabled as error:
        form.errors.append(str(error))
        return _form(request, found, form, status=error.status)


def _operator(request: PageRequest, slug: str) -> Operator:
    found = Operator.objects.visible_to(request.user).filter(slug=slug)
    if project := request.GET.get("project"):
        found = found.filter(project_id=project)
    operator = found.order_by("project_id").first()
    if operator is None:
        raise Http404("There is no such operator")
    return operator


def _form(request: PageRequest, workflow: Workflow, form: StartForm, *, status: int = 200) -> HttpResponse:
    context = {"workflow": workflow, "operator": workflow.operator, "form": form}
    return render(request, "operators/start.html", context, status=status)
