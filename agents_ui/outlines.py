"""A workflow as its operator's page tells it: what starts it, what it tells others, and its nodes in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from pydantic import ValidationError

from agents_ui import triggers
from openvibe import paths, subscriptions
from openvibe.errors import SetupError
from openvibe.scheduler.cron import Cron
from openvibe.specs import NodeSpec, WorkflowSpec
from operators.models import Node, Operator, Workflow
from operators.services import schedule

#: What each kind of node does, in a few words; an LLM's and an agent's model follow them.
DOES = {
    "logic": "computes",
    "llm": "asks",
    "gate": "a person decides",
    "conditional": "chooses the way",
    "agent": "an agent on",
    "remote": "an agent elsewhere works",
    "graph": "a node of a LangGraph graph",
}

COUNTED = ("workflows", "subscriptions", "capabilities")


@dataclass(frozen=True)
class Event:
    """An event that a workflow hears or tells, and the workflows at its other end."""

    name: str
    others: Sequence[Workflow]
    where: Mapping[str, object] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The event's name, or what a pattern means."""
        return triggers.event(self.name).removeprefix("the event ")


@dataclass(frozen=True)
class Way:
    """Where a label or a decision leads: to a node, to the end, or to a failure."""

    label: str
    to: str


@dataclass(frozen=True)
class Place:
    """One node, with where it leads if that is not simply the next one."""

    spec: NodeSpec
    model: str
    ways: Sequence[Way]
    branch: bool
    then: str

    @property
    def does(self) -> str:
        """What it does, in a few words."""
        return f"{DOES[self.spec.kind]} {self.model}".strip()


@dataclass(frozen=True)
class Outline:
    """One workflow's description, read for a page. One that another version of OpenVibe wrote has no `spec`."""

    workflow: Workflow
    spec: WorkflowSpec | None = None
    hears: Sequence[Event] = ()
    tells: Sequence[Event] = ()
    places: Sequence[Place] = ()
    comes: datetime | None = None
    paused: bool = False

    @property
    def webhook(self) -> str:
        """The address's last part, if other systems start it."""
        return self.spec.trigger.source if self.spec and self.spec.trigger.kind == "webhook" else ""


def of(operator: Operator) -> list[Outline]:
    """Return the outlines of an operator's workflows, in order."""
    rows = Workflow.objects.filter(operator__project_id=operator.project_id, retired=False).select_related("operator")
    specs = {row: described(row) for row in rows.prefetch_related("nodes")}
    known = {row: spec for row, spec in specs.items() if spec}
    off = _switched_off(operator)
    own = [row for row in specs if row.operator_id == operator.pk]
    return [_outline(row, known, off=off) if row in known else Outline(row) for row in own]


def counts(workflows: Iterable[Workflow]) -> dict[str, int]:
    """Count workflows, what they listen to beside their triggers, and what they answer."""
    specs = [described(workflow) for workflow in workflows]
    known = [spec for spec in specs if spec]
    return {
        "workflows": len(specs),
        "subscriptions": sum(len(spec.listens) for spec in known),
        "capabilities": sum(len(spec.capabilities) for spec in known),
    }


def described(workflow: Workflow) -> WorkflowSpec | None:
    """Return a workflow's description; None if another version of OpenVibe wrote it."""
    try:
        return WorkflowSpec.model_validate(workflow.spec)
    except (ValidationError, SetupError):
        return None


def _switched_off(operator: Operator) -> set[str]:
    """Return the names of the schedules that an administrator has switched off."""
    prefix = f"{schedule.PREFIX}{operator.project_id}:{operator.slug}."
    tasks = PeriodicTask.objects.filter(task=schedule.FIRE, name__startswith=prefix, enabled=False)
    return {name.removeprefix(prefix) for name in tasks.values_list("name", flat=True)}


def _outline(row: Workflow, known: Mapping[Workflow, WorkflowSpec], *, off: set[str]) -> Outline:
    spec, owner = known[row], row.operator.slug
    hears = [
        Event(listen.event, [other for other, told in known.items() if _emits(told, listen.event, owner)], listen.where)
        for listen in spec.subscriptions
    ]
    tells = [Event(name, [other for other, told in known.items() if _hears(told, name, other)]) for name in spec.emits]
    comes = _next(spec) if row.slug not in off and row.operator.enabled else None
    return Outline(row, spec, hears, tells, _places(row, spec), comes, paused=row.slug in off)


def _emits(spec: WorkflowSpec, pattern: str, owner: str) -> bool:
    # A pattern for any event would name everybody.
    return pattern != "*" and any(subscriptions.fits(pattern, name, owner=owner) for name in spec.emits)


def _hears(spec: WorkflowSpec, name: str, other: Workflow) -> bool:
    return any(subscriptions.fits(listen.event, name, owner=other.operator.slug) for listen in spec.subscriptions)


def _next(spec: WorkflowSpec) -> datetime | None:
    if spec.trigger.kind != "cron":
        return None
    # The present slot counts as long as its minute lasts.
    return Cron(spec.trigger.source, settings.TIME_ZONE).after(timezone.now() - timedelta(seconds=1))


def _places(row: Workflow, spec: WorkflowSpec) -> list[Place]:
    rows = {node.slug: node for node in row.nodes.all()}
    branches, after = paths.branches(spec.nodes), paths.following(spec.nodes)
    in_order = dict(zip([node.id for node in spec.nodes], [*(node.id for node in spec.nodes[1:]), None], strict=True))
    return [
        Place(
            node,
            model=_model(rows.get(node.id), node),
            ways=_ways(node, after[node.id], known=in_order),
            branch=node.id in branches,
            then="" if node.kind == "graph" or after[node.id] == in_order[node.id] else after[node.id] or paths.END,
        )
        for node in spec.nodes
    ]


def _model(row: Node | None, node: NodeSpec) -> str:
    chosen = row.model if row else ""
    return chosen or (node.model.model if node.model else "")


def _ways(node: NodeSpec, after: str | None, *, known: Mapping[str, str | None]) -> list[Way]:
    if node.gate:
        leads = paths.leads(node, after)
        return [Way(name, (leads[name] or paths.END) if name in leads else "fails") for name in node.gate.decisions]
    targets = {label: label if label in known or label == paths.END else after or paths.END for label in node.routes}
    return [Way(label, to) for label, to in targets.items()]
