"""From a publish to a hundred websockets that watch one run, all the way: an agent's message is stored on it."""

from __future__ import annotations

import asyncio

from benchmarks import bounds, load
from benchmarks.figures import tell
from benchmarks.ground import Ground
from tests.acceptance import site as sites
from tests.acceptance.site import Site


def measure(ground: Ground) -> None:
    """Tell p50 and p99 for a model's words and for events."""
    with sites.running(
        ground.home / "shown",
        OPENVIBE_OPERATORS="benchmarks.operator",
        OPENVIBE_LEASE_SECONDS="30",
        OPENVIBE_LOG_LEVEL="WARNING",
        **ground.environment(),
    ) as site:
        asyncio.run(_sockets(ground, site))


async def _sockets(ground: Ground, site: Site) -> None:
    raw = await bounds.publish_to_subscribe(site.nats_url, subscribers=100, messages=100)
    for recorded in (False, True):
        shown = await load.to_websockets(site, sockets=100, messages=100, recorded=recorded)
        kind = "event" if recorded else "words"
        for name, seconds, bound in zip(("p50", "p99"), shown, raw, strict=True):
            tell(f"publish_to_100_websockets_{kind}_{name}", seconds * 1e3, "ms", where=ground.where,
                 bound=f"raw nats-py to 100 subscriptions, {name}", bound_value=bound * 1e3,
                 ratio=seconds / bound)  # fmt: skip
