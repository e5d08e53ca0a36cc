"""Rules across settings, as Django system checks: `manage.py check` and every start tell what is wrong."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from openvibe.errors import SetupError
from operators import definitions


@register()
def model_provider(**_: Any) -> list[CheckMessage]:
    """The chosen provider can be made: its package is there, and its key."""
    if settings.OPENVIBE.llm == "simulated":
        return []
    try:
        definitions.provider()
    except SetupError as error:
        return [Error(str(error), id="openvibe.E001")]
    return []
