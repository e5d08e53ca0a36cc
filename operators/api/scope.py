"""What the caller of one request may see: the token's project, or all of the user's."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.http import Http404
from rest_framework.request import Request

from operators.models import ApiToken, Operator, Run
from operators.models.operator import OperatorQuerySet
from operators.models.run import RunQuerySet


def caller(request: Request) -> AbstractUser:
    """Return who calls. Every view of ours lets in only those who are known."""
    user = request.user
    assert isinstance(user, AbstractUser)
    return user


def operators(request: Request, *, operable: bool = False) -> OperatorQuerySet:
    """Return the operators that the caller sees or, if `operable`, may start."""
    rows = Operator.objects.operable_by(request.user) if operable else Operator.objects.visible_to(request.user)
    return rows.filter(project_id=request.auth.project_id) if isinstance(request.auth, ApiToken) else rows


def operator(request: Request, slug: str, *, operable: bool = False) -> Operator:
    """Return one of them; 404 for what does not exist and for what is not the caller's."""
    found = operators(request, operable=operable).filter(slug=slug).first()
    if found is None:
        raise Http404(f"There is no operator {slug!r}")
    return found


def runs(request: Request, *, operable: bool = False) -> RunQuerySet:
    """Return the runs that the caller sees or, if `operable`, may change."""
    rows = Run.objects.operable_by(request.user) if operable else Run.objects.visible_to(request.user)
    rows = rows.select_related("operator", "workflow")
    return rows.filter(project_id=request.auth.project_id) if isinstance(request.auth, ApiToken) else rows


def run(request: Request, slug: str, run_id: str, *, operable: bool = False) -> Run:
    """Return one of them; 404 for what does not exist and for what is not the caller's."""
    found = runs(request, operable=operable).filter(operator__slug=slug, id=run_id).first()
    if found is None:
        raise Http404(f"Operator {slug!r} has no run {run_id!r}")
    return found
