"""The states that a thread has passed through, and threads that begin at one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from langgraph.channels import BinaryOperatorAggregate, LastValue
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple, copy_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.types import INTERRUPT, RESUME, TASKS
from langgraph.graph import END
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from openvibe import canonical
from openvibe.compiler import CompiledWorkflow, node_id
from openvibe.errors import InputError, WrongUpdate
from openvibe.graph.rows import Rows
from openvibe.graph.saver import RowSaver

#: How the names of LangGraph's own channels begin.
_INTERNAL = ("__", "branch:")
#: How the names of the channels begin that lead to a node: from one node, and from several together.
_NEXT, _JOINED = "branch:to:", "join:"
#: LangGraph's word for the checkpoint that its `update_state` writes.
AMENDED = "update"


def state(rows: Rows, thread_id: str, checkpoint_id: str, *, fields: Iterable[str] | None = None) -> dict[str, Any]:
    """Return the state at a checkpoint as JSON: these fields or, without any named, all that is not LangGraph's own."""
    found = _found(rows, thread_id, checkpoint_id)
    values = found.checkpoint["channel_values"] if found else {}
    wanted = set(fields) if fields is not None else {name for name in values if not name.startswith(_INTERNAL)}
    return {name: canonical.jsonable(value) for name, value in values.items() if name in wanted}


def edits(workflow: CompiledWorkflow, values: Mapping[str, Any], *, by: str = "fork") -> dict[str, Any]:
    """Return edited values of the state in the types of its fields; `by` is who edits, for the sentence about a fault.

    Raises:
        InputError: a field is unknown or cannot be edited, or a value does not fit; each problem is named.
    """
    edited: dict[str, Any] = {}
    problems: list[dict[str, str]] = []
    for name, value in values.items():
        try:
            if canonical.jsonable(value) != value:
                raise WrongUpdate("holds a whole number from 2**53 on, a NUL or half a character, which cannot be kept")
            edited[name] = _edit(workflow, name, value, by=by)
        except (WrongUpdate, ValidationError) as error:
            problems.append({"field": name, "type": "", "message": str(error)})
    if problems:
        raise InputError("; ".join(f"{item['field']}: {item['message']}" for item in problems), problems)
    return edited


def branch(rows: Rows, *, source: str, target: str, checkpoint_id: str, values: Mapping[str, Any]) -> None:
    """Begin a thread with the history of another up to a checkpoint, and go on from there with these values changed.

    What the next steps have written or asked in the source is left behind: they begin anew, under names of their own.
    """
    kept = [row for row in rows.checkpoints(threads=[source]) if row.checkpoint_id <= checkpoint_id]
    written = rows.writes([row.key for row in kept if row.checkpoint_id < checkpoint_id])
    rows.save([replace(row, thread_id=target) for row in kept], [replace(row, thread_id=target) for row in written])
    start = _found(rows, target, checkpoint_id)
    assert start is not None
    # LangGraph's own word for a checkpoint that a fork begins with.
    _go_on(rows, start, values, source="fork")


def amend(rows: Rows, thread_id: str, values: Mapping[str, Any]) -> None:
    """Change values of the state at which a thread stands, in a checkpoint of its own.

    The same steps are next as before, and begin anew: it is LangGraph's `update_state` in the name of the step before
    them, so that none of them counts as done. What they asked is left behind with the old checkpoint.
    """
    latest = RowSaver(rows).get_tuple({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})
    assert latest is not None
    _go_on(rows, latest, values, source=AMENDED)


