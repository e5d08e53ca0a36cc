"""Who may open a page: signed in, and a member of the project. Absent and forbidden look the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from urllib.parse import urlencode

from django.contrib.auth.models import AbstractUser
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails

from operators.models import Project

View = Callable[..., HttpResponse]


class PageRequest(HttpRequest):
    """A request as our views get it: somebody is signed in, and htmx is known."""

    user: AbstractUser  # type: ignore[assignment]  # nobody anonymous comes this far
    htmx: HtmxDetails


def signed_in(view: View) -> View:
    """Send strangers to the sign-in page; inside a page, the whole page goes there, not the fragment."""

    @wraps(view)
    def guarded(request: PageRequest, *args: str, **named: str) -> HttpResponse:
        if "%00" in request.META.get("QUERY_STRING", ""):
            raise BadRequest("No database looks for a NUL")
        if request.user.is_authenticated:
            return view(request, *args, **named)
        if request.htmx:
            return HttpResponseClientRedirect(f"{reverse('signin')}?{urlencode({'next': _page(request)})}")
        return redirect_to_login(request.get_full_path())

    return guarded


def _page(request: PageRequest) -> str:
    """Return the address of the page that asked for a fragment."""
    return request.htmx.current_url_abs_path or reverse("runs")


def operates(user: AbstractUser, project_id: str) -> bool:
    """Tell whether the user may start, cancel and decide in a project."""
    return Project.objects.operable_by(user).filter(id=project_id).exists()
