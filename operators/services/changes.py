"""Runs that wait for a change of the shared context, and the changes that wake them.

A value says whether anybody watches it, so that writing one that nobody watches costs nothing more. Whoever watches and
whoever writes hold the value's row: a change falls either before the watch, which finds it, or after it, and is told.
"""

from __future__ import annotations

from functools import partial

from django.db import transaction
from django.utils import timezone

from operators.models import ContextEntry, ContextRevision, Wait
from operators.services import doorbell, waits


def look(wait: Wait) -> None:
    """Answer a watch if its value has changed already; else let the next change wake it."""
    asked = wait.payload
    place = {"project_id": wait.run.project_id, "bucket": asked["bucket"], "key": asked["key"]}
    with transaction.atomic():
        now = timezone.now()
        blank = ContextEntry(**place, revision=0, deleted=True, updated_at=now)
        ContextEntry.objects.bulk_create([blank], ignore_conflicts=True)
        entry = ContextEntry.objects.select_for_update().get(**place)
        found = ContextRevision.objects.filter(entry=entry, revision__gt=asked["after"]).order_by("revision").first()
        if found is None:
            ContextEntry.objects.filter(pk=entry.pk).update(watched=True)
            Wait.objects.pending().filter(id=wait.id).update(sent_at=now)
    # Outside: whoever writes a value holds his run's row before the value's, not after it.
    if found is not None:
        result = {"revision": found.revision, "value": found.value, "deleted": found.deleted}
        waits.settle(wait, result=result, by=found.author)


def tell(entry: ContextEntry) -> None:
    """Let those look who watch a value that has just been written; part of the transaction that holds its row."""
    rows = Wait.objects.pending().filter(
        kind=Wait.Kind.CHANGE,
        run__project_id=entry.project_id,
        payload__bucket=entry.bucket,
        payload__key=entry.key,
    )
    found = list(rows.select_related("run__operator"))
    # Should every bell be lost, the clock finds who has not been told.
    Wait.objects.filter(id__in=[wait.id for wait in found]).update(sent_at=None)
    ContextEntry.objects.filter(pk=entry.pk).update(watched=False)
    for wait in found:
        transaction.on_commit(partial(doorbell.ask, wait.id, wait.run.operator))
