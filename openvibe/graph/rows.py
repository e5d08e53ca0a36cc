"""Checkpoints and pending writes as flat rows, and what a place that stores them must offer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

CheckpointKey = tuple[str, str, str]
WriteKey = tuple[str, str, str, str, int]


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """One checkpoint. `blob` is the serialized checkpoint in the encoding `type`; `metadata` is JSON text."""

    thread_id: str
    ns: str
    checkpoint_id: str
    parent_id: str
    run_id: str
    type: str
    blob: bytes
    metadata: str

    @property
    def key(self) -> CheckpointKey:
        """What is unique about it."""
        return (self.thread_id, self.ns, self.checkpoint_id)


@dataclass(frozen=True, slots=True)
class WriteRow:
    """One pending write of one task. LangGraph's own channels have negative `idx` and are replaced; others are kept."""

    thread_id: str
    ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    idx: int
    channel: str
    type: str
    blob: bytes

    @property
    def key(self) -> WriteKey:
        """What is unique about it."""
        return (self.thread_id, self.ns, self.checkpoint_id, self.task_id, self.idx)

    @property
    def checkpoint_key(self) -> CheckpointKey:
        """The checkpoint that it belongs to."""
        return (self.thread_id, self.ns, self.checkpoint_id)


class Rows(Protocol):
    """Somewhere that keeps rows. Checkpoint ids sort by time, so the largest is the latest."""

    def save(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """Add rows: a checkpoint replaces its twin, a write with a negative index too, any other write yields."""

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
        """Return the rows that fit every given condition, latest first; `before` is an exclusive id."""

    def writes(self, keys: Collection[CheckpointKey]) -> list[WriteRow]:
        """Return the writes of these checkpoints, ordered by task path, task id and index."""

    def delete(self, keys: Collection[CheckpointKey]) -> None:
        """Remove these checkpoints with their writes."""

    def release(self) -> None:
        """Give back what the calling thread holds, such as a database connection."""


class MemoryRows:
    """Rows in a dictionary, for tests and for scripts without a database."""

    def __init__(self) -> None:
        self._checkpoints: dict[CheckpointKey, CheckpointRow] = {}
        self._writes: dict[WriteKey, WriteRow] = {}

    def save(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """See `Rows.save`."""
        self._checkpoints.update({row.key: row for row in checkpoints})
        for row in writes:
            if row.idx < 0 or row.key not in self._writes:
                self._writes[row.key] = row

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
        found = [
            row
            for row in self._checkpoints.values()
            if (threads is None or row.thread_id in threads)
            and (run_ids is None or row.run_id in run_ids)
            and (ns is None or row.ns == ns)
            and (checkpoint_id is None or row.checkpoint_id == checkpoint_id)
            and (before is None or row.checkpoint_id < before)
        ]
        return sorted(found, key=lambda row: row.checkpoint_id, reverse=True)[:limit]

    def writes(self, keys: Collection[CheckpointKey]) -> list[WriteRow]:
        """See `Rows.writes`."""
        found = [row for row in self._writes.values() if row.checkpoint_key in keys]
        return sorted(found, key=lambda row: (row.task_path, row.task_id, row.idx))

    def delete(self, keys: Collection[CheckpointKey]) -> None:
        """See `Rows.delete`."""
        self._checkpoints = {key: row for key, row in self._checkpoints.items() if key not in keys}
        self._writes = {key: row for key, row in self._writes.items() if row.checkpoint_key not in keys}

    def release(self) -> None:
        """Hold nothing, give back nothing."""

    def drain(self) -> tuple[list[CheckpointRow], list[WriteRow]]:
        """Take all rows out."""
        rows = list(self._checkpoints.values()), list(self._writes.values())
        self._checkpoints, self._writes = {}, {}
        return rows


class Overlay:
    """Rows that are not stored yet, laid over rows that are: reads see both, writes go on top."""

    def __init__(self, top: MemoryRows, bottom: Rows) -> None:
        self._top = top
        self._bottom = bottom

    def save(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """Keep the rows on top."""
        self._top.save(checkpoints, writes)

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
        """Read both, the top one winning."""
        merged = {
            row.key: row
            for rows in (self._bottom, self._top)
            for row in rows.checkpoints(
                threads=threads, run_ids=run_ids, ns=ns, checkpoint_id=checkpoint_id, before=before, limit=limit
            )
        }
        return sorted(merged.values(), key=lambda row: row.checkpoint_id, reverse=True)[:limit]

    def writes(self, keys: Collection[CheckpointKey]) -> list[WriteRow]:
        """Read both by the rule of `Rows.save`."""
        both = MemoryRows()
        both.save([], self._bottom.writes(keys))
        both.save([], self._top.writes(keys))
        return both.writes(keys)

    def delete(self, keys: Collection[CheckpointKey]) -> None:
        """Remove from both."""
        self._top.delete(keys)
        self._bottom.delete(keys)

    def release(self) -> None:
        """Give back what the stored rows hold."""
        self._bottom.release()


class Recalled:
    """Stored rows that nobody else changes, asked for once: what was read is known until `forget`."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._found: dict[Any, list[CheckpointRow]] = {}
        self._written: dict[frozenset[CheckpointKey], list[WriteRow]] = {}

    def forget(self) -> None:
        """Read anew from now on."""
        self._found.clear()
        self._written.clear()

    def save(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """See `Rows.save`."""
        self.forget()
        self._rows.save(checkpoints, writes)

    def checkpoints(self, **asked: Any) -> list[CheckpointRow]:
        """See `Rows.checkpoints`."""
        key = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in asked.items())
        if key not in self._found:
            self._found[key] = self._rows.checkpoints(**asked)
        return list(self._found[key])

    def writes(self, keys: Collection[CheckpointKey]) -> list[WriteRow]:
        """See `Rows.writes`."""
        if (asked := frozenset(keys)) not in self._written:
            self._written[asked] = self._rows.writes(keys)
        return list(self._written[asked])

    def delete(self, keys: Collection[CheckpointKey]) -> None:
        """See `Rows.delete`."""
        self.forget()
        self._rows.delete(keys)

    def release(self) -> None:
        """See `Rows.release`."""
        self._rows.release()
