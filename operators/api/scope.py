"""What the caller of one request may see: the token's project, or all of the user's; and the caller's own keys."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db.models import QuerySet
from django.http import Http404
from rest_framework.request import Request

from openvibe.protocol import headers
from operators.errors import Misfit
from operators.models import ApiToken, Membership, Operator, Project, Run, Workflow
from operators.models.lookup import look_up
from operators.models.operator import OperatorQuerySet
from operators.models.project import DEFAULT
from operators.models.run import RunQuerySet

KEY_HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,150}")


def caller(request: Request) -> AbstractUser:
    """Return who calls. Every view of ours lets in only those who are known."""
    user = request.user
    assert isinstance(user, AbstractUser)
    return user


def project(request: Request, *, operable: bool = False, owned: bool = False) -> Project:
    """Return the token's project or, for a session, the one that `?project=` names, else the user's first.

    It is one that the caller sees or, if `operable` or `owned`, may operate or owns; 404 if there is none.
    """
    rows = Project.objects.operable_by(request.user) if operable else Project.objects.visible_to(request.user)
    if owned:
        rows = Project.objects.owned_by(request.user)
    asked = request.query_params.get("project", "")
    named = request.auth.project_id if isinstance(request.auth, ApiToken) else asked
    if "\0" in named or (asked and asked != named):
        raise Http404(f"There is no project {asked!r}")
    found = (rows.filter(id=named) if named else rows).order_by("id").first()
    if found is None:
        what = "that you own" if owned else "in which you may change anything" if operable else "that you may see"
        raise Http404(f"There is no project {what}")
    return found


def operators(request: Request, *, operable: bool = False) -> OperatorQuerySet:
    """Return the operators that the caller sees or, if `operable`, may start."""
    rows = Operator.objects.operable_by(request.user) if operable else Operator.objects.visible_to(request.user)
    return rows.filter(project_id=request.auth.project_id) if isinstance(request.auth, ApiToken) else rows


def operator(request: Request, slug: str, *, operable: bool = False) -> Operator:
    """Return one of them; 404 for what does not exist and for what is not the caller's."""
    if isinstance(request.auth, ApiToken):
        found = _in_project(request.auth.project_id, slug, caller(request), operable=operable)
    else:
        found = operators(request, operable=operable).filter(slug=slug).first()
    if found is None:
        raise Http404(f"There is no operator {slug!r}")
    return found


def _in_project(project_id: str, slug: str, user: AbstractUser, *, operable: bool) -> Operator | None:
    """What `operators` finds for a token, by statements that are compiled once: most requests begin here."""
    if not _may(project_id, user, operable=operable):
        return None
    return look_up(Operator, "project", project_id=project_id, slug=slug, retired=False)


def _run_in_project(project_id: str, run_id: str, user: AbstractUser, *, operable: bool) -> Run | None:
    """What `runs` finds for a token, likewise."""
    if "\0" in run_id or not _may(project_id, user, operable=operable):
        return None
    return look_up(Run, "operator", "operator__project", "workflow", id=run_id, project_id=project_id)


def _may(project_id: str, user: AbstractUser, *, operable: bool) -> bool:
    if user.is_superuser:
        return True
    member = look_up(Membership, project_id=project_id, user_id=user.pk)
    return member is not None and (not operable or member.role in Membership.OPERATING)


def startable(request: Request) -> QuerySet[Workflow]:
    """Return the workflows that the caller of a webhook may start; a signature opens the project `default`."""
    token = request.auth if isinstance(request.auth, ApiToken) else None
    rows = operators(request, operable=True) if token else Operator.objects.filter(project_id=DEFAULT)
    return Workflow.objects.select_related("operator").filter(operator__in=rows.filter(enabled=True), retired=False)


def key(request: Request) -> str:
    """Return the caller's own name for this request, or an empty text; two users' names never meet."""
    given = request.headers.get(KEY_HEADER)
    if given is None:
        return ""
    if not _KEY.fullmatch(given):
        message = "takes 1 to 150 visible ASCII characters"
        raise Misfit(f"The header {KEY_HEADER} {message}", errors=[{"field": KEY_HEADER, "message": message}])
    return f"api:{caller(request).pk}:{given}"


def trace(request: Request) -> dict[str, Any]:
    """Return the trace that the caller works in, and what else is to go on in the runs that he starts."""
    return {"traceparent": headers.traceparent(request.headers), "passed_on": headers.passed_on(request.headers)}


def runs(request: Request, *, operable: bool = False) -> RunQuerySet:
    """Return the runs that the caller sees or, if `operable`, may change."""
    rows = Run.objects.operable_by(request.user) if operable else Run.objects.visible_to(request.user)
    rows = rows.select_related("operator", "workflow")
    return rows.filter(project_id=request.auth.project_id) if isinstance(request.auth, ApiToken) else rows


def run(request: Request, slug: str, run_id: str, *, operable: bool = False) -> Run:
    """Return one of them; 404 for what does not exist and for what is not the caller's."""
    if isinstance(request.auth, ApiToken):
        found = _run_in_project(request.auth.project_id, run_id, caller(request), operable=operable)
    else:
        found = runs(request, operable=operable).filter(operator__slug=slug, id=run_id).first()
    if found is None or found.operator.slug != slug:
        raise Http404(f"Operator {slug!r} has no run {run_id!r}")
    return found
