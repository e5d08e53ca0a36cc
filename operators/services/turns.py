"""What the timeline tells of turns, for agents of the dialect `cg`: derived from recorded events only.

A run's operator, trace and depth are in no event. Whoever claims or queues a run says them (`meet`), so that hardly any
run has to be looked up.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from django.conf import settings

from openvibe.bus import Message
from openvibe.protocol import envelope, headers, subjects
from openvibe.protocol import turns as wire
from openvibe.protocol.turns import TASKS, TELLING, Turn, output_box
from operators.models import Event, Run
from operators.models.event import Told
from operators.models.operator import EXTERNAL
from operators.services import boxes

#: How many runs a process remembers.
MOST = 10_000
#: How the trigger of a run begins that a command has started; the caller's name for it follows.
COMMANDED = "turn:"


@dataclass(frozen=True, slots=True)
class _Followed:
    """A run's turn as the events up to number `seq` left it."""

    turn: Turn
    seq: int
    traceparent: str
    depth: int
    passed_on: Mapping[str, str]
    #: What whoever asked for the run by a command calls this turn.
    asked_as: str


_lock = threading.Lock()
_followed: dict[str, _Followed] = {}


def meet(run: Run, *, seq: int, epoch: int) -> None:
    """Know a run, as the events up to number `seq` left it; its operator must be at hand."""
    _remember(run.id, _followed_from(run, Turn(run.id, run.operator.slug, run.retries, epoch), seq))


def messages(parts: Sequence[Sequence[Told]]) -> list[list[Message]]:
    """Return what consecutive events of threads tell of their runs' turns, for each part."""
    telling = [any(event.kind in TELLING for event in part) and subjects.is_thread(part[0].channel) for part in parts]
    strange = [part[0] for part, tells in zip(parts, telling, strict=True) if tells and not _known(part[0])]
    if strange:
        _look_up(strange)
    followed = [_follow(part) if tells else [] for part, tells in zip(parts, telling, strict=True)]
    return [[message for moment in moments for message in _messages(moment)] for moments in followed]


@dataclass(frozen=True, slots=True)
class _Moment:
    """An event, and its run's turn as it leaves it."""

    event: Told
    turn: Turn
    run: _Followed


def _follow(events: Sequence[Told]) -> list[_Moment]:
    found = _followed.get(events[0].run_id or "")
    if found is None or found.turn.agent_id == EXTERNAL:
        # Whoever plays an external run tells of it himself.
        return []
    turn, moments = found.turn, []
    for event in events:
        turn = turn.after(event.kind, event.data)
        moments.append(_Moment(event, turn, found))
    _remember(turn.run_id, replace(found, turn=turn, seq=events[-1].seq))
    return moments


def _messages(moment: _Moment) -> list[Message]:
    event, turn = moment.event, moment.turn
    at = event.created_at.isoformat()
    found = wire.told(turn, event.kind, step_id=event.step_id, node=event.node, data=event.data, at=at)
    delivered: dict[str, Any] = {}
    if TASKS.get(event.kind) == "success":
        card = boxes.deliverable(event.data["output"])
        delivered = {"deliverable_card_id": card, "output_box_id": output_box(turn.id)}
    return [
        _message(event, family, fields | delivered if family == "task" else fields, moment.run)
        for family, fields in found
        if family != "step" or settings.OPENVIBE.turn_steps
    ]


def _message(event: Told, family: str, fields: dict[str, Any], run: _Followed) -> Message:
    agent = run.turn.agent_id
    subject = _subject(event.project_id, event.channel, agent, family)
    name = f"{event.channel}:{event.seq}:{family}"
    body = {
        "version": envelope.VERSION,
        "id": name,
        "timestamp": event.created_at,
        "type": f"agent.{family}",
        "project": event.project_id,
        "channel": event.channel,
        "run_id": event.run_id,
        "operator_id": agent,
        "seq": event.seq,
        "role": "system",
        "kind": family,
        **({"correlation_id": run.asked_as} if run.asked_as else {}),
        **fields,
        "payload": fields,
    }
    stamps = headers.stamped(
        f"agent.{family}",
        message_id=envelope.message_id(subject, name),
        traceparent=run.traceparent,
        depth=run.depth,
        passed_on=run.passed_on,
    )
    return Message(subject, envelope.dumps(body), stamps)


@lru_cache(maxsize=1000)
def _subject(project: str, channel: str, agent: str, family: str) -> str:
    return str(subjects.Subject(project, channel, "evt", "agent", agent, family))


def _known(first: Told) -> bool:
    found = _followed.get(first.run_id or "")
    return found is not None and found.seq == first.seq - 1


def _look_up(firsts: Sequence[Told]) -> None:
    """Learn of runs whose thread others have continued meanwhile, or of whom nobody here has heard."""
    at = {first.run_id: first for first in firsts}
    for run in Run.objects.filter(id__in=at).select_related("operator"):
        first = at[run.id]
        turn = Turn(run.id, run.operator.slug)
        if run.epoch and first.kind != "run.started":
            for kind, data in _claims(first):
                turn = turn.after(kind, data)
        _remember(run.id, _followed_from(run, turn, first.seq - 1))


def _claims(first: Told) -> list[tuple[str, Any]]:
    rows = Event.objects.filter(project_id=first.project_id, channel=first.channel, seq__lt=first.seq)
    claims = rows.filter(kind__in=("run.started", "run.resumed", "run.retried")).order_by("seq")
    return list(claims.values_list("kind", "data"))


def _followed_from(run: Run, turn: Turn, seq: int) -> _Followed:
    _, asked, name = run.trigger.partition(COMMANDED)
    return _Followed(turn, seq, run.traceparent, run.depth, run.passed_on, name if asked else "")


def _remember(run_id: str, found: _Followed) -> None:
    with _lock:
        # Whoever was spoken of last is forgotten last.
        _followed.pop(run_id, None)
        _followed[run_id] = found
        if len(_followed) > MOST:
            del _followed[next(iter(_followed))]
