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


def beaten(project_id: str, said: Sequence[Health]) -> None:
    """Take in what a project's agents said of their health, each agent's last word."""
    now = timezone.now()
    latest = {item.agent_id: item for item in said}
    new = [Agent(project_id=project_id, name=name, created_at=now, heard_at=now) for name in sorted(latest)]
    with transaction.atomic():
        Agent.objects.bulk_create(new, ignore_conflicts=True)
        # Locked in the order in which everybody takes them.
        known = (
            Agent.objects.filter(project_id=project_id, name__in=latest).order_by("name").select_for_update(no_key=True)
        )
        agents = [_beaten(agent, latest[agent.name], now) for agent in known]
        Agent.objects.bulk_update(agents, ["role", "health", "beat_at", "beat_seconds", "heard_at"], batch_size=500)


def heard(project_id: str, name: str) -> None:
    """Note that an agent has said something."""
    Agent.objects.filter(project_id=project_id, name=name).update(heard_at=timezone.now())


def start(run: Run, name: str, *, role: str, container_id: str, actor: str) -> tuple[Agent, bool]:
    """Let an agent begin to work in a session, as somebody says who has started it, and tell whether that is new.

    Raises:
        RunAlreadyEnded: there is nothing left to work at.
    """
    payload = {"agent_id": name, "role": role, "container_id": container_id}
    now = timezone.now()
    with transaction.atomic():
        run = Run.objects.select_for_update(no_key=True).get(pk=run.pk)
        if not run.active:
            raise RunAlreadyEnded(f"Session {run.id} has ended already: {run.status}", run_status=run.status)
        new = not Stint.objects.open().filter(run=run, agent__name=name).exists()
        if new:
            _say(run, STARTED, payload, actor=actor)
            told([Presence(run.project_id, run.id, STARTED, name, now, role, container_id)], now=now)
    return Agent.objects.get(project_id=run.project_id, name=name), new


def stop(agent: Agent, *, actor: str) -> None:
    """Let an agent be stopped in all its sessions, which hear of it; an agent that is fine will say that it starts."""
    for stint in list(agent.stints.open().order_by("run_id")):
        _stop(agent, stint, reason=f"stopped by {actor}", actor=actor)
    Agent.objects.filter(pk=agent.pk).update(beat_at=None, health="")


@transaction.atomic
def _stop(agent: Agent, stint: Stint, *, reason: str, actor: str) -> None:
    run = Run.objects.select_for_update(no_key=True).get(pk=stint.run_id)
    if Stint.objects.open().filter(pk=stint.pk).exists():
        now = timezone.now()
        _say(run, STOPPED, {"agent_id": agent.name, "reason": reason}, actor=actor)
        told([Presence(agent.project_id, run.id, STOPPED, agent.name, now, reason=reason)], now=now)


def forget() -> None:
    """Forget agents that work nowhere and were not heard of for long."""
    old = Agent.objects.filter(heard_at__lt=timezone.now() - KEPT)
    working = Stint.objects.open().values("agent_id")
    old.exclude(pk__in=working).delete()


def _beaten(agent: Agent, said: Health, now: datetime) -> Agent:
    agent.role = (said.role or agent.role)[:80]
    agent.health, agent.beat_at, agent.heard_at = (said.status or "ok")[:40], now, now
    agent.beat_seconds = said.interval_seconds or BEAT_SECONDS
    return agent


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
    name = f"notice_{random_text(24)}"
    notices.write(type, payload, project_id=run.project_id, session_id=run.id, id=name, run=run)
