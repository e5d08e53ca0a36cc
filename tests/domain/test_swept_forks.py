"""A fork and a sweep at the same time: the fork begins with the states of its source, or there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from operators.errors import NotForkable
from operators.models import Operator, Project, Run
from operators.services import forks, retention
from tests.domain.lab import played, started


def test_a_run_that_is_swept_while_it_is_forked_is_no_longer_kept(lab: Operator, bob: User) -> None:
    run = played(started(lab, "four"))
    step = forks.steps(run)[0]
    Project.objects.update(keep_checkpoints_days=1)
    swept: list[int] = []

    def sweep_first(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if not swept and 'INSERT INTO "operators_run"' in sql:
            swept.append(retention.sweep(timezone.now() + timedelta(days=2)).pruned)
        return execute(sql, *rest)

    with connection.execute_wrapper(sweep_first), pytest.raises(NotForkable, match="no longer kept"):
        forks.fork(run, step_id=step.step_id, actor=bob)
    assert swept == [1]
    assert Run.objects.filter(forked_from=run).count() == 0
