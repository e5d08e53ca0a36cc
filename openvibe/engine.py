"""Plays a compiled workflow and tells what happened, one commit's worth at a time.

The engine is a synchronous generator: whoever plays it commits each `Progress` before asking for the next, so that
nothing runs ahead of what is stored. Closing it at any `Progress` is safe; a later play goes on from there.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from langgraph.errors import GraphRecursionError, UnknownInterruptError
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from openvibe import canonical
from openvibe.compiler import CompiledWorkflow, node_id
from openvibe.errors import OpenVibeError, RunError
from openvibe.events import STEP_FAILED, STEP_FINISHED, STEP_STARTED, Event, Figures, Usage
from openvibe.graph.rows import MemoryRows
from openvibe.graph.saver import RowSaver
from openvibe.outcomes import Completed, Failed, GateRequest, OpenGate, Outcome, Paused, Progress
from openvibe.session import Session

#: LangGraph's internal name for "refuse an answer to an interrupt that is not pending"; `strict_resume_works` tests it.
STRICT_RESUME = "__pregel_strict_resume"

#: How many super-steps one play may take: the visible bound of a loop.
STEP_LIMIT = 1_000


def play(
    workflow: CompiledWorkflow,
    *,
    saver: RowSaver,
    thread_id: str,
    session: Session,
    start: Mapping[str, Any] | None = None,
    answers: Mapping[str, Any] | None = None,
    outside: tuple[type[Exception], ...] = (),
) -> Iterator[Progress]:
    """Play a run until it ends or waits.

    `start` is the input of a run that never played; without it the run goes on from `saver`'s latest checkpoint, with
    `answers` (interrupt id → answer) for the gates it waited at. `saver` collects; its rows belong to the same commit
    as the `Progress` at hand. Faults that are `outside` of the run, such as those of whatever stores it, are raised;
    every other one is the run's own end.
    """
    told = _Teller(session)
    parts: Iterator[Any] = workflow.graph.copy(update={"checkpointer": saver}).stream(
        dict(start) if start is not None else Command(resume=dict(answers)) if answers else None,
        {"configurable": {"thread_id": thread_id, STRICT_RESUME: True}, "recursion_limit": STEP_LIMIT},
        context=session,
        stream_mode=["tasks", "checkpoints"],
        durability="sync",
    )
    try:
        for mode, part in parts:
            if mode == "tasks":
                told.task(part)
            elif told.checkpoint(part, fresh=saver.holds(part["config"])):
                yield told.hand_over()
    except outside:
        raise
    except Exception as error:
        yield told.hand_over(told.failure(error))
        return
    yield told.hand_over(told.ending())


class _Teller:
    """Turns LangGraph's stream parts into events and outcomes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._progress = Progress()
        self._began: dict[str, float] = {}
        self._gates: list[OpenGate] = []
        self._values: dict[str, Any] = {}
        self._failed_node = ""

    def hand_over(self, outcome: Outcome | None = None) -> Progress:
        progress, self._progress = self._progress, Progress()
        progress.outcome = outcome
        return progress

    def task(self, part: Mapping[str, Any]) -> None:
        if "triggers" in part:
            self._began[part["id"]] = time.perf_counter()
        elif part["error"]:
            self._failed(part)
        elif part["interrupts"]:
            self._gates += [
                OpenGate(part["id"], item["id"], GateRequest(**item["value"])) for item in part["interrupts"]
            ]
        else:
            self._finished(part)

    def checkpoint(self, part: Mapping[str, Any], *, fresh: bool) -> bool:
        """Tell the steps that begin; return whether this is a boundary that deserves a commit of its own."""
        self._values = part["values"]
        if not fresh or "__start__" in part["next"]:
            # An old checkpoint is loaded, or the input is about to be applied: neither is news.
            return False
        self._progress.events += [
            Event(STEP_STARTED, node=node_id(task["name"]), step_id=task["id"]) for task in part["tasks"]
        ]
        # The last checkpoint is committed together with the run's end.
        return bool(part["next"])

    def _finished(self, part: Mapping[str, Any]) -> None:
        data = {"update": canonical.jsonable(part["result"] or {}), **self._measured(part["id"])}
        self._tell(STEP_FINISHED, part, data)
        self._progress.figures.nodes_executed += 1

    def _failed(self, part: Mapping[str, Any]) -> None:
        self._failed_node = node_id(part["name"])
        self._tell(STEP_FAILED, part, {"error": canonical.jsonable(str(part["error"])), **self._measured(part["id"])})
        self._progress.figures.nodes_failed += 1

    def _tell(self, kind: str, part: Mapping[str, Any], data: dict[str, Any]) -> None:
        self._progress.events.append(Event(kind, node=node_id(part["name"]), step_id=part["id"], data=data))

    def _measured(self, step_id: str) -> dict[str, Any]:
        began = self._began.pop(step_id, None)
        usages = self._session.used(step_id)
        for usage in usages:
            self._progress.figures.add(usage)
        duration = {} if began is None else {"duration_seconds": round(time.perf_counter() - began, 4)}
        return {**duration, **({"usage": _summed(usages)} if usages else {})}

    def ending(self) -> Outcome:
        if self._gates:
            return Paused(tuple(self._gates))
        return Completed(canonical.jsonable(self._values))

    def failure(self, error: Exception) -> Failed:
        text = str(error) or type(error).__name__
        if isinstance(error, GraphRecursionError):
            text = f"The run took more than {STEP_LIMIT} steps without a pause; does it loop?"
        explained = isinstance(error, (RunError, OpenVibeError, GraphRecursionError))
        trace = "" if explained else "".join(traceback.format_exception(error))
        return Failed(error=text, kind=type(error).__name__, node=self._failed_node, traceback=trace)


def _summed(usages: list[Usage]) -> dict[str, Any]:
    total = Figures()
    for usage in usages:
        total.add(usage)
    last = usages[-1]
    return {
        "model": last.model,
        "provider": last.provider,
        "simulated": last.simulated,
        "calls": total.llm_calls,
        "tokens_in": total.tokens_in,
        "tokens_out": total.tokens_out,
        "cost_usd": None if total.unpriced_calls else str(total.cost_usd),
    }


@cache
def strict_resume_works() -> bool:
    """Tell whether the installed LangGraph refuses an answer to an interrupt that is not pending.

    `STRICT_RESUME` is a name of LangGraph's own; a release may drop it, and then nothing but our own look at what is
    pending stands between a stale answer and the wrong gate.
    """
    graph: Any = StateGraph(dict)
    graph.add_node("gate", lambda _: interrupt("?"))
    graph.add_edge(START, "gate")
    asked = graph.compile(checkpointer=RowSaver(MemoryRows()))
    config = {"configurable": {"thread_id": "strict", STRICT_RESUME: True}}
    asked.invoke({}, config)
    try:
        asked.invoke(Command(resume={"0" * 32: "an answer to nothing"}), config)
    except UnknownInterruptError:
        return True
    return False
