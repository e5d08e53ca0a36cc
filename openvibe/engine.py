"""Plays a compiled workflow and tells what happened, one commit's worth at a time.

The engine is a synchronous generator: whoever plays it commits each `Progress` before asking for the next, so that
nothing runs ahead of what is stored. Closing it at any `Progress` is safe; a later play goes on from there.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import cache
from typing import Any

from langgraph.errors import GraphRecursionError, UnknownInterruptError
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from openvibe import canonical, interrupts, trace
from openvibe.compiler import CompiledWorkflow, node_id
from openvibe.errors import Backoff, EffectUnknown, OpenVibeError, RunError, SetupError
from openvibe.events import STEP_FAILED, STEP_FINISHED, STEP_STARTED, Event, Figures, Usage
from openvibe.graph import history, inline, pump
from openvibe.graph.rows import MemoryRows
from openvibe.graph.saver import RowSaver
from openvibe.ids import random_text
from openvibe.outcomes import (
    HAPPENED,
    NOT_HAPPENED,
    REST,
    SEATS,
    Completed,
    Emission,
    Failed,
    OpenWait,
    Outcome,
    Paused,
    Progress,
    WaitRequest,
)
from openvibe.protocol import nesting
from openvibe.session import Session, StepNotes

#: LangGraph's internal name for "refuse an answer to an interrupt that is not pending"; `strict_resume_works` tests it.
STRICT_RESUME = "__pregel_strict_resume"

#: How many super-steps one play may take: the visible bound of a loop.
STEP_LIMIT = 1_000

#: How long what a finished step wrote may take, in seconds, from LangGraph's thread to the saver.
ARRIVAL = 5.0

#: How the name of an engine wait begins that lies between two tries of a step.
BACKOFF = "backoff/"

#: The longest pause between two tries, in seconds, whatever a provider asks for.
LONGEST_PAUSE = 7 * 24 * 3600.0


def play(
    workflow: CompiledWorkflow,
    *,
    saver: RowSaver,
    thread_id: str,
    session: Session,
    start: Mapping[str, Any] | None = None,
    answers: Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Play a run until it ends or waits, in its trace.

    `start` is the input of a run that never played; without it the run goes on from `saver`'s latest checkpoint, with
    `answers` (interrupt id → what goes into the graph) for the waits that the graph stands at. `saver` collects; its
    rows belong to the same commit as the `Progress` at hand. Faults that are `session.outside` of the run, such as
    those of whatever stores it, are raised; every other one is the run's own end.
    """
    parts = _played(workflow, saver=saver, thread_id=thread_id, session=session, start=start, answers=answers)
    return trace.through(parts, session.run.traceparent, session.run.tracestate)


def _played(
    workflow: CompiledWorkflow,
    *,
    saver: RowSaver,
    thread_id: str,
    session: Session,
    start: Mapping[str, Any] | None,
    answers: Mapping[str, Any] | None,
) -> Generator[Progress]:
    told = _Teller(workflow, session, saver, answered=bool(answers))
    given: Any = dict(start) if start is not None else Command(resume=dict(answers)) if answers else None
    parts = _parts(workflow, given, saver=saver, thread_id=thread_id, session=session)
    try:
        if start is None:
            _require_next(workflow, saver, thread_id)
        for mode, part in parts:
            if told.task(part) if mode == "tasks" else told.checkpoint(part, fresh=saver.holds(part["config"])):
                yield told.hand_over(told.rest())
                if told.resting:
                    return
    except session.outside:
        raise
    except EffectUnknown as error:
        yield told.hand_over(_doubt(error))
        return
    except Backoff as error:
        yield told.hand_over(told.backoff(error))
        return
    except Exception as error:
        yield told.hand_over(told.failure(error))
        return
    finally:
        parts.close()
    yield told.hand_over(told.rest() or told.ending())


def _require_next(workflow: CompiledWorkflow, saver: RowSaver, thread_id: str) -> None:
    """Refuse to go on where the workflow's code has changed under a run, so that its next node is gone."""
    if gone := history.gone(workflow, saver.get_tuple({"configurable": {"thread_id": thread_id}})):
        spec = workflow.definition.spec
        raise SetupError(
            f"The run stands before {', '.join(map(repr, gone))}, and workflow {spec.id!r} no longer has that node, or "
            "the way to it; bring it back and let the run try again, or start a new one"
        )


def _parts(workflow: CompiledWorkflow, given: Any, *, saver: RowSaver, thread_id: str, session: Session) -> Any:
    # An eager graph tells of a branch's end while others go on. It costs threads, and ours have no branches.
    graph: Any = workflow.graph.copy(update={"checkpointer": saver, "stream_eager": workflow.foreign})
    place = {"thread_id": thread_id, STRICT_RESUME: True, inline.KEY: not workflow.foreign}
    config = {"configurable": place, "recursion_limit": STEP_LIMIT}
    options: dict[str, Any] = {"stream_mode": ["tasks", "checkpoints"], "durability": "sync"}
    if not workflow.foreign:
        options["context"] = session
    if workflow.asynchronous:
        return pump.parts(lambda: graph.astream(given, config, **options))
    return graph.stream(given, config, **options)


