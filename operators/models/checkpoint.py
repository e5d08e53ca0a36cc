"""LangGraph's checkpoints as rows of this database, so that they commit together with a step's events."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from django.db import connection, models, transaction
from django.db.models import Q

from openvibe.graph.rows import CheckpointKey, CheckpointRow, WriteRow
from operators.models.lookup import listed
from operators.models.statements import insert
from operators.models.stroke import Insert


class Checkpoint(models.Model):
    """One checkpoint of one thread; see `CheckpointRow`."""

    thread_id = models.CharField(max_length=255)
    ns = models.CharField(max_length=500, blank=True)
    checkpoint_id = models.CharField(max_length=64)
    parent_id = models.CharField(max_length=64, blank=True)
    run_id = models.CharField(max_length=255, blank=True)
    type = models.CharField(max_length=20)
    blob = models.BinaryField()
    metadata = models.TextField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["thread_id", "ns", "checkpoint_id"], name="one_checkpoint")]
        indexes = [models.Index(fields=["run_id"], name="checkpoint_of_run", condition=~Q(run_id=""))]

    def __str__(self) -> str:
        return f"{self.thread_id}/{self.checkpoint_id}"


class CheckpointWrite(models.Model):
    """One pending write of one task; see `WriteRow`."""

    thread_id = models.CharField(max_length=255)
    ns = models.CharField(max_length=500, blank=True)
    checkpoint_id = models.CharField(max_length=64)
    task_id = models.CharField(max_length=64)
    task_path = models.CharField(max_length=500, blank=True)
    idx = models.IntegerField()
    channel = models.CharField(max_length=255)
    type = models.CharField(max_length=20)
    blob = models.BinaryField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["thread_id", "ns", "checkpoint_id", "task_id", "idx"], name="one_write")
        ]

    def __str__(self) -> str:
        return f"{self.checkpoint_id}/{self.task_id}#{self.idx}"


T = TypeVar("T", CheckpointRow, WriteRow)


@dataclass(frozen=True)
class Place:
    """The checkpoints before and after a step; the second is empty while the step has not finished."""

    before: str
    after: str = ""


def stored(checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> list[Insert]:
    """Return what keeping these rows inserts; LangGraph's own channels, numbered below 0, are written anew."""
    return [
        Insert(Checkpoint, checkpoints, on_conflict="replace"),
        Insert(CheckpointWrite, [row for row in writes if row.idx >= 0], on_conflict="ignore"),
        Insert(CheckpointWrite, [row for row in writes if row.idx < 0], on_conflict="replace"),
    ]


class DatabaseRows:
    """`openvibe.graph.rows.Rows` on Django's own database, inside whatever transaction the caller holds."""

    def save(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """See `Rows.save`."""
        for part in stored(checkpoints, writes):
            insert(part.model, part.rows, on_conflict=part.on_conflict)

    def checkpoints(
        self,
        *,
        threads: Collection[str] | None = None,
        run_ids: Collection[str] | None = None,
        ns: str | None = None,
        checkpoint_id: str | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> list[CheckpointRow]:
        """See `Rows.checkpoints`."""
        if threads and len(threads) == 1 and ns is not None and limit == 1 and not (run_ids or checkpoint_id or before):
            # What each play begins with.
            [thread_id] = threads
            latest = listed(Checkpoint, order=["-checkpoint_id"], most=1, thread_id=thread_id, ns=ns)
            return [_row(CheckpointRow, found) for found in latest]
        given = {
            "thread_id__in": threads,
            "run_id__in": run_ids,
            "ns": ns,
            "checkpoint_id": checkpoint_id,
            "checkpoint_id__lt": before,
        }
        rows = Checkpoint.objects.filter(**{name: value for name, value in given.items() if value is not None})
        return [_row(CheckpointRow, found) for found in rows.order_by("-checkpoint_id")[:limit]]

    def writes(self, keys: Collection[CheckpointKey]) -> list[WriteRow]:
        """See `Rows.writes`."""
        order = ("task_path", "task_id", "idx")
        if len(keys) == 1:
            [(thread_id, ns, checkpoint_id)] = keys
            written = listed(
                CheckpointWrite, order=order, thread_id=thread_id, ns=ns, checkpoint_id=checkpoint_id
            )  # fmt: skip
            return [_row(WriteRow, found) for found in written]
        rows = CheckpointWrite.objects.filter(_any_of(keys)).order_by(*order) if keys else []
        return [_row(WriteRow, found) for found in rows]

    def places(self, thread_id: str, step_ids: Collection[str]) -> dict[str, Place]:
        """Return where these steps of a thread lie, as far as they have written anything yet."""
        wrote = CheckpointWrite.objects.filter(thread_id=thread_id, ns="", task_id__in=step_ids)
        found = dict(wrote.values_list("task_id", "checkpoint_id").distinct())
        children = Checkpoint.objects.filter(thread_id=thread_id, ns="", parent_id__in=set(found.values()))
        after = dict(children.values_list("parent_id", "checkpoint_id"))
        return {step: Place(before, after.get(before, "")) for step, before in found.items()}

    def delete(self, keys: Collection[CheckpointKey]) -> None:
        """See `Rows.delete`."""
        if not keys:
            return
        with transaction.atomic():
            Checkpoint.objects.filter(_any_of(keys)).delete()
            CheckpointWrite.objects.filter(_any_of(keys)).delete()

    def release(self) -> None:
        """See `Rows.release`."""
        connection.close()


def _row(kind: type[T], found: models.Model) -> T:
    values = {name: getattr(found, name) for name in kind.__slots__}
    return kind(**{**values, "blob": bytes(values["blob"])})


def _any_of(keys: Collection[CheckpointKey]) -> Q:
    # One condition per thread and namespace keeps the statement short for a thread of a thousand checkpoints.
    places: dict[tuple[str, str], list[str]] = {}
    for thread_id, ns, checkpoint_id in keys:
        places.setdefault((thread_id, ns), []).append(checkpoint_id)
    condition = Q()
    for (thread_id, ns), ids in places.items():
        condition |= Q(thread_id=thread_id, ns=ns, checkpoint_id__in=ids)
    return condition
