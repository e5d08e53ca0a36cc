"""What `sleepers` does to a site's database from within: a process of its own, in the site's surroundings.

python -m benchmarks.bed fill <run> <number>   copies a sleeping run
python -m benchmarks.bed cost                  counts what the clock and a step cost
python -m benchmarks.bed wake <number> <s>     makes some of the sleepers due, evenly over some seconds from now
python -m benchmarks.bed look                  tells how late those were woken that were due
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "openvibe_site.settings")
django.setup()

from django.db import connection, models
from django.utils import timezone

from openvibe.protocol import subjects
from operators import clock
from operators.models import Checkpoint, CheckpointWrite, Event, Run, Wait, Workflow
from operators.services import execution, intake

#: How many rows are written at once.
BATCH = 1_000
#: How many looks of the clock a minute has while nothing is due.
LOOKS = round(60 / clock.LONGEST_SLEEP)
#: The first moments are those of a clock that has just heard of them; they belong to nobody's lateness.
AHEAD = timedelta(seconds=2)
#: What the copies' ids begin with.
COPY = "run_nap-"


def fill(run_id: str, number: str) -> dict[str, Any]:
    """Copy a sleeping run with all its rows."""
    ids = [f"{COPY}{copy}" for copy in range(int(number))]
    thread = subjects.thread(run_id)
    _copy(Run.objects.filter(pk=run_id), ids, id=str)
    _copy(Wait.objects.filter(run_id=run_id), ids, id=lambda run_id: f"wait_{run_id}", run_id=str)
    for model in (Checkpoint, CheckpointWrite):
        _copy(model._default_manager.filter(thread_id=run_id), ids, pk=lambda _: None, thread_id=str)
    events = Event.objects.filter(run_id=run_id, channel=thread)
    _copy(events, ids, pk=lambda _: None, run_id=str, channel=subjects.thread)
    if connection.vendor == "postgresql":
        # As after a while of use: the planner knows the tables.
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    return {}


def _copy(rows: models.QuerySet[Any], ids: Iterable[str], **changes: Callable[[str], Any]) -> None:
    copies = []
    for found in rows:
        for run_id in ids:
            copy = type(found)(
                **{field.attname: getattr(found, field.attname) for field in found._meta.concrete_fields}
            )
            for name, value in changes.items():
                setattr(copy, name, value(run_id))
            copies.append(copy)
    rows.model._default_manager.bulk_create(copies, batch_size=BATCH)


def cost() -> dict[str, Any]:
    """Count a minute of the clock with nothing due, and one step of a run: the difference of four and eight."""
    clock.tick()
    counted, began, spent = Counted(), time.perf_counter(), time.process_time()
    with connection.execute_wrapper(counted):
        for _ in range(LOOKS):
            clock.tick()
            clock.meet_deadlines()
            clock._sleep()
    took, spent = time.perf_counter() - began, time.process_time() - spent
    eight, four = _played("eight"), _played("linear")
    return {
        "cpu": spent,
        "wall": took / LOOKS * 1e3,
        "queries": counted.statements / LOOKS,
        "statements": (eight.statements - four.statements) / 4,
        "transactions": (eight.transactions - four.transactions) / 4,
    }


class Counted:
    """Counts a connection's statements, and the transactions that they begin."""

    def __init__(self) -> None:
        self.statements = self.transactions = 0

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.statements += 1
        self.transactions += _idle()
        return execute(sql, params, many, context)


def _idle() -> bool:
    """Tell whether the next statement begins a transaction."""
    made: Any = connection.connection
    return not made.in_transaction if connection.vendor == "sqlite" else made.info.transaction_status == 0


def _played(slug: str) -> Counted:
    workflow = Workflow.objects.select_related("operator__project").get(operator__slug="bench", slug=slug)
    counted = Counted()
    # The site's workers are rung for it too; whoever comes first plays it.
    while True:
        run = intake.request(workflow, input={"count": 0}, actor=None)
        with connection.execute_wrapper(counted):
            execution.perform(run.id)
        if (
            Run.objects.filter(pk=run.pk, epoch=1).exclude(status=Run.Status.RUNNING).exists()
            and counted.statements > 4
        ):
            return counted
        counted = Counted()


def wake(number: str, seconds: str) -> dict[str, Any]:
    """Make some of the sleepers due, evenly over the next seconds."""
    begin, many = timezone.now() + AHEAD, int(number)
    waits = list(Wait.objects.pending().filter(run__id__startswith=COPY).order_by("id")[:many])
    for place, wait in enumerate(waits):
        wait.deadline = begin + timedelta(seconds=float(seconds) * place / many)
    Wait.objects.bulk_update(waits, ["deadline"], batch_size=BATCH)
    return {"due": len(waits)}


def look() -> dict[str, Any]:
    """Tell how late timers fired and runs went on, in seconds, and how many have ended."""
    woken = Wait.objects.filter(run__id__startswith=COPY, status=Wait.Status.RESOLVED)
    late = [(closed - due).total_seconds() for closed, due in woken.values_list("closed_at", "deadline") if closed]
    due = dict(woken.values_list("run_id", "deadline"))
    resumed = Event.objects.filter(run_id__in=due, channel__startswith="t_", kind="run.resumed")
    on = [(at - due[run_id]).total_seconds() for run_id, at in resumed.values_list("run_id", "created_at")]
    return {"late": late, "on": on, "ended": Run.objects.ended().filter(id__startswith=COPY).count()}


if __name__ == "__main__":
    acts: dict[str, Callable[..., dict[str, Any]]] = {"fill": fill, "cost": cost, "wake": wake, "look": look}
    print(json.dumps(acts[sys.argv[1]](*sys.argv[2:])))
    sys.stdout.flush()
    os._exit(0)
