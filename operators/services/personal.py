"""The channel of one person, `u_<user>`: what gates ask of him, and what agents tell him. Nobody else reads it.

Gates are repeated there like news on the general channel: each once, whoever announces them, with numbers of the
channel's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from django.contrib.auth import get_user_model
from django.db.models import Q

from openvibe.events import GATE_OPENED
from openvibe.protocol import subjects
from operators.models import Membership, Wait
from operators.models.event import EventRow, Told
from operators.models.lookup import listed, look_up
from operators.services import channels, seats

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


def _repeated(project_id: str, events: Sequence[Told]) -> list[EventRow]:
    asked = _asked(events)
    copies: dict[str, list[EventRow]] = defaultdict(list)
    for names in {frozenset(names) for names in asked.values()}:
        heard = [event for event in events if asked[event.run_id, event.seq] == names]
        for user in _answering(project_id, names):
            channel = subjects.personal(user)
            copies[channel] += [channels.copy(event, channel) for event in heard]
    told: list[EventRow] = []
    for channel, heard_there in copies.items():
        ordered = sorted(heard_there, key=lambda row: (row.created_at, row.run_id or "", row.message_id or ""))
        told += channels.repeat(project_id, channel, ordered)
    return told


def _asked(events: Sequence[Told]) -> dict[tuple[str, int], frozenset[str]]:
    """Return of whom each event's gate is asked by name: of users, or of groups of users; empty: of everybody."""
    gates = {(event.run_id, event.seq): str(channels.content(event).get("wait_id")) for event in events}
    waits = {gate: look_up(Wait, id=gate) for gate in set(gates.values())}
    names = {gate: frozenset({wait.approver, wait.assignee} - {""}) for gate, wait in waits.items() if wait}
    return {event: names.get(gate, frozenset()) for event, gate in gates.items()}


def _answering(project_id: str, names: frozenset[str]) -> list[str]:
    """Return the users who may answer at a gate that is asked of these names (see `seats.may_answer`)."""
    if not names:
        return [user for role in Membership.OPERATING for user in _members(project_id, role)]
    if not seats.borne(names):
        return _members(project_id, Membership.Role.OWNER)
    members = Q(memberships__project_id=project_id, memberships__role__in=Membership.OPERATING)
    named = Q(username__in=names) | Q(groups__name__in=names)
    users = get_user_model().objects.filter(is_active=True)
    return list(users.filter(named, members | Q(is_superuser=True)).distinct().values_list("username", flat=True))


def _members(project_id: str, role: str) -> list[str]:
    rows = listed(Membership, "user", order=["pk"], project_id=project_id, role=role)
    return [row.user.get_username() for row in rows if row.user.is_active]
