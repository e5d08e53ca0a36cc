"""The servers that share a bus: what this one tells of itself, and what was heard of the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from importlib import metadata
from typing import Any

from django.conf import settings
from django.utils import timezone

from openvibe import canonical
from openvibe.protocol import subjects
from operators import definitions
from operators.models import Operator, Project, Run, Server
from operators.models.server import BEAT_SECONDS
from operators.moments import moment
from operators.services import sources

#: How long a server that went silent is remembered.
REMEMBERED = timedelta(days=7)

#: Parts of a Python version: its release behind an epoch, what comes before that release, and words.
_RELEASE = re.compile(r"(?:\d+!)?(\d+(?:\.\d+)*)", re.ASCII)
_EARLY = re.compile(r"(?:(?:a|b|rc)\d+(?:\.dev\d+)?|\.dev\d+)", re.ASCII)
_WORD = re.compile(r"[0-9A-Za-z-]+")


def version() -> str:
    """Return the version of this installation; a checkout that nobody has installed has none of its own."""
    try:
        return metadata.version("openvibe")
    except metadata.PackageNotFoundError:
        return "0.0.0"


def semantic(version: str) -> str:
    """Return a version of Python's as a semantic one, which NATS wants of services; what has no place goes to its end.

    `0.1.0.dev3+g12ab` becomes `0.1.0-dev3+g12ab`, `1.2.post1` becomes `1.2.0+post1`.
    """
    public, _, local = version.partition("+")
    found = _RELEASE.match(public)
    numbers = [str(int(number)) for number in found[1].split(".")] if found else []
    rest = public[found.end() :] if found else public
    early = _EARLY.fullmatch(rest)
    build = _WORD.findall(".".join([*numbers[3:], "" if early else rest, local]))
    release = ".".join([*numbers, "0", "0", "0"][:3])
    return release + (f"-{rest.lstrip('.')}" if early else "") + ("+" + ".".join(build) if build else "")


def capabilities() -> dict[str, dict[str, list[str]]]:
    """Return what may be asked of each operator that this server serves, by project; no project is left out."""
    sources.refresh()
    known = {
        operator.spec.id: sorted({name for item in operator.workflows.values() for name in item.spec.capabilities})
        for operator in definitions.registry
    }
    found: dict[str, dict[str, list[str]]] = {name: {} for name in Project.objects.values_list("id", flat=True)}
    rows = Operator.objects.filter(slug__in=known, retired=False)
    for project, slug in rows.order_by("slug").values_list("project_id", "slug"):
        found.setdefault(project, {})[slug] = known[slug]
    return found


def own() -> dict[str, dict[str, Any]]:
    """Return what this server tells each project of itself."""
    offered = capabilities()
    playing = Run.objects.filter(status=Run.Status.RUNNING).values_list("project_id", "operator__slug")
    loads = Counter(project for project, slug in playing if slug in offered.get(project, ()))
    now = timezone.now().isoformat()
    return {
        project: {
            "server": settings.OPENVIBE.server,
            "version": version(),
            "operators": sorted(found),
            "capabilities": found,
            "load": loads[project],
            "last_heartbeat": now,
            "heartbeat_seconds": BEAT_SECONDS,
        }
        for project, found in offered.items()
    }


def heard(project_id: str, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write down what servers told a project of themselves; an entry that cannot be read is nobody's."""
    now = timezone.now()
    known = dict(Server.objects.filter(project_id=project_id).values_list("name", "beat_at"))
    # Programs of others write there, too; no database keeps every text.
    for entry in (canonical.jsonable(dict(each)) for each in entries):
        beat_at = moment(str(entry.get("last_heartbeat")))
        name = entry.get("server")
        if beat_at is None or not isinstance(name, str) or subjects.token(name) != name or known.get(name) == beat_at:
            continue
        # A clock may be wrong: only at first sight, where nothing else tells, the entry's own time counts.
        heard_at = now if name in known else min(beat_at, now)
        told = {**_fields(entry), "beat_at": beat_at, "heard_at": heard_at}
        Server.objects.update_or_create(project_id=project_id, name=name, defaults=told)
    Server.objects.filter(heard_at__lt=now - REMEMBERED).delete()


def listing(project_id: str) -> list[Server]:
    """Return the servers that a project has heard of, by name; `state` says whether lately."""
    return list(Server.objects.filter(project_id=project_id))


def offered(project_id: str, operator: str, capability: str) -> bool:
    """Tell whether a server that a project has heard of lately offers this."""
    return any(capability in server.capabilities.get(operator, ()) for server in _fresh(project_id))


def surpassed(project_id: str, operator: str, capabilities: Iterable[str]) -> bool:
    """Tell whether another server, heard of lately, offers more of an operator than this one does."""
    own, known = settings.OPENVIBE.server, set(capabilities)
    others = [server for server in _fresh(project_id) if server.name != own]
    return any(set(server.capabilities.get(operator, ())) - known for server in others)


def _fresh(project_id: str) -> list[Server]:
    return [server for server in listing(project_id) if server.state == "fresh"]


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
