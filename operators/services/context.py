"""The shared context: values that a project's operators read and write, with revisions and history."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from openvibe import canonical
from openvibe.host import Change
from openvibe.protocol.keys import BUCKETS
from operators.errors import RevisionMoved, Unknown
from operators.models import ContextEntry, ContextRevision, Project
from operators.services import cards, changes

#: The author of what came in by the mirror in NATS KV.
NATS = "nats"
#: How many revisions back one is looked for that the mirror shows us.
MOST_IN_FLIGHT = 50


def value(project_id: str, bucket: str, key: str) -> Any:
    """Return a value, or None."""
    rows = ContextEntry.objects.present().filter(project_id=project_id, bucket=bucket, key=key)
    return rows.values_list("value", flat=True).first()


def entry(project_id: str, bucket: str, key: str) -> Change:
    """Return the latest revision of a value."""
    rows = ContextEntry.objects.filter(project_id=project_id, bucket=bucket, key=key)
    return Change(*(rows.values_list("revision", "value", "deleted").first() or (0,)))


def keys(project_id: str, bucket: str, prefix: str = "") -> list[str]:
    """Return a bucket's keys that begin with `prefix`, sorted."""
    rows = ContextEntry.objects.present().filter(project_id=project_id, bucket=bucket, key__startswith=prefix)
    # SQLite compares without regard to case.
    return [key for key in rows.order_by("key").values_list("key", flat=True) if key.startswith(prefix)]


def require_bucket(bucket: str) -> None:
    """Raise `Unknown` for a bucket that there is not."""
    if bucket not in BUCKETS:
        raise Unknown(f"The shared context has no bucket {bucket!r}; it has: {', '.join(BUCKETS)}")


def put_all(project_id: str, puts: Mapping[tuple[str, str], Any], *, author: str, now: datetime) -> None:
    """Write a step's values; part of the caller's transaction."""
    # In one order for everybody: two orders would be a deadlock.
    for bucket, key in sorted(puts):
        _write(project_id, bucket, key, puts[bucket, key], author=author, now=now)


@transaction.atomic
def put(
    project_id: str, bucket: str, key: str, value: Any, *, author: str, revision: int | None = None
) -> ContextEntry:
    """Write a value. `revision` is the one that the writer has seen: 0 for none; None writes whatever is there.

    Raises:
        RevisionMoved: somebody else has written since.
    """
    require_bucket(bucket)
    return _write(project_id, bucket, key, value, author=author, now=timezone.now(), seen=revision)


@transaction.atomic
def delete(project_id: str, bucket: str, key: str, *, author: str, revision: int | None = None) -> ContextEntry:
    """Delete a value; its history stays. Raises `Unknown` if it is not there, `RevisionMoved` as `put` does."""
    require_bucket(bucket)
    if not ContextEntry.objects.present().filter(project_id=project_id, bucket=bucket, key=key).exists():
        raise Unknown(f"The shared context has no {bucket}/{key}")
    return _write(project_id, bucket, key, None, author=author, now=timezone.now(), seen=revision, deleted=True)


@transaction.atomic
def take(project_id: str, bucket: str, key: str, value: Any, *, kv_revision: int, deleted: bool = False) -> bool:
    """Take in what somebody wrote into the mirror; False if it is our own, or ours has yet to be written there.

    `kv_revision` is what the mirror calls it.
    """
    place = {"project_id": project_id, "bucket": bucket, "key": key}
    now = timezone.now()
    if not deleted and Project.objects.filter(pk=project_id).exists():
        ContextEntry.objects.bulk_create(
            [ContextEntry(**place, revision=0, deleted=True, updated_at=now)], ignore_conflicts=True
        )
    entry = ContextEntry.objects.select_for_update().filter(**place).first()
    if entry is None:
        return False
    value = None if deleted else canonical.jsonable(value)
    rows = ContextEntry.objects.filter(pk=entry.pk)
    known = _known(entry, value, deleted)
    if known is None and (meant := cards.whole(project_id, value)) is not value:
        value, known = meant, _known(entry, meant, deleted)
    if known is not None:
        rows.update(kv_revision=kv_revision, mirrored_revision=known)
        return False
    if entry.mirrored_revision < entry.revision:
        return False
    _write(project_id, bucket, key, value, author=NATS, now=now, deleted=deleted)
    rows.update(kv_revision=kv_revision, mirrored_revision=F("revision"))
    return True


def _known(entry: ContextEntry, value: Any, deleted: bool) -> int | None:
    """Return the revision of ours that this is, of those that the mirror may just have got; None if it is none."""
    if entry.deleted and deleted:
        return entry.revision
    latest = entry.history.filter(revision__gte=entry.mirrored_revision).order_by("-revision")[:MOST_IN_FLIGHT]
    told = (deleted, canonical.dumps(value))
    return next((one.revision for one in latest if (one.deleted, canonical.dumps(one.value)) == told), None)


def _write(
    project_id: str, bucket: str, key: str, value: Any, *, author: str, now: datetime, seen: int | None = None,
    deleted: bool = False,
) -> ContextEntry:  # fmt: skip
    place = {"project_id": project_id, "bucket": bucket, "key": key}
    blank = ContextEntry(**place, revision=0, deleted=True, updated_at=now)
    # Whoever holds the row writes: a first put makes it, empty, so that there is something to hold.
    ContextEntry.objects.bulk_create([blank], ignore_conflicts=True)
    entry = ContextEntry.objects.select_for_update().get(**place)
    current = 0 if entry.deleted else entry.revision
    if seen is not None and seen != current:
        raise RevisionMoved(
            f"{bucket}/{key} is at revision {current}, not {seen}: somebody has written it since; read it again",
            revision=current,
        )
    entry.value, entry.deleted, entry.author, entry.updated_at = value, deleted, author, now
    entry.revision += 1
    # No `save()`: it counts the rows that an update changed, and in a pipeline there is no count yet.
    written = {name: getattr(entry, name) for name in ("value", "deleted", "author", "updated_at", "revision")}
    ContextEntry.objects.filter(pk=entry.pk).update(**written)
    ContextRevision.objects.create(
        entry=entry, revision=entry.revision, value=value, deleted=deleted, author=author, created_at=now
    )
    if entry.watched:
        changes.tell(entry)
    return entry
