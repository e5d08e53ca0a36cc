"""Services outside that operators work with; each module is for one of them and is imported where it is used."""

from __future__ import annotations

from typing import Any, Protocol


class Timeline(Protocol):
    """What a node's `ctx` offers here."""

    def log(self, message: str, **data: Any) -> None:
        """Say something on the run's timeline."""


def not_connected(ctx: Timeline, service: str, remedy: str) -> dict[str, Any]:
    """Say on the timeline that a service is not connected, so that nothing was sent to it or read from it.

    Returns an empty update, so that a node can end with it. `remedy` is a whole sentence that tells what to do.

    Example:
        >>> if (crm := hubspot.from_environment()) is None:
        ...     return contrib.not_connected(ctx, "HubSpot", hubspot.REMEDY)
    """
    ctx.log(f"{service} is not connected, so this step left it alone. {remedy}", service=service, connected=False)
    return {}