def unanswer(rows: Rows, thread_id: str, step_id: str, interrupt_id: str) -> bool:
    """Forget the last answer of a step at which a thread stands, so that it asks again; False if it is at no such step.

    An answer that the step has not taken yet is none of the thread's.
    """
    saver = RowSaver(rows)
    latest = rows.checkpoints(threads=[thread_id], ns="", limit=1)
    written = [row for row in rows.writes([row.key for row in latest]) if row.task_id == step_id]
    told = {row.channel: (row, saver.serde.loads_typed((row.type, row.blob))) for row in written}
    if not told.keys() & {INTERRUPT, RESUME}:
        return False
    _, asked = told.get(INTERRUPT, (None, ()))
    if RESUME in told and interrupt_id not in [item.id for item in asked]:
        row, given = told[RESUME]
        kind, blob = saver.serde.dumps_typed(given[:-1])
        rows.save([], [replace(row, type=kind, blob=blob)])
    return True


def amended(latest: CheckpointTuple | None) -> bool:
    """Tell whether a thread's latest checkpoint is one that `amend` has written."""
    return latest is not None and latest.metadata.get("source") == AMENDED


def gone(workflow: CompiledWorkflow, latest: CheckpointTuple | None) -> list[str]:
    """Return the nodes that are next at a checkpoint, and that the workflow no longer has, or no longer the way there.

    LangGraph plays what it finds: without its next node a run would be told as completed where it stands.
    """
    values = latest.checkpoint["channel_values"] if latest else {}
    ways = {name: value for name, value in values.items() if name not in workflow.graph.channels}
    following = {name.removeprefix(_NEXT) for name in ways if name.startswith(_NEXT)}
    following |= {name.rpartition(":")[2] for name, value in ways.items() if name.startswith(_JOINED) and _begun(value)}
    following |= {packet.node for packet in values.get(TASKS, ())} - workflow.graph.nodes.keys()
    return sorted(node_id(name) for name in following - {END})


def _begun(arrived: Any) -> bool:
    """Tell whether one of the nodes has come to its end for which another one waits."""
    # Where the last of all is waited for, too, it comes with whether that one has ended.
    return bool(arrived[0] if isinstance(arrived, tuple) else arrived)


def _go_on(rows: Rows, start: CheckpointTuple, values: Mapping[str, Any], *, source: str) -> None:
    saver = RowSaver(rows)
    facts = {**start.metadata, "source": source, "step": start.metadata.get("step", -1) + 1}
    saver.put(start.config, _changed(saver, start.checkpoint, values), cast(CheckpointMetadata, facts), {})


def _found(rows: Rows, thread_id: str, checkpoint_id: str) -> CheckpointTuple | None:
    return RowSaver(rows).get_tuple({"configurable": {"thread_id": thread_id, "checkpoint_id": checkpoint_id}})


def _changed(saver: RowSaver, checkpoint: Checkpoint, values: Mapping[str, Any]) -> Checkpoint:
    changed = copy_checkpoint(checkpoint)
    changed["id"] = str(uuid6(clock_seq=-2))
    changed["channel_values"] = {**checkpoint["channel_values"], **values}
    newest = max(map(str, checkpoint["channel_versions"].values()), default=None)
    versions = dict.fromkeys(values, saver.get_next_version(newest, None))
    changed["channel_versions"] = {**checkpoint["channel_versions"], **versions}
    return changed


def _edit(workflow: CompiledWorkflow, name: str, value: Any, *, by: str) -> Any:
    if not workflow.foreign:
        return workflow.definition.fields.check_update(by, {name: value})[name]
    channel = workflow.graph.channels.get(name)
    if channel is None or name.startswith(_INTERNAL):
        known = ", ".join(sorted(name for name in workflow.graph.channels if not name.startswith(_INTERNAL)))
        raise WrongUpdate(f"is no field of the graph's state; its fields are: {known}")
    if not isinstance(channel, (LastValue, BinaryOperatorAggregate)):
        # Other channels keep more than a value, such as what has come since the last one.
        raise WrongUpdate(f"is a {type(channel).__name__} of the graph, whose value cannot be set")
    return _adapted(channel.typ, value)


def _adapted(type_: Any, value: Any) -> Any:
    try:
        adapter = TypeAdapter(type_)
    except PydanticUserError:
        # A type of the graph's own that nobody can check; its nodes will.
        return value
    return adapter.validate_python(value)
