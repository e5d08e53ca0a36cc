"""A run waits; an answer wakes it. Every rule about decisions is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import jsonschema
from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from openvibe import answers as answers_of
from openvibe import canonical
from openvibe.budgets import FORM
from openvibe.events import Event as Fact
from openvibe.outcomes import TERMINATE
from openvibe.protocol import nesting
from operators.errors import AlreadyDecided, Misfit, NotWaiting, QuoteMismatch
from operators.models import Card, Event, Operator, Run, Wait
from operators.models.lookup import listed
from operators.models.stroke import Change, Given, Insert, Update, strike
from operators.models.wait import RECALLABLE
from operators.services import budgets, cards, doorbell, effects, late, seats, timeline

CLOCK = "clock"
#: What an answer quotes of what it is about.
_QUOTED = ("version", "payload_sha256")


@dataclass(frozen=True)
class Answer:
    """What somebody decided, and the quote of what they saw: None where they did not say."""

    decision: str
    notes: str = ""
    values: Mapping[str, Any] | None = None
    version: int | None = None
    payload_sha256: str | None = None


def answer(wait: Wait, given: Answer, *, actor: AbstractUser | None, decider: str = "") -> Wait:
    """Decide an open gate and wake its run. The same decision again is the same decision.

    `decider` names who decided where that is no user of ours. What comes after the run's end changes nothing, and the
    run's thread tells of it; that is written at once, and undone by a caller who undoes his transaction.

    Raises:
        QuoteMismatch: the answer quotes something else than what is open.
        Misfit: the answer does not fit the gate's schema; the gate stays open.
        AlreadyDecided: another decision was first.
        NotWaiting: the run has ended or moved on.
        NotAsked: the gate is asked of somebody else.
        CountedAlready: this person has answered at another gate of the group.
    """
    by = actor.get_username() if actor else decider
    try:
        return _answered(wait, given, actor=actor, by=by)
    except (QuoteMismatch, AlreadyDecided, NotWaiting) as refused:
        said = {"decision": given.decision, "notes": given.notes, "values": given.values}
        late.tell(wait, by=by, reason=refused.code, **said)
        raise


def _answered(wait: Wait, given: Answer, *, actor: AbstractUser | None, by: str) -> Wait:
    _check_quote(wait, given)
    seats.check_asked(wait, actor, by)
    if not wait.pending:
        return _same_or_refused(wait, given)
    _check_fit(wait, given)
    fields = {
        "status": Wait.Status.RESOLVED,
        "decision": given.decision,
        "notes": given.notes,
        "values": dict(given.values) if given.values else None,
        "decided_by_id": actor.pk if actor else None,
        "decider": by,
    }
    if not _close(wait, fields):
        wait.refresh_from_db()
        return _same_or_refused(wait, given)
    return wait


def settle(wait: Wait, *, result: Any = None, error: str = "", by: str = "", ends: bool = False) -> bool:
    """Take in what a tool, an agent or another operator answers, and wake the run; False if somebody was faster.

    A tool's result that `ends` the run is the last word of the agent that has called it.
    """
    fields = {
        "decision": TERMINATE if ends else "",
        "status": Wait.Status.RESOLVED,
        "result": canonical.jsonable(result),
        "error": canonical.jsonable(error),
        "decider": by,
    }
    return _close(wait, fields)


def expire(wait: Wait) -> bool:
    """Do what is due at a wait's deadline; False if somebody was faster.

    A timer fires. A gate is escalated, once, if it says to whom; else it takes its default decision. Everybody else is
    told to have been silent.
    """
    match wait.kind:
        case Wait.Kind.TIMER:
            return _close(wait, {"status": Wait.Status.RESOLVED, "decider": CLOCK})
        case Wait.Kind.APPROVAL if wait.escalate_to and not wait.assignee:
            return _escalate(wait)
        case Wait.Kind.APPROVAL:
            notes = f"Nobody decided before {wait.deadline:%Y-%m-%d %H:%M} UTC."
            fields = {"status": Wait.Status.EXPIRED, "decision": wait.on_timeout, "notes": notes, "decider": CLOCK}
            return _close(wait, fields)
        case _:
            assert wait.deadline is not None
            error = answers_of.silence(wait.kind, wait.deadline)
            # Whoever may have been told counts as told: a worker may have died before it noted that.
            sent = {} if wait.sent_at or not wait.tried_at else {"sent_at": wait.tried_at}
            return _close(wait, {"status": Wait.Status.EXPIRED, "error": error, "decider": CLOCK, **sent})


@transaction.atomic
def _escalate(wait: Wait) -> bool:
    now = timezone.now()
    again = now + timedelta(seconds=wait.timeout_seconds or 0)
    last_seq = Run.objects.filter(id=wait.run_id).change("last_seq", "project_id", last_seq=F("last_seq") + 1)
    still = Wait.objects.pending().filter(id=wait.id, assignee="", deadline=wait.deadline)
    if last_seq is None or not still.update(assignee=wait.escalate_to, deadline=again):
        transaction.set_rollback(True)
        return False
    fact = Fact(
        "gate.escalated",
        node=wait.node,
        step_id=wait.step_id,
        data={"wait_id": wait.id, "to": wait.escalate_to, "deadline": again.isoformat()},
    )
    timeline.record(
        project_id=last_seq[1], run_id=wait.run_id, last_seq=last_seq[0], facts=[fact], now=now, actor=CLOCK
    )  # fmt: skip
    return True


def cancel_open(run_id: str, *, now: datetime) -> int:
    """Close every wait of a run that ends, and return how many; part of the caller's transaction."""
    return Wait.objects.filter(run_id=run_id).cancel(now=now)


