"""Gates: the list of those that are open, and the form of one."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractUser
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from agents_ui.access import PageRequest, operates, signed_in
from agents_ui.gates import GateForm
from openvibe import groups
from operators.errors import (
    AlreadyDecided,
    CountedAlready,
    DomainError,
    Misfit,
    NotAsked,
    NotWaiting,
    QuoteMismatch,
)
from operators.models import Wait
from operators.services import overrides, seats, waits

#: How many open and how many decided gates the list shows.
OPEN = 100
DECIDED = 20


@signed_in
@require_safe
def approvals(request: PageRequest) -> HttpResponse:
    """Open gates over all runs, oldest first; below them what was decided lately."""
    gates = Wait.objects.visible_to(request.user).gates().select_related("run__operator", "run__workflow")
    closed = gates.exclude(status=Wait.Status.PENDING).exclude(status=Wait.Status.CANCELLED)
    context = {"gates": gates.pending()[:OPEN], "decided": closed.order_by("-closed_at")[:DECIDED]}
    return render(request, "approvals/index.html", context)


@signed_in
@require_safe
def count(request: PageRequest) -> HttpResponse:
    """How many gates are open, for the header."""
    return render(request, "approvals/count.html")


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def gate(request: PageRequest, run_id: str, wait_id: str) -> HttpResponse:
    """The gate as this person may see it; a POST decides."""
    gates = Wait.objects.visible_to(request.user).gates().select_related("run", "decided_by")
    wait = get_object_or_404(gates, id=wait_id, run_id=run_id)
    if request.method == "POST":
        return _decided(request, wait)
    if not request.htmx:
        return redirect("run", run_id)
    return _drawn(request, GateForm(wait))


def _decided(request: PageRequest, wait: Wait) -> HttpResponse:
    if not operates(request.user, wait.run.project_id):
        raise Http404("There is no such gate")
    form = GateForm(wait, request.POST.dict())
    try:
        waits.answer(wait, form.answer(), actor=request.user)
    except Misfit as error:
        form.refuse(error)
        return _drawn(request, form, status=error.status)
    except (AlreadyDecided, QuoteMismatch, NotWaiting, NotAsked, CountedAlready) as error:
        return _refused(request, wait, form, error)
    return _drawn(request, form) if request.htmx else redirect("run", wait.run_id)


def _refused(request: PageRequest, wait: Wait, sent: GateForm, error: DomainError) -> HttpResponse:
    wait.refresh_from_db()
    form = GateForm(wait)
    form.notes = sent.notes
    return _drawn(request, form, status=error.status, refusal=error)


def _may_decide(user: AbstractUser, wait: Wait) -> bool:
    if not operates(user, wait.run.project_id):
        return False
    return not wait.approver or seats.open_to(wait, user)


def _drawn(request: PageRequest, form: GateForm, *, status: int = 200, **more: Any) -> HttpResponse:
    wait = form.wait
    context = {"form": form, "wait": wait, "run": wait.run, "may_operate": _may_decide(request.user, wait), **more}
    if wait.version > 1:
        context["override"] = overrides.latest(wait)
    if wait.counted:
        together = list(wait.group)
        context |= {"seats": together, "standing": groups.standing(together)}
    part = "gates/open.html" if wait.pending else "gates/closed.html"
    return render(request, part if request.htmx else "gates/page.html", {**context, "part": part}, status=status)
