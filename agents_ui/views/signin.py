"""Signing in: by name and password, or by a link that works once."""

from __future__ import annotations

from django.contrib.auth import login
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from operators.services import signin

BACKEND = "django.contrib.auth.backends.ModelBackend"


class Password(LoginView):
    """The form for name and password."""

    template_name = "signin/password.html"
    redirect_authenticated_user = True


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def link(request: HttpRequest, token: str) -> HttpResponse:
    """A link from the console. Opening it shows a button: what merely looks at links must not use them up."""
    if request.method != "POST":
        return render(request, "signin/link.html")
    user = signin.redeem(token)
    if user is None:
        return render(request, "signin/refused.html", status=403)
    login(request, user, backend=BACKEND)
    return redirect("operators")