def closing(run_id: str, *, now: datetime) -> Update:
    """Return what `cancel_open` does, for a statement that does more."""
    pending = {"run_id": run_id, "status": Wait.Status.PENDING}
    return Update(Wait, pending, {"status": Wait.Status.CANCELLED, "closed_at": now})


def answers(run_id: str, interrupt_ids: list[str]) -> dict[str, Any]:
    """Return the answers to these interrupts, as far as they have been given."""
    found = [
        wait for asked in interrupt_ids for wait in listed(Wait, order=["seat"], run_id=run_id, interrupt_id=asked)
    ]  # fmt: skip
    closed = (Wait.Status.RESOLVED, Wait.Status.EXPIRED)
    given = {wait.interrupt_id: wait.answer for wait in found if not wait.rule and wait.status in closed}
    return given | seats.answers([wait for wait in found if wait.rule])


def _check_quote(wait: Wait, given: Answer) -> None:
    quotes = {"version": given.version, "payload_sha256": given.payload_sha256}
    wrong = [name for name, quoted in quotes.items() if quoted is not None and quoted != getattr(wait, name)]
    if wrong:
        raise QuoteMismatch(
            f"What you saw is not what is open: {' and '.join(wrong)} of gate {wait.node!r} changed. Look again.",
            changed=wrong,
            **{name: getattr(wait, name) for name in quotes},
        )
    if wait.version > 1 and wait.pending and all(quoted is None for quoted in quotes.values()):
        # It may be about what was asked before.
        raise QuoteMismatch(
            f"Gate {wait.node!r} was asked anew, because the run's state was changed; quote the version that you saw",
            changed=["version"],
            **{name: getattr(wait, name) for name in quotes},
        )


def _check_fit(wait: Wait, given: Answer) -> None:
    body = {"decision": given.decision, "notes": given.notes, **({"values": given.values} if given.values else {})}
    errors = sorted(jsonschema.Draft202012Validator(wait.schema).iter_errors(body), key=lambda error: list(error.path))
    if nesting.deep(given.values):
        raise Misfit(f"values: {nesting.FAULT}")
    if not errors and canonical.jsonable(body) != body:
        raise Misfit("values: a whole number from 2**53 on, a NUL or half a character cannot be kept")
    if errors:
        problems = [{"field": ".".join(map(str, error.path)) or "values", "message": error.message} for error in errors]
        raise Misfit("; ".join(f"{item['field']}: {item['message']}" for item in problems), errors=problems)


def _close(wait: Wait, fields: dict[str, Any]) -> bool:
    fields = {**fields, "closed_at": timezone.now()}
    alone = not wait.rule and wait.form not in ("effect", FORM)
    return (alone and _close_at_once(wait, fields)) or _close_with_others(wait, fields)


def _close_at_once(wait: Wait, fields: dict[str, Any]) -> bool:
    """Close the wait of a run that waits for nothing else, in one statement; False if it is not as simple as that."""
    run, now = wait.run, fields["closed_at"]
    closed = Wait(**{name: getattr(wait, name) for name in ("id", "kind", "node", "step_id", *_QUOTED)}, **fields)
    large: list[Card] = []
    facts = timeline.rows(project_id=run.project_id, run_id=run.id, facts=[_closed(closed, {})], now=now,
                          actor=closed.decider, into=large)  # fmt: skip
    open_still = {name: getattr(wait, name) for name in ("id", *_QUOTED)} | {"status": Wait.Status.PENDING}
    change = Change(
        Run,
        # Whoever waited for the row sees the wait as it was before; that the run went on meanwhile its epoch shows.
        where={"id": run.id, "status": Run.Status.WAITING, "epoch": run.epoch},
        put={"status": Run.Status.QUEUED, "rung_at": now, "rings": 0, "updated_at": now, "told": False},
        add={"last_seq": len(facts)},
        counter="last_seq",
        inserts=[Insert(Event, facts, numbered="seq"), cards.rows(large)],
        updates=[Update(Wait, open_still, fields)],
        # Whoever closes it queues the run in the same transaction.
        given=Given(Wait, open_still),
    )
    if strike(change) is None:
        return False
    for name, value in fields.items():
        setattr(wait, name, value)
    # The worker's way is the longer one: it sets out first.
    transaction.on_commit(partial(doorbell.ring, run.id, run.operator))
    timeline.announce(facts)
    return True


