"""Agents elsewhere: what their own words, and ours, say of where they work and whether they live."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from openvibe.events import Event as Fact
from openvibe.ids import random_text
from openvibe.protocol.session_payloads import Health
from operators.errors import RunAlreadyEnded
from operators.models import Agent, Run, Stint
from operators.models.agent import BEAT_SECONDS
from operators.models.project import DEFAULT
from operators.services import notices, timeline

STARTED, STOPPED = "event.agent.started", "event.agent.stopped"
#: How long an agent is kept that has nothing to do with any session and was not heard of.
KEPT = timedelta(days=30)


@dataclass(frozen=True)
class Presence:
    """What an agent said of its work in a session, and when, by its own clock."""

    project: str
    run_id: str
    type: str
    agent: str
    at: datetime
    role: str = ""
    container_id: str = ""
    reason: str = ""


def told(said: Iterable[Presence], *, now: datetime) -> None:
    """Take in what agents said of sessions; part of the transaction that records it.

    The order in which it comes does not matter, and neither does hearing it twice.
    """
    # Everybody takes the rows in the same order.
    for item in sorted(said, key=lambda item: (item.project, item.agent, item.run_id)):
        agent = _known(item.project, item.agent, now, role=item.role)
        stint, _ = Stint.objects.get_or_create(agent=agent, run_id=item.run_id)
        rows = Stint.objects.filter(pk=stint.pk)
        # A clock that goes fast would leave no later word a chance.
        at = min(item.at, now)
        if item.type == STARTED:
            newer = rows.filter(Q(started_at=None) | Q(started_at__lt=at))
            newer.update(started_at=at, role=item.role[:80], container_id=item.container_id[:200])
        else:
            newer = rows.filter(Q(stopped_at=None) | Q(stopped_at__lt=at))
            newer.update(stopped_at=at, reason=item.reason[:500])


def beaten(said: Sequence[Health]) -> None:
    """Take in what agents said of their health, each agent's last word."""
    now = timezone.now()
    latest = {item.agent_id: item for item in said}
    with transaction.atomic():
        for name in sorted(latest):
            item = latest[name]
            agent = _known(DEFAULT, name, now, role=item.role or "")
            Agent.objects.filter(pk=agent.pk).update(
                health=(item.status or "ok")[:40], beat_at=now, beat_seconds=item.interval_seconds or BEAT_SECONDS
            )


def heard(project_id: str, name: str) -> None:
    """Note that an agent has said something."""
    Agent.objects.filter(project_id=project_id, name=name).update(heard_at=timezone.now())


def start(run: Run, name: str, *, role: str, container_id: str, actor: str) -> Agent:
    """Let an agent begin to work in a session, in the words of somebody who has started it.

    Raises:
        RunAlreadyEnded: there is nothing left to work at.
    """
    if not run.active:
        raise RunAlreadyEnded(f"Session {run.id} has ended already: {run.status}", run_status=run.status)
    payload = {"agent_id": name, "role": role, "container_id": container_id}
    now = timezone.now()
    with transaction.atomic():
        _say(run, STARTED, payload, actor=actor)
        told([Presence(run.project_id, run.id, STARTED, name, now, role, container_id)], now=now)
    return Agent.objects.get(project_id=run.project_id, name=name)


def stop(agent: Agent, *, actor: str) -> None:
    """Let an agent be stopped in all its sessions, which hear of it; an agent that is fine will say that it starts."""
    now = timezone.now()
    reason = f"stopped by {actor}"
    for stint in list(agent.stints.open().select_related("run").order_by("run_id")):
        with transaction.atomic():
            _say(stint.run, STOPPED, {"agent_id": agent.name, "reason": reason}, actor=actor)
            gone = Presence(agent.project_id, stint.run_id, STOPPED, agent.name, now, reason=reason)
            told([gone], now=now)
    Agent.objects.filter(pk=agent.pk).update(beat_at=None, health="")


def forget() -> None:
    """Forget agents that work nowhere and were not heard of for long."""
    old = Agent.objects.filter(heard_at__lt=timezone.now() - KEPT)
    working = Stint.objects.open().values("agent_id")
    old.exclude(pk__in=working).delete()


def _known(project_id: str, name: str, now: datetime, *, role: str) -> Agent:
    new = {"created_at": now, "heard_at": now, "role": role[:80]}
    agent, made = Agent.objects.get_or_create(project_id=project_id, name=name, defaults=new)
    if not made:
        changes: dict[str, Any] = {"heard_at": now, **({"role": role[:80]} if role else {})}
        Agent.objects.filter(pk=agent.pk).update(**changes)
    return agent


def _say(run: Run, type: str, payload: dict[str, str], *, actor: str) -> None:
    """Record what we say in an agent's place on the session's thread, and tell those who hear the session."""
    kind = f"agent.{type.removeprefix('event.').replace('.', '_')}"
    content = payload.get("reason") or type
    data = {"content": content, "role": "system", "payload": payload, "by": actor}
    timeline.note(run.id, Fact(kind, data=data), actor=payload["agent_id"])
    notices.write(type, payload, session_id=run.id, id=f"notice_{random_text(24)}", run=run)
