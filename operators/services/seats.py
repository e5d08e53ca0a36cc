"""The waits of one interrupt that are answered together: who may answer which, and when the run goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from openvibe import groups
from openvibe.outcomes import EACH, OpenWait
from operators.errors import AlreadyDecided, CountedAlready, NotAsked
from operators.models import Project, Run, Wait
from operators.services import doorbell


def may_answer(wait: Wait, user: AbstractUser | None, name: str) -> bool:
    """Tell whether a gate is asked of somebody: of the user, or of a group that the user belongs to.

    What is asked of a name that nobody bears, or nobody who is there still, the owners of the project answer.
    """
    asked = [told for told in (wait.approver, wait.assignee) if told]
    if not asked or name in asked:
        return True
    if user is None:
        return False
    if user.groups.filter(name__in=asked).exists():
        return True
    owner = Project.objects.owned_by(user).filter(pk=wait.run.project_id).exists()
    return owner and not borne(asked)


def borne(names: Collection[str]) -> bool:
    """Tell whether somebody who is there still bears one of these names, or belongs to a group that does."""
    people = get_user_model().objects.filter(is_active=True)
    return people.filter(Q(username__in=names) | Q(groups__name__in=names)).exists()


def own(wait: Wait, user: AbstractUser) -> Wait:
    """Return the seat of this wait's group that is a user's: where he has answered, or is asked; else this one."""
    together = list(wait.group.select_related("run"))
    name = user.get_username()
    answered = (seat for seat in together if seat.decider == name and seat.status == Wait.Status.RESOLVED)
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
    # A name that is nobody's account here may still be that of somebody on the bus.
    if (known and not known.is_active) or not may_answer(wait, known, name):
        asked = wait.assignee or wait.approver
        raise NotAsked(f"Gate {wait.node!r} is asked of {asked!r} here, not of {name!r}", asked=asked, wait_id=wait.id)


def check_counts_once(wait: Wait) -> None:
    """Refuse a second answer of the same person; part of the transaction that wrote it and holds the run's row.

    Whom the question was passed on to answers for all who were silent.

    Raises:
        CountedAlready: this person has answered at another seat.
    """
    # At a deadline nobody answers, whatever people are called.
    if wait.status == Wait.Status.RESOLVED and _has_answered(wait, wait.decider):
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
    if not wait.counted:
        return True, {}
    together = list(wait.group)
    told = {"approver": wait.approver, "group": groups.standing(together)} if wait.approver else {}
    if not groups.over(together):
        return False, told
    wait.group.cancel(now=now)
    return True, told


def reopening(run: Run, opened: Sequence[OpenWait], *, given: Mapping[str, Any]) -> tuple[tuple[OpenWait, ...], bool]:
    """Return those pauses that are not waits already, and whether an answer to one of the others is there by now.

    `given` are the answers, by interrupts, that this play began with: they are no news.

    A graph with branches pauses at several places; while one of them goes on, the others stay open and may be answered.
    So do the waits of a group that goes on after each answer. Part of the transaction that holds the run's row.
    """
    if opened[0].request.rule == EACH:
        return _taken_along(run, opened, heard=_heard(given))
    rows = Wait.objects.filter(run=run, interrupt_id__in=[item.interrupt_id for item in opened])
    known = dict(rows.values_list("interrupt_id", "status"))
    answered = any(status in (Wait.Status.RESOLVED, Wait.Status.EXPIRED) for status in known.values())
    return tuple(item for item in opened if item.interrupt_id not in known), answered


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


def _heard(given: Mapping[str, Any]) -> set[str]:
    """Return the names by which answers were given that groups go on after."""
    told = [answer.get("answers") for answer in given.values() if isinstance(answer, Mapping)]
    return {name for answers in told if isinstance(answers, Mapping) for name in answers}


def _taken_along(run: Run, opened: Sequence[OpenWait], *, heard: Collection[str]) -> tuple[tuple[OpenWait, ...], bool]:
    """Return those pauses that are new, and whether an answer to one that is asked again is there by now.

    One that was `heard` before counts only where nobody is left to wait for: else the run would go round and round.

    Waits that are asked again by the same name go along to where the run pauses now; those whose names are left out
    are cancelled. Part of the transaction that holds the run's row.
    """
    asked = {item.request.name: item for item in opened}
    place = opened[0].interrupt_id
    rows = Wait.objects.filter(run=run, rule=EACH).exclude(status=Wait.Status.CANCELLED)
    known = {wait.name: wait for wait in rows.only("id", "name", "seat", "status")}
    again = [wait for name, wait in known.items() if name in asked]
    # Their seats stay as they are; those of the new ones follow.
    rows.filter(pk__in=[wait.pk for wait in again]).update(interrupt_id=place)
    if rows.exclude(pk__in=[wait.pk for wait in again]).cancel(now=timezone.now()):
        transaction.on_commit(partial(doorbell.recall, run.id, run.operator))
    first = max((wait.seat for wait in again), default=-1) + 1
    new = [item for name, item in asked.items() if name not in known]
    numbered = tuple(replace(item, seat=seat) for seat, item in enumerate(new, start=first))
    waited_for = bool(numbered) or any(wait.pending for wait in again)
    return numbered, not waited_for or any(not wait.pending and wait.name not in heard for wait in again)


def _has_answered(wait: Wait, name: str) -> bool:
    if not wait.approver or wait.assignee or not name:
        return False
    others = wait.group.exclude(pk=wait.pk)
    return others.filter(decider=name, status=Wait.Status.RESOLVED).exists()
