"""Errands in tight places: a run that ends as its time is up, a bus that is away, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from openvibe.bus.memory import MemoryBus
from operators.bridge import ingest
from operators.link import link
from operators.models import Errand, Operator, Project, Run
from operators.services import errands, retention
from tests.bridge.test_commands import played
from tests.bridge.test_errands import answers, call, look, tasks

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]


@contextmanager
def after_the_look_at_runs(act: Callable[[], Any]) -> Any:
    """Do something once, right after the next query that reads runs."""
    left = [act]

    def between(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if left and sql.startswith("SELECT") and 'FROM "operators_run"' in sql and '"output"' in sql:
            left.pop()()
        return result

    with connection.execute_wrapper(between):
        yield
    assert not left


def test_a_fork_that_ends_as_its_time_is_up_is_told_of_as_it_ended(crier: Operator, memory: MemoryBus) -> None:
    ingest.take([call("fork_join", {"tasks": tasks("crier", "crier"), "deadline_seconds": 60})])
    first, second = Run.objects.order_by("created_at")
    Errand.objects.update(deadline=timezone.now(), look_at=timezone.now())
    with after_the_look_at_runs(lambda: played(first)):
        look()
    [(_, content, _)] = answers(memory)
    ends = content["result"]["results"]
    assert [end["status"] for end in ends] == ["success", "timeout"]
    assert "HEAR 0" in ends[0]["summary"]
    second.refresh_from_db()
    assert second.status == "cancelled"


def test_errands_that_nobody_can_be_told_of_keep_none_from_its_deadline(crier: Operator, memory: MemoryBus) -> None:
    for _ in range(3):
        ingest.take([call("fork_join", {"tasks": tasks("nobody")})])
    for errand_id in Errand.objects.values_list("id", flat=True):
        errands.gather(errand_id)
    ingest.take([call("fork_join", {"tasks": tasks("crier"), "deadline_seconds": 60})])
    early = timezone.now() - timedelta(seconds=1)
    Errand.objects.update(look_at=early)
    Errand.objects.filter(status="running").update(deadline=early, look_at=timezone.now())
    link.use(None)
    for _ in range(2):
        for errand_id in errands.due(timezone.now(), most=3):
            errands.look(errand_id)
    assert not Errand.objects.filter(status="running").exists()
    assert Run.objects.get().status == "cancelled"


def test_errands_that_are_done_go_by_retention_and_no_others(
    crier: Operator, memory: MemoryBus, project: Project
) -> None:
    for _ in range(2):
        ingest.take([call("launch", {"profile_name": "crier", "instruction": "hear ye"})])
    look()
    ingest.take([call("fork_join", {"tasks": tasks("crier"), "deadline_seconds": 60})])
    young = Errand.objects.filter(status="closed").first()
    long_ago = timezone.now() - timedelta(days=40)
    Errand.objects.exclude(id=young.id).update(created_at=long_ago, closed_at=long_ago)
    Errand.objects.exclude(id=young.id).exclude(told_at=None).update(told_at=long_ago)
    Project.objects.filter(id=project.id).update(keep_events_days=30)
    retention.sweep(timezone.now())
    assert set(Errand.objects.values_list("status", flat=True)) == {"closed", "running"}
    assert Errand.objects.get(status="closed") == young
