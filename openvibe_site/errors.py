"""What keeps the supervisor from starting although the settings are right."""

from __future__ import annotations

from openvibe.errors import OpenVibeError


class CannotStart(OpenVibeError):
    """Something on this machine is in the way; the message is one sentence that names it and the remedy."""
