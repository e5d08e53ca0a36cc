"""A LangGraph checkpointer over any `Rows`. It writes through at once or, when told to collect, only on `collected`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.base import id as ids
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME

from openvibe.graph.rows import CheckpointRow, MemoryRows, Overlay, Recalled, Rows, WriteRow

T = TypeVar("T")
_REACHED = "_last_v6_timestamp"


class RowSaver(BaseCheckpointSaver[str]):
    """Checkpoints as rows.

    With `collect=True` nothing reaches `rows` until somebody stores what `collected()` hands out, in a transaction of
    its own choosing; reads see collected rows as if they were stored. With `fresh=True` it knows that its thread has no
    rows yet and asks for none. LangGraph calls it from several threads, hence the lock.
    """

    def __init__(self, rows: Rows, *, collect: bool = False, fresh: bool = False) -> None:
        super().__init__()
        self._stored: Rows = Recalled(rows) if collect else rows
        self._top = MemoryRows()
        self._rows: Rows = self._top if collect and fresh else Overlay(self._top, self._stored) if collect else rows
        self._lock = threading.RLock()
        self._arrived = threading.Condition(self._lock)
        self._wrote: set[str] = set()
        self._home = threading.get_ident()
        #: The tasks that nobody has told the end of yet; what they wrote is kept back.
        self.in_flight: set[str] = set()

    def collected(self) -> tuple[list[CheckpointRow], list[WriteRow]]:
        """Hand out, once, the rows that wait to be stored, but for those of tasks in flight."""
        with self._lock:
            checkpoints, writes = self._top.drain()
            if isinstance(self._stored, Recalled) and (checkpoints or writes):
                self._stored.forget()
            self._top.save([], [row for row in writes if row.task_id in self.in_flight])
            ended = [row for row in writes if row.task_id not in self.in_flight]
            return checkpoints, [*ended, *self._left_open(ended)]

    def await_writes(self, task_id: str, *, timeout: float) -> bool:
        """Wait until what a task wrote is here: LangGraph tells of its end first. Return whether it is."""
        with self._arrived:
            return self._arrived.wait_for(lambda: task_id in self._wrote, timeout)

    def holds(self, config: RunnableConfig) -> bool:
        """Tell whether this checkpoint is among the collected rows."""
        place = config["configurable"]
        with self._lock:
            return bool(self._top.checkpoints(checkpoint_id=place["checkpoint_id"], limit=1))

    def pending_interrupts(self, thread_id: str) -> list[str]:
        """Return the ids of the interrupts that the thread's latest checkpoint waits for."""
        latest = self.get_tuple({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})
        writes = latest.pending_writes or [] if latest else []
        # A branch that was answered and has finished leaves its question behind until all branches are through.
        done = {task for task, channel, _ in writes if channel not in WRITES_IDX_MAP}
        return [
            item.id for task, channel, value in writes if channel == INTERRUPT and task not in done for item in value
        ]

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or its thread's latest."""
        place = config["configurable"]
        with self._lock:
            found = self._rows.checkpoints(
                threads=[str(place["thread_id"])],
                ns=place.get("checkpoint_ns", ""),
                checkpoint_id=get_checkpoint_id(config),
                limit=1,
            )
            return self._tuple(found[0]) if found else None

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Iterate over checkpoints, latest first. `filter` compares metadata values for equality."""
        place = config["configurable"] if config else {}
        with self._lock:
            found = self._rows.checkpoints(
                threads=[str(place["thread_id"])] if "thread_id" in place else None,
                ns=place.get("checkpoint_ns"),
                checkpoint_id=get_checkpoint_id(config) if config else None,
                before=get_checkpoint_id(before) if before else None,
                limit=None if filter else limit,
            )
            kept = [row for row in found if _fits(row, filter)][:limit]
            return iter([self._tuple(row) for row in kept])

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint."""
        place = config["configurable"]
        kind, blob = self.serde.dumps_typed(checkpoint)
        facts = get_checkpoint_metadata(config, metadata)
        row = CheckpointRow(
            thread_id=str(place["thread_id"]),
            ns=place.get("checkpoint_ns", ""),
            checkpoint_id=checkpoint["id"],
            parent_id=place.get("checkpoint_id") or "",
            run_id=str(facts.get("run_id") or ""),
            type=kind,
            blob=blob,
            metadata=json.dumps(facts),
        )
        with self._lock:
            self._rows.save([row], [])
        self._release()
        return _place(row.thread_id, row.ns, row.checkpoint_id)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a task wrote."""
        place = config["configurable"]
        rows = [
            WriteRow(
                str(place["thread_id"]),
                place.get("checkpoint_ns", ""),
                place["checkpoint_id"],
                task_id,
                task_path,
                WRITES_IDX_MAP.get(channel, position),
                channel,
                *self.serde.dumps_typed(value),
            )
            for position, (channel, value) in enumerate(writes)
        ]
        with self._arrived:
            # A node that was answered several times tells its answers several times; no database takes a row twice.
            self._rows.save([], list({row.key: row for row in rows}.values()))
            self._wrote.add(task_id)
            self._arrived.notify_all()
        self._release()

    def delete_thread(self, thread_id: str) -> None:
        """Forget a thread."""
        self._forget(threads=[str(thread_id)])

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Forget what these runs left."""
        self._forget(run_ids=list(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with its whole history."""
        with self._lock:
            checkpoints = self._rows.checkpoints(threads=[source_thread_id])
            writes = self._rows.writes([row.key for row in checkpoints])
            self._rows.save(
                [_moved(row, target_thread_id) for row in checkpoints],
                [_moved(row, target_thread_id) for row in writes],
            )

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Forget all but the latest checkpoint of each namespace, or with `delete` all of them."""
        with self._lock:
            rows = self._rows.checkpoints(threads=list(thread_ids))
            latest = {(row.thread_id, row.ns): row.key for row in reversed(rows)}
            kept = set(latest.values()) if strategy == "keep_latest" else set()
            self._rows.delete([row.key for row in rows if row.key not in kept])

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `get_tuple`."""
        return await self._in_thread(self.get_tuple, config)

    async def alist(self, config: RunnableConfig | None, **options: Any) -> AsyncIterator[CheckpointTuple]:
        """See `list`."""
        for item in await self._in_thread(self.list, config, **options):
            yield item

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See `put`."""
        return await self._in_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """See `put_writes`."""
        await self._in_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """See `delete_thread`."""
        await self._in_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `delete_for_runs`."""
        await self._in_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See `copy_thread`."""
        await self._in_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `prune`."""
        await self._in_thread(self.prune, thread_ids, strategy=strategy)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return the channel version after `current`: a counter that sorts as text."""
        return f"{int(current or 0) + 1:032d}"

    def _release(self) -> None:
        """Give back what a write took on a thread of LangGraph's, which ends with the play and gives back nothing."""
        if self._rows is self._stored and threading.get_ident() != self._home:
            self._stored.release()

    async def _in_thread(self, act: Callable[..., T], *args: Any, **options: Any) -> T:
        def perform() -> T:
            try:
                return act(*args, **options)
            finally:
                self._stored.release()

        return await asyncio.to_thread(perform)

    def _left_open(self, writes: Sequence[WriteRow]) -> Sequence[WriteRow]:
        """Return what is left of the questions of failed tasks, where an answer has been taken.

        LangGraph leaves the question of a task that took its answer and failed then. Answered by its id once more, as
        when the run is retried, it would hand the same answer to the task's next question.
        """
        failed = {row.task_id: row.checkpoint_key for row in writes if row.channel == ERROR}
        if not failed:
            return []
        stored = [row for row in self._stored.writes(set(failed.values())) if row.task_id in failed]
        asked = [(row, self._value(row)) for row in stored if row.channel == INTERRUPT]
        before, now = self._answers(stored), self._answers(writes)
        taken = {
            item.id
            for row, items in asked
            for item in items
            if now.get(row.task_id, 0) > before.get(row.task_id, 0)
        }  # fmt: skip
        left = [(row, tuple(item for item in items if item.id not in taken)) for row, items in asked]
        changed = [(row, self.serde.dumps_typed(items)) for row, items in left if items != tuple(self._value(row))]
        return [replace(row, type=kind, blob=blob) for row, (kind, blob) in changed]

    def _answers(self, writes: Sequence[WriteRow]) -> dict[str, int]:
        return {row.task_id: len(self._value(row)) for row in writes if row.channel == RESUME}

    def _value(self, row: WriteRow) -> Any:
        return self.serde.loads_typed((row.type, row.blob))

    def _forget(self, **conditions: Any) -> None:
        with self._lock:
            self._rows.delete([row.key for row in self._rows.checkpoints(**conditions)])

    def _tuple(self, row: CheckpointRow) -> CheckpointTuple:
        _name_later_ones_after(row.checkpoint_id)
        parent = _place(row.thread_id, row.ns, row.parent_id) if row.parent_id else None
        return CheckpointTuple(
            config=_place(row.thread_id, row.ns, row.checkpoint_id),
            checkpoint=self.serde.loads_typed((row.type, row.blob)),
            metadata=cast(CheckpointMetadata, json.loads(row.metadata)),
            parent_config=parent,
            pending_writes=[
                (write.task_id, write.channel, self._value(write)) for write in self._rows.writes([row.key])
            ],
        )


def _name_later_ones_after(checkpoint_id: str) -> None:
    """Let what this process makes from now on sort after a checkpoint, whose maker's clock may be ahead of ours.

    A thread's latest checkpoint is the one with the greatest id, and ids begin with the time. LangGraph keeps in a
    name of its own how far the ids of a process have come; `tests/domain/test_clocks_apart.py` tells if that moves.
    """
    with suppress(ValueError):
        made = ids.UUID(checkpoint_id)
        if made.version == 6:
            known, reached = vars(ids), made.time
            # No call between the look and the change, as in LangGraph itself: threads take turns at calls only, and
            # what another one has named meanwhile must not be taken back.
            if (known[_REACHED] or 0) < reached:
                known[_REACHED] = reached


def _place(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}


def _fits(row: CheckpointRow, wanted: dict[str, Any] | None) -> bool:
    if not wanted:
        return True
    facts = json.loads(row.metadata)
    return all(facts.get(key) == value for key, value in wanted.items())


def _moved(row: Any, thread_id: str) -> Any:
    values = {name: getattr(row, name) for name in type(row).__slots__}
    return type(row)(**{**values, "thread_id": thread_id})
