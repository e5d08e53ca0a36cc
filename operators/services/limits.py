"""How many runs are played at once, and whose turn it is when a slot is free.

An operator or a project with a limit has a queue: the highest priority first, then the oldest run. Within a limited
project all operators stand in the project's queue; one that has reached its own limit is passed over, and so is one
whose servers are all away. Claims of one queue follow one another, by a lock on the row that bears the limit; where
there is no limit there is no lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef, Q

from operators.models import Operator, Project, Run
from operators.models.run import RunQuerySet
from operators.services import doorbell, serving


@dataclass(frozen=True)
class Queue:
    """The runs that share a limit: those of a project or, if one is named, of an operator."""

    project: Project
    operator: Operator | None = None

    @property
    def _most(self) -> int:
        return (self.operator or self.project).max_running or 0

    @property
    def _runs(self) -> RunQuerySet:
        runs = Run.objects.filter(project_id=self.project.pk)
        return runs.filter(operator_id=self.operator.pk) if self.operator else runs

    def hold(self) -> None:
        """Let nobody else claim a run of this queue before the caller's transaction has ended."""
        if self.operator:
            Operator.objects.select_for_update(no_key=True).values("pk").filter(pk=self.operator.pk).first()
        else:
            Project.objects.select_for_update(no_key=True).values("pk").get(pk=self.project.pk)

    def turns(self) -> RunQuerySet:
        """Return the queued runs for which there is a slot now, the next one first."""
        free = self._free()
        if free <= 0:
            return Run.objects.none()
        waiting = self._runs.queue()
        return (waiting if self.operator else waiting.exclude(operator_id__in=_passed_over(self.project)))[:free]

    def has_room(self) -> bool:
        """Tell whether a slot is left when all have one whose turn it is."""
        free = self._free()
        return free > 0 and self.turns().count() < free

    def _free(self) -> int:
        # A run of a foreign runtime is running without a lease: it takes none of our slots.
        return self._most - self._runs.filter(status=Run.Status.RUNNING, lease_until__isnull=False).count()


def unlimited(runs: RunQuerySet) -> RunQuerySet:
    """Return those of these runs that stand in no queue. The condition holds for the row that an update locks, too."""
    bounded = Operator.objects.filter(pk=OuterRef("operator_id"))
    return runs.filter(~Exists(bounded.exclude(max_running=None, project__max_running=None)))


def queue(operator: Operator) -> Queue | None:
    """Return the queue in which an operator's runs stand, if there is a limit."""
    if operator.project.max_running is not None:
        return Queue(operator.project)
    return Queue(operator.project, operator) if operator.max_running is not None else None


def queues() -> Iterator[Queue]:
    """Iterate over all queues that there are."""
    for project in Project.objects.exclude(max_running=None):
        yield Queue(project)
    bounded = Operator.objects.exclude(max_running=None).filter(project__max_running=None)
    for operator in bounded.select_related("project"):
        yield Queue(operator.project, operator)


def room(operator: Operator) -> bool:
    """Tell whether a run that is queued now can be played at once, and let nobody else take its slot.

    Part of the transaction that queues the run.
    """
    found = queue(operator)
    if found is None:
        return True
    found.hold()
    own = Queue(operator.project, operator)
    return found.has_room() and (found.operator is not None or operator.max_running is None or own.has_room())


def freed(operator: Operator) -> None:
    """Ring for whoever is next once the caller's transaction, which has freed a slot, is committed."""
    if found := queue(operator):
        transaction.on_commit(partial(_ring, found))


def _ring(found: Queue) -> None:
    # For every free slot: of two that are freed at the same time each one alone would ring for the same run.
    for run in found.turns().select_related("operator").only("id", "operator"):
        doorbell.ring(run.id, run.operator)


def _passed_over(project: Project) -> set[int]:
    """Return the operators whose runs have no turn: those with no slot left, and those that nobody can play now."""
    operators = Operator.objects.filter(project=project)
    playing = Count("runs", filter=Q(runs__status=Run.Status.RUNNING))
    full = operators.exclude(max_running=None).annotate(playing=playing).filter(playing__gte=F("max_running"))
    return {operator.pk for operator in full} | serving.orphaned(operators)
