"""Cron triggers: rows that tell beat what to watch, and the run that a slot starts.

A workflow's definition says when, an administrator says whether: each start writes one periodic task for each workflow
with a `cron:` trigger, and of these rows only `enabled` is read back. Slots are counted in `OPENVIBE_TIME_ZONE`.

A slot starts one run, however often beat, a second beat or the broker tell of it: the run's key names the slot. Slots
that were missed while beat was away are not made up, except the latest one if it is less than an hour old: a daily run
still comes after a restart, and a night's outage does not let a hundred of them loose.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from django.conf import settings
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, PeriodicTask

from openvibe.errors import SetupError
from openvibe.scheduler import GRACE
from openvibe.scheduler.cron import Cron
from operators.errors import DomainError
from operators.models import Project, Run, Workflow
from operators.services import doorbell, intake

logger = logging.getLogger(__name__)

#: The name of the Celery task that fires a slot.
FIRE = "operators.fire_cron"
PREFIX = "cron:"
DESCRIPTION = "Written from the workflow's definition at every start; only 'enabled' can be changed here."


def write(project: Project) -> None:
    """Let beat watch exactly the cron triggers that the project's workflows have now."""
    kept = {}
    for workflow in Workflow.objects.select_related("operator").filter(operator__project=project, retired=False):
        if cron := _cron(workflow):
            kept[_name(workflow)] = (workflow, cron)
    for task in PeriodicTask.objects.filter(task=FIRE, name__startswith=f"{PREFIX}{project.id}:"):
        if task.name not in kept:
            task.delete()
    for name, (workflow, cron) in kept.items():
        _write_task(name, workflow, cron)


def watched(task: PeriodicTask) -> Cron | None:
    """Return when a periodic task of ours is due, from its row alone; None for a task that is not ours."""
    if task.task != FIRE:
        return None
    told = json.loads(task.headers or "{}")
    try:
        return Cron(told["cron"], told["timezone"])
    except (KeyError, SetupError) as error:
        logger.warning("Periodic task %s: its headers tell no schedule: %s", task.name, error)
        return None


def fire(workflow_id: int, slot: datetime | None = None) -> Run | None:
    """Start the run of a slot, the latest one if none is given; None if there is nothing to start, which is logged."""
    workflow = Workflow.objects.select_related("operator").filter(pk=workflow_id, retired=False).first()
    if workflow is None or (cron := _cron(workflow)) is None:
        logger.info("Workflow %s has no cron trigger any more", workflow_id)
        return None
    now = timezone.now()
    slot = (slot or cron.before(now)).astimezone(UTC)
    named = f"{workflow.operator.slug}.{workflow.slug}"
    if now - slot > GRACE:
        logger.warning("%s: the slot of %s is too old to be made up", named, slot.isoformat())
        return None
    key = f"cron:{named}:{slot:%Y-%m-%dT%H:%M:%SZ}"
    try:
        return intake.request(workflow, input={}, actor=None, trigger="cron", key=key)
    except DomainError as error:
        logger.warning("%s does not start for %s: %s", named, slot.isoformat(), error)
        return None


def _cron(workflow: Workflow) -> Cron | None:
    if not workflow.trigger.startswith(PREFIX):
        return None
    try:
        return Cron(workflow.trigger.removeprefix(PREFIX), settings.TIME_ZONE)
    except SetupError as error:
        # A definition is checked when it is registered; a row of an older version may hold anything.
        logger.warning("Workflow %s cannot be scheduled: %s", workflow, error)
        return None


def _name(workflow: Workflow) -> str:
    return f"{PREFIX}{workflow.operator.project_id}:{workflow.operator.slug}.{workflow.slug}"


def _write_task(name: str, workflow: Workflow, cron: Cron) -> None:
    task = PeriodicTask.objects.filter(name=name).first() or PeriodicTask(name=name)
    wanted = {
        "task": FIRE,
        "crontab": _crontab(cron),
        "queue": doorbell.queue(workflow.operator),
        "kwargs": json.dumps({"workflow_id": workflow.pk}),
        "headers": json.dumps({"cron": cron.text, "timezone": cron.timezone}),
        "description": DESCRIPTION,
    }
    changed = {field: value for field, value in wanted.items() if getattr(task, field) != value}
    if not changed:
        return
    if "headers" in changed and task.pk:
        # A slot of the new schedule that has passed already belongs to nobody.
        task.last_run_at = timezone.now()
    for field, value in changed.items():
        setattr(task, field, value)
    task.save()


def _crontab(cron: Cron) -> CrontabSchedule:
    """Return the row that shows a schedule in the administration; it cannot say all that our reader can."""
    parts = (_listed(values, most) for values, most in zip(cron.values, (60, 24, 31, 12, 7), strict=True))
    names = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    fields = {**dict(zip(names, parts, strict=True)), "timezone": cron.timezone}
    return CrontabSchedule.objects.filter(**fields).first() or CrontabSchedule.objects.create(**fields)


def _listed(values: tuple[int, ...], most: int) -> str:
    return "*" if len(values) == most else ",".join(map(str, values))