class _Teller:
    """Turns LangGraph's stream parts into events and outcomes."""

    def __init__(self, workflow: CompiledWorkflow, session: Session, saver: RowSaver, *, answered: bool) -> None:
        self._answered = answered
        self._foreign = workflow.foreign
        self._fields = frozenset(workflow.definition.fields.types)
        self._emits = workflow.definition.spec.emits
        self._session = session
        self._saver = saver
        self._progress = Progress()
        self._began: dict[str, float] = {}
        self._waits: list[OpenWait] = []
        self._values: dict[str, Any] = {}
        self._failed_node = self._failed_step = ""
        self._sleep: tuple[str, str, timedelta] | None = None
        self._cost = Decimal(0)
        self._overspent: OpenWait | None = None
        self.resting = False

    def hand_over(self, outcome: Outcome | None = None) -> Progress:
        progress, self._progress = self._progress, Progress()
        progress.outcome = outcome
        if outcome is not None:
            self._saver.in_flight.clear()
            self._tell_trace(outcome)
        if isinstance(outcome, Completed):
            progress.emissions += [Emission(name, outcome.output, f"end/{name}") for name in self._emits]
        return progress

    def _tell_trace(self, outcome: Outcome) -> None:
        trace = self._session.trace
        match outcome:
            case Completed(output):
                trace.end("completed", output=output)
            case Failed(error):
                trace.end("failed", error=error)
            case _:
                trace.end("waiting")

    def task(self, part: Mapping[str, Any]) -> bool:
        """Tell of a step; return whether it has finished beside others that go on: no crash must repeat it then."""
        if "triggers" in part:
            self._began[part["id"]] = time.perf_counter()
            self._saver.in_flight.add(part["id"])
            return False
        self._saver.in_flight.discard(part["id"])
        if part["error"]:
            self._failed(part)
        elif part["interrupts"]:
            self._waits += [wait for item in part["interrupts"] for wait in self._asked(part, item)]
        else:
            self._finished(part)
            return bool(self._saver.in_flight) and self._saver.await_writes(part["id"], timeout=ARRIVAL)
        return False

    def checkpoint(self, part: Mapping[str, Any], *, fresh: bool) -> bool:
        """Tell the steps that begin; return whether this is a boundary that deserves a commit of its own."""
        self._saver.in_flight.clear()
        self._values = part["values"]
        if "__start__" in part["next"]:
            # The input is about to be applied: no news.
            return False
        if fresh or not self._answered:
            self._overspent = self._asks_for_money(part["tasks"])
        started = [Event(STEP_STARTED, node=node_id(task["name"]), step_id=task["id"]) for task in part["tasks"]]
        if not fresh:
            # An old checkpoint is loaded. After a rest, and after nothing else, its steps have not been told.
            self._progress.reopened = [] if self._answered or self._overspent else started
            return bool(self._progress.reopened or self._overspent)
        if self._sleep is None and self._overspent is None:
            self._progress.events += started
        # The last checkpoint is committed together with the run's end.
        return bool(part["next"])

    def rest(self) -> Outcome | None:
        """Return the pause that lies at this boundary: an engine wait, which answers no interrupt.

        The step before it asked for a rest, or a person is asked for more money.
        """
        if self._sleep is None and self._overspent is not None:
            self.resting = True
            return Paused((self._overspent,))
        if self._sleep is None:
            return None
        node, step_id, sleep = self._sleep
        self.resting = True
        request = WaitRequest(node=node, kind="timer", prompt=f"Sleeps {sleep}", timeout_seconds=sleep.total_seconds())
        return Paused((OpenWait(step_id, f"{REST}{step_id}", request),))

    def _asks_for_money(self, tasks: Sequence[Mapping[str, Any]]) -> OpenWait | None:
        if self._session.budget is None or not tasks:
            return None
        first = tasks[0]
        request = self._session.budget(node_id(first["name"]), self._cost)
        if request is None:
            return None
        return OpenWait(first["id"], f"budget/{first['id']}/{random_text(8)}", request)

    def _asked(self, part: Mapping[str, Any], item: Mapping[str, Any]) -> list[OpenWait]:
        """Return the waits of an interrupt: one, or the group of those that it asks together."""
        value, node = item["value"], node_id(part["name"])
        if self._foreign:
            asked = [interrupts.request(value, node=node, response_schema=item.get("response_schema"))]
        else:
            together = {name: told for name, told in value.items() if name != SEATS}
            asked = [WaitRequest(**{**together, **own}) for own in value.get(SEATS, [{}])]
        return [OpenWait(part["id"], item["id"], request, seat) for seat, request in enumerate(asked)]

    def _finished(self, part: Mapping[str, Any]) -> None:
        notes = self._session.told(part["id"])
        result = part["result"] or {}
        update = result if self._foreign else {key: value for key, value in result.items() if key in self._fields}
        if self._foreign and nesting.deep(update, most=nesting.MOST_LEVELS + 1):
            raise RunError(f"What node {part['name']!r} returned {nesting.FAULT}")
        data = {
            "update": canonical.jsonable(update),
            **canonical.jsonable(notes.shown),
            **self._measured(part["id"], notes),
        }
        self._tell(STEP_FINISHED, part, data)
        self._progress.figures.nodes_executed += 1
        visit = self._session.visits.name(node_id(part["name"]), part["id"])
        self._progress.emissions += _emissions(visit, notes)
        self._progress.puts |= notes.puts
        if notes.sleep:
            self._sleep = (node_id(part["name"]), part["id"], notes.sleep)

    def _failed(self, part: Mapping[str, Any]) -> None:
        measured = self._measured(part["id"], self._session.told(part["id"]))
        self._failed_node, self._failed_step = node_id(part["name"]), part["id"]
        if isinstance(part["error"], (EffectUnknown, Backoff)):
            # The step waits, for a person or for a while, and is played again.
            return
        self._tell(STEP_FAILED, part, {"error": canonical.jsonable(str(part["error"])), **measured})
        self._progress.figures.nodes_failed += 1

    def _tell(self, kind: str, part: Mapping[str, Any], data: dict[str, Any]) -> None:
        self._progress.events.append(Event(kind, node=node_id(part["name"]), step_id=part["id"], data=data))

    def _measured(self, step_id: str, notes: StepNotes) -> dict[str, Any]:
        began = self._began.pop(step_id, None)
        for usage in notes.usages:
            self._progress.figures.add(usage)
            self._cost += usage.cost_usd or 0
        duration = {} if began is None else {"duration_seconds": round(time.perf_counter() - began, 4)}
        return {**duration, **({"usage": _summed(notes.usages)} if notes.usages else {})}

    def ending(self) -> Outcome:
        if self._waits:
            return Paused(tuple(self._waits))
        values = self._values if isinstance(self._values, Mapping) else {"value": self._values}
        kept = values if self._foreign else {key: value for key, value in values.items() if key in self._fields}
        return Completed(canonical.jsonable(kept))

    def failure(self, error: Exception) -> Failed:
        text = str(error) or type(error).__name__
        if isinstance(error, GraphRecursionError):
            text = f"The run took more than {STEP_LIMIT} steps without a pause; does it loop?"
        explained = isinstance(error, (RunError, OpenVibeError, GraphRecursionError))
        trace = "" if explained else "".join(traceback.format_exception(error))
        attempt = self._session.tries(self._failed_step).attempt if self._failed_step else 0
        return Failed(
            error=text,
            kind=type(error).__name__,
            node=self._failed_node,
            traceback=trace,
            step_id=self._failed_step,
            attempt=attempt,
        )

    def backoff(self, error: Backoff) -> Paused:
        """Return the pause before the next try of the step that failed last: an engine wait."""
        tries, seconds = self._session.tries(self._failed_step), min(error.seconds, LONGEST_PAUSE)
        request = WaitRequest(
            node=self._failed_node,
            kind="timer",
            prompt=f"Tries again in {seconds:g} s",
            payload={"tries": {"step": tries.step, "model": tries.model}, "error": canonical.jsonable(error.reason)},
            timeout_seconds=seconds,
        )
        # A retried run may come to the same try of the same step again.
        return Paused((OpenWait(self._failed_step, f"{BACKOFF}{self._failed_step}/{random_text(8)}", request),))


