"""What every page knows."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import HttpRequest

from operators.models import Wait
from operators.models.project import Actor


def navigation(request: HttpRequest) -> dict[str, Any]:
    """Return what the header shows; the count is asked for only where a header is drawn."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    return {"open_gates": partial(_open_gates, user)}


def _open_gates(user: Actor) -> int:
    return Wait.objects.visible_to(user).gates().pending().count()
