"""What came in over the bus goes by retention, too, once nothing hangs on it."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from operators.models import InboxItem
from tests.domain.lab import played, started
from tests.domain.test_retention import aged, keep, sweep


def test_what_came_in_for_no_run_that_is_kept_goes_once_it_is_done(lab, project):
    young, kept, swept = started(lab, "four"), started(lab, "four"), aged(played(started(lab, "four")), 31)
    long_ago, status = timezone.now() - timedelta(days=31), InboxItem.Status
    keep(project, events=30)

    def came(name: str, state: str, run_id: str = "", at=long_ago) -> None:
        InboxItem.objects.create(
            project=project,
            type="event",
            correlation_id=name,
            run_id=run_id,
            status=state,
            received_at=at,
            changed_at=at,
        )

    came("event", status.CONSUMED)
    came("garbage", status.ERROR)
    came("late", status.SKIPPED, swept.id)
    came("for nobody", status.SKIPPED, "run_of_another_day")
    came("open", status.PENDING)
    came("stuck", status.PROCESSING)
    came("its run is kept", status.CONSUMED, kept.id)
    came("today", status.CONSUMED, young.id, at=timezone.now())
    came("just now", status.CONSUMED, at=timezone.now())

    sweep()

    left = InboxItem.objects.values_list("correlation_id", flat=True)
    assert set(left) == {"open", "stuck", "its run is kept", "today", "just now"}
