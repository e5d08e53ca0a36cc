"""The channel of one person, `u_<user>`: what gates ask of him, and what agents tell him. Nobody else reads it.

Gates are repeated there like news on the general channel: each once, whoever announces them, with numbers of the
channel's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Q

from openvibe.events import GATE_OPENED
from openvibe.protocol import subjects
from operators.models import Membership, Wait
from operators.models.event import EventRow, Told
from operators.services import channels

#: What people hear of the gates at which they may answer.
KINDS = frozenset({GATE_OPENED, "gate.escalated", "gate.overridden", "gate.decided", "gate.expired"})


def repeated(news: Sequence[Told]) -> list[EventRow]:
    """Repeat what gates tell on the channels of those who may answer there; return what is new, channel by channel."""
    told: list[EventRow] = []
    for project_id, events in channels.by_project(event for event in news if event.kind in KINDS).items():
        told += _repeated(project_id, events)
    return told


def owners(project_id: str, names: Iterable[str]) -> set[str]:
    """Return those of these channels that belong to people who see the project."""
    asked = {name for name in names if name.startswith(subjects.PERSONAL)}
    if not asked:
        return set()
    people = get_user_model().objects.filter(Q(memberships__project_id=project_id) | Q(is_superuser=True))
    known = people.filter(is_active=True).values_list("username", flat=True)
    return asked & {subjects.personal(name) for name in known}


@transaction.atomic
def _repeated(project_id: str, events: Sequence[Told]) -> list[EventRow]:
    asked = _asked(events)
    copies: dict[str, list[EventRow]] = defaultdict(list)
    for names in {frozenset(names) for names in asked.values()}:
        heard = [event for event in events if asked[event.run_id, event.seq] == names]
        for user in _answering(project_id, names):
            channel = subjects.personal(user)
            copies[channel] += [channels.copy(event, channel) for event in heard]
    told: list[EventRow] = []
    for channel in sorted(copies):
        ordered = sorted(copies[channel], key=lambda row: (row.created_at, row.run_id or "", row.message_id or ""))
        told += channels.append_new(channels.locked(project_id, channel), ordered)
    return told


def _asked(events: Sequence[Told]) -> dict[tuple[str, int], frozenset[str]]:
    """Return of whom each event's gate is asked by name: of users, or of groups of users; empty: of everybody."""
    gates = {(event.run_id, event.seq): channels.content(event).get("wait_id") for event in events}
    rows = Wait.objects.filter(id__in=gates.values()).values_list("id", "approver", "assignee")
    names = {gate: frozenset({approver, assignee} - {""}) for gate, approver, assignee in rows}
    return {event: names.get(str(gate), frozenset()) for event, gate in gates.items()}


def _answering(project_id: str, names: frozenset[str]) -> list[str]:
    """Return the users who may answer at a gate that is asked of these names (see `seats.may_answer`)."""
    users = get_user_model().objects.filter(is_active=True)
    members = Q(memberships__project_id=project_id, memberships__role__in=Membership.OPERATING)
    if not names:
        return list(users.filter(members).values_list("username", flat=True))
    if not users.filter(username__in=names).exists() and not Group.objects.filter(name__in=names).exists():
        return list(users.filter(_owning(project_id)).values_list("username", flat=True))
    named = Q(username__in=names) | Q(groups__name__in=names)
    return list(users.filter(named, members | Q(is_superuser=True)).distinct().values_list("username", flat=True))


def _owning(project_id: str) -> Q:
    return Q(memberships__project_id=project_id, memberships__role=Membership.Role.OWNER)
