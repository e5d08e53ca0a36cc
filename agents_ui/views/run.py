"""One run: its thread, what it came to, its cancellation and its retries."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from agents_ui import kinship, rendering
from agents_ui.access import PageRequest, operates, signed_in
from openvibe.protocol import subjects
from operators.errors import NotRetryable, RunAlreadyEnded
from operators.models import Card, Event, Project, Run
from operators.numbers import natural
from operators.services import intake, timeline

#: How many events a page shows at first, and how many more at a time.
EVENTS = 200


@signed_in
@require_safe
def detail(request: PageRequest, run_id: str) -> HttpResponse:
    """The run, from its newest events back."""
    runs = Run.objects.visible_to(request.user).select_related(*rendering.SHOWN)
    run = get_object_or_404(runs, id=run_id)
    events = timeline.newest(run.project_id, subjects.thread(run.id), limit=EVENTS)
    context = {
        **rendering.head(run),
        "may_operate": (may_operate := operates(request.user, run.project_id)),
        # The steps themselves look the same to everybody.
        "may_fork": may_operate and not run.pruned_at and not run.workflow.retired,
        "timeline": rendering.timeline(events),
        "after": events[-1].seq if events else 0,
        "before": _before(events),
    }
    return render(request, "run/page.html", context)


@signed_in
@require_safe
def older(request: PageRequest, run_id: str) -> HttpResponse:
    """Events that come before number `before`."""
    run = get_object_or_404(Run.objects.visible_to(request.user), id=run_id)
    before = natural(request.GET.get("before", ""))
    if before is None:
        raise Http404("before= names no event")
    events = timeline.newest(run.project_id, subjects.thread(run.id), before=before, limit=EVENTS)
    context = {"run": run, "timeline": rendering.earlier(events), "before": _before(events)}
    return render(request, "run/older.html", context)


@signed_in
@require_safe
def started(request: PageRequest, run_id: str, act: str) -> HttpResponse:
    """The runs that one act of a run has started by now."""
    run = get_object_or_404(Run.objects.visible_to(request.user), id=run_id)
    entry = {"run_id": run.id, "at": kinship.awaited(act)}
    return render(request, "timeline/started.html", {"children": kinship.children(run.id), "act": act, "entry": entry})


@signed_in
@require_POST
def cancellation(request: PageRequest, run_id: str) -> HttpResponse:
    """End an unfinished run."""
    run = get_object_or_404(Run.objects.operable_by(request.user), id=run_id)
    try:
        intake.cancel(run, actor=request.user, reason=request.POST.get("reason", "").strip()[:1000])
    except RunAlreadyEnded as error:
        messages.error(request, str(error))
    return redirect("run", run_id)


@signed_in
@require_POST
def retries(request: PageRequest, run_id: str) -> HttpResponse:
    """Let a failed run try again."""
    run = get_object_or_404(Run.objects.operable_by(request.user), id=run_id)
    try:
        intake.retry(run, actor=request.user)
    except NotRetryable as error:
        messages.error(request, str(error))
    return redirect("run", run_id)


@signed_in
@require_safe
def card(request: PageRequest, sha256: str) -> HttpResponse:
    """A large value, in full."""
    cards = Card.objects.filter(project__in=Project.objects.visible_to(request.user), sha256=sha256)
    found = cards.order_by("id").first()
    if found is None:
        raise Http404("There is no such card")
    return render(request, "run/card.html", {"card": found})


def _before(events: list[Event]) -> int | None:
    return events[0].seq if events and events[0].seq > 1 else None
