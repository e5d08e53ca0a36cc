"""The servers that share a bus: what this one tells of itself, and what was heard of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from importlib import metadata
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from openvibe.protocol import subjects
from operators import definitions
from operators.models import Run, Server
from operators.models.server import BEAT_SECONDS
from operators.services import sources

#: How long a server that went silent is remembered.
REMEMBERED = timedelta(days=7)


def version() -> str:
    """Return the version of this installation; a checkout that nobody has installed has none of its own."""
    try:
        return metadata.version("openvibe")
    except metadata.PackageNotFoundError:
        return "0.0.0"


def capabilities() -> dict[str, list[str]]:
    """Return what may be asked of each operator that this server serves."""
    sources.refresh()
    return {
        operator.spec.id: sorted({name for item in operator.workflows.values() for name in item.spec.capabilities})
        for operator in definitions.registry
    }


def own() -> dict[str, Any]:
    """Return what this server tells of itself."""
    offered = capabilities()
    playing = Run.objects.filter(status=Run.Status.RUNNING, operator__slug__in=list(offered))
    return {
        "server": settings.OPENVIBE.server,
        "version": version(),
        "operators": sorted(offered),
        "capabilities": offered,
        "load": playing.count(),
        "last_heartbeat": timezone.now().isoformat(),
        "heartbeat_seconds": BEAT_SECONDS,
    }


def heard(entries: Iterable[Mapping[str, Any]]) -> None:
    """Write down what servers told of themselves; an entry that cannot be read is nobody's."""
    now = timezone.now()
    known = dict(Server.objects.values_list("id", "beat_at"))
    for entry in entries:
        beat_at = _moment(entry.get("last_heartbeat"))
        name = entry.get("server")
        if beat_at is None or not isinstance(name, str) or subjects.token(name) != name or known.get(name) == beat_at:
            continue
        # A clock may be wrong: only at first sight, where nothing else tells, the entry's own time counts.
        heard_at = now if name in known else min(beat_at, now)
        Server.objects.update_or_create(id=name, defaults={**_fields(entry), "beat_at": beat_at, "heard_at": heard_at})
    Server.objects.filter(heard_at__lt=now - REMEMBERED).delete()


def listing() -> list[Server]:
    """Return the servers that were heard of, by name; `state` says whether lately."""
    return list(Server.objects.all())


def offered(operator: str, capability: str) -> bool:
    """Tell whether a server that was heard of lately offers this."""
    return any(capability in server.capabilities.get(operator, ()) for server in listing() if server.state == "fresh")


def _fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    operators, offers, load = (entry.get(name) for name in ("operators", "capabilities", "load"))
    return {
        "operators": [str(name) for name in operators] if isinstance(operators, list) else [],
        "capabilities": {
            str(name): [str(item) for item in items]
            for name, items in (offers.items() if isinstance(offers, dict) else ())
            if isinstance(items, list)
        },
        "load": load if isinstance(load, int) and 0 <= load < 2**31 else 0,
        "version": str(entry.get("version") or "")[:40],
    }


def _moment(text: object) -> datetime | None:
    try:
        found = parse_datetime(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if found and found.tzinfo else None