@transaction.atomic
def _close_with_others(wait: Wait, fields: dict[str, Any]) -> bool:
    now = fields["closed_at"]
    # The run's row before its waits', as whoever plays or cancels it takes them: two orders would be a deadlock.
    rows = Run.objects.select_related("operator").only("id", "operator")
    run = rows.select_for_update(of=("self",), no_key=True).get(id=wait.run_id)
    open_still = Wait.objects.pending().filter(id=wait.id, version=wait.version, payload_sha256=wait.payload_sha256)
    if not open_still.update(**fields):
        return False
    for name, value in fields.items():
        setattr(wait, name, value)
    seats.check_counts_once(wait)
    if wait.form == "effect":
        effects.told(wait, now=now)
    elif wait.form == FORM:
        budgets.told(wait)
    over, told = seats.settled(wait, now=now)
    if over and wait.counted and wait.kind in RECALLABLE:
        transaction.on_commit(partial(doorbell.recall, wait.run_id, run.operator))
    _wake(wait, run.operator, told, over=over, now=now)
    return True


def _wake(wait: Wait, operator: Operator, told: Mapping[str, Any], *, over: bool, now: datetime) -> None:
    """Tell of an answer and queue the run, unless others are to answer first, or it goes on at another branch already.

    Then it finds the answer when it pauses again.
    """
    counted = {"updated_at": now, "last_seq": F("last_seq") + 1}
    runs = Run.objects.filter(id=wait.run_id)
    queued = {"status": Run.Status.QUEUED, "rung_at": now, "rings": 0}
    waiting = runs.filter(status=Run.Status.WAITING)
    changed = waiting.change("last_seq", "project_id", **queued, **counted) if over else None
    if changed is not None:
        transaction.on_commit(lambda: doorbell.ring(wait.run_id, operator))
    else:
        changed = runs.active().change("last_seq", "project_id", **counted)
    if changed is None:
        raise NotWaiting(f"Run {wait.run_id} does not wait any more", run_id=wait.run_id)
    timeline.record(
        project_id=changed[1],
        run_id=wait.run_id,
        last_seq=changed[0],
        facts=[_closed(wait, told)],
        now=now,
        actor=wait.decider,
    )


def _closed(wait: Wait, told: Mapping[str, Any]) -> Fact:
    expired = wait.status == Wait.Status.EXPIRED
    match wait.kind:
        case Wait.Kind.APPROVAL:
            kind, data = "gate.expired" if expired else "gate.decided", _decided(wait)
        case Wait.Kind.TIMER:
            kind, data = "timer.fired", {"wait_id": wait.id}
        case _:
            kind = f"{wait.kind}.expired" if expired else f"{wait.kind}.answered"
            data = {"wait_id": wait.id, "result": wait.result, "error": wait.error, "by": wait.decider}
    return Fact(kind, node=wait.node, step_id=wait.step_id, data={**data, **told})


def _decided(wait: Wait) -> dict[str, Any]:
    return {
        "wait_id": wait.id,
        "version": wait.version,
        "payload_sha256": wait.payload_sha256,
        "decision": wait.decision,
        "notes": wait.notes,
        "values": wait.values,
        "by": wait.decider,
    }


def _same_or_refused(wait: Wait, given: Answer) -> Wait:
    same = (wait.decision, wait.values or None) == (given.decision, dict(given.values) if given.values else None)
    if wait.status == Wait.Status.RESOLVED and same:
        return wait
    if wait.status == Wait.Status.CANCELLED:
        run = Run.objects.only("status", "ended_at").get(id=wait.run_id)
        if wait.overridden and run.active:
            told = f"The run's state was changed, and gate {wait.node!r} is being asked anew. Look again in a moment."
            raise QuoteMismatch(told, changed=list(_QUOTED), **{name: getattr(wait, name) for name in _QUOTED})
        # What a run's end closes bears the same time.
        if wait.counted and not wait.overridden and wait.closed_at != run.ended_at:
            raise seats.decided(wait)
        # What goes on again has been let try again after it failed.
        ended = Run.Status.FAILED if run.active else run.status
        raise NotWaiting(f"Gate {wait.node!r} is closed: its run was {ended}", run_id=wait.run_id)
    when = f"{wait.closed_at:%Y-%m-%d %H:%M:%S} UTC" if wait.closed_at else "before"
    raise AlreadyDecided(
        f"Gate {wait.node!r} was decided already: {wait.decision!r} by {wait.decider} at {when}",
        decision=wait.decision,
        decided_by=wait.decider,
        decided_at=wait.closed_at,
        wait_id=wait.id,
    )
