"""The waits of one interrupt that are answered together: who may answer which, and when the run goes on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser, Group

from openvibe import groups
from operators.errors import AlreadyDecided, CountedAlready, NotAsked
from operators.models import Project, Wait


def may_answer(wait: Wait, user: AbstractUser | None, name: str) -> bool:
    """Tell whether a gate is asked of somebody: of the user, or of a group that the user belongs to.

    What is asked of a name that nobody bears, the owners of the project answer.
    """
    asked = [told for told in (wait.approver, wait.assignee) if told]
    if not asked or name in asked:
        return True
    if user is None:
        return False
    if user.groups.filter(name__in=asked).exists():
        return True
    owner = Project.objects.owned_by(user).filter(pk=wait.run.project_id).exists()
    return owner and not any(map(_borne, asked))


def own(wait: Wait, user: AbstractUser) -> Wait:
    """Return the seat of this wait's group that is a user's: where he has answered, or is asked; else this one."""
    together = list(wait.group.select_related("run"))
    name = user.get_username()
    answered = (seat for seat in together if seat.decider == name)
    asked = (seat for seat in together if seat.pending and may_answer(seat, user, name))
    return next(answered, None) or next(asked, wait)


def check_asked(wait: Wait, user: AbstractUser | None, name: str) -> None:
    """Refuse the answer of somebody who is not asked; `user` is None where the name came over the bus.

    Raises:
        NotAsked: the gate is asked of somebody else.
    """
    if not wait.approver:
        return
    known = user or get_user_model().objects.filter(username=name).first()
    if not may_answer(wait, known, name):
        asked = wait.assignee or wait.approver
        raise NotAsked(f"Gate {wait.node!r} is asked of {asked!r} here, not of {name!r}", asked=asked, wait_id=wait.id)


def check_counts_once(wait: Wait) -> None:
    """Refuse a second answer of the same person; part of the transaction that wrote it and holds the run's row.

    Whom the question was passed on to answers for all who were silent.

    Raises:
        CountedAlready: this person has answered at another seat.
    """
    if _has_answered(wait, wait.decider):
        told = f"{wait.decider!r} has answered at gate {wait.node!r} already; everybody counts once"
        raise CountedAlready(told, wait_id=wait.id)


def open_to(wait: Wait, user: AbstractUser) -> bool:
    """Tell whether a user may answer a gate now: it is asked of him, and he has answered at no other of its group."""
    name = user.get_username()
    return may_answer(wait, user, name) and not _has_answered(wait, name)


def settled(wait: Wait, *, now: datetime) -> tuple[bool, dict[str, Any]]:
    """Return whether the run goes on after this answer, and how far its group of gates has come.

    What is not needed any more is closed then; part of the transaction that closes the wait and holds the run's row.
    """
    if not wait.rule:
        return True, {}
    together = list(wait.group)
    told = {"approver": wait.approver, "group": groups.standing(together)} if wait.approver else {}
    if not groups.over(together):
        return False, told
    wait.group.pending().update(status=Wait.Status.CANCELLED, closed_at=now)
    return True, told


def answers(found: list[Wait]) -> dict[str, Any]:
    """Return what goes into the graph for the groups that these waits are, as far as they are over."""
    together: dict[str, list[Wait]] = {}
    for wait in found:
        together.setdefault(wait.interrupt_id, []).append(wait)
    return {name: groups.answer(seats) for name, seats in together.items() if groups.over(seats)}


def decided(wait: Wait) -> AlreadyDecided:
    """Return the refusal of an answer that a group did without."""
    together = list(wait.group)
    latest = max(
        (seat for seat in together if seat.decider), key=lambda seat: (seat.closed_at, seat.seat), default=wait
    )
    word = groups.verdict(together) or ""
    told = f"Gate {wait.node!r} was decided without this answer: {word!r}, last by {latest.decider}"
    return AlreadyDecided(
        told, decision=word, decided_by=latest.decider, decided_at=wait.closed_at, wait_id=wait.id
    )  # fmt: skip


def _has_answered(wait: Wait, name: str) -> bool:
    if not wait.approver or wait.assignee or not name:
        return False
    others = wait.group.exclude(pk=wait.pk)
    return others.filter(decider=name, status=Wait.Status.RESOLVED).exists()


def _borne(name: str) -> bool:
    users = get_user_model().objects.filter(username=name)
    return users.exists() or Group.objects.filter(name=name).exists()