def _doubt(error: EffectUnknown) -> Paused:
    """Return the question about an effect that nobody can tell of. Its answer settles the effect, not an interrupt."""
    # By its hash: a name has less room than a key, and two long keys that begin alike are two questions.
    place = f"effect/{error.step_id}/{error.attempt}/{hashlib.sha256(error.key.encode()).hexdigest()}"
    request = WaitRequest(
        node=error.node,
        kind="approval",
        prompt=f"Did this happen? {error}",
        payload={"effect": error.key, "node": error.node, "attempt": error.attempt},
        decisions=[HAPPENED, NOT_HAPPENED],
        schema={
            "type": "object",
            "properties": {
                "decision": {"enum": [HAPPENED, NOT_HAPPENED]},
                "notes": {"type": "string", "maxLength": 10_000},
                "values": {"type": "object", "properties": {"result": {}}, "additionalProperties": False},
            },
            "required": ["decision"],
            "additionalProperties": False,
        },
        edits=["result"],
        form="effect",
    )
    return Paused((OpenWait(error.step_id, place, request),))


def _emissions(visit: str, notes: StepNotes) -> list[Emission]:
    """Name what a visit has emitted by the event: a run that starts over may tell of others before it."""
    before: Counter[str] = Counter()
    found = []
    for name, payload in notes.emitted:
        found.append(Emission(name, payload, f"{visit}/{name}/{before[name]}"))
        before[name] += 1
    return found


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
