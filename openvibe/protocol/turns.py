"""Turns as the wire knows them: a run, from its start or a retry to its end; and what each message about one holds.

Agents of the dialect `cg` read the fields from the body itself, those who know the envelope from its payload.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from openvibe.protocol.envelope import Envelope, ProtocolViolation
from openvibe.protocol.workflow import Ending

#: What each message about a turn must hold, by its family.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "evt.agent.step": ("agent_turn_id", "step_id", "phase"),
    "evt.agent.task": ("agent_turn_id", "status"),
    "evt.agent.state": ("agent_id", "agent_turn_id", "status", "turn_epoch", "updated_at"),
    "str.agent.chunk": ("agent_turn_id", "step_id", "chunk_type", "content"),
}
#: What agents say of their turns, by the last word of the subject.
FAMILIES = ("step", "task", "state")
#: What says whose message it is, and not what it says.
ENVELOPE = frozenset(Envelope.model_fields) - {"step_id"}
#: What a task's status means for an external run.
TASK_ENDINGS: Mapping[str, Ending] = {
    "success": "completed",
    "partial": "completed",
    "failed": "failed",
    "timeout": "failed",
    "canceled": "cancelled",
}
#: What an event of a run's thread tells of its turn, by the event's kind: the phase of a step, …
PHASES: Mapping[str, str] = {"step.started": "started", "step.finished": "completed", "step.failed": "failed"}
#: … where the turn stands, …
STATES: Mapping[str, str] = {
    **dict.fromkeys(("run.queued", "run.retried", "run.handed_back", "run.lost"), "dispatched"),
    **dict.fromkeys(("run.started", "run.resumed"), "running"),
    **dict.fromkeys(("gate.opened", "timer.set", "tool.requested", "work.requested", "reply.requested"), "suspended"),
    **dict.fromkeys(("run.completed", "run.failed", "run.cancelled"), "idle"),
}
#: … and how it ended.
TASKS: Mapping[str, str] = {"run.completed": "success", "run.failed": "failed", "run.cancelled": "canceled"}
#: The kinds of events that tell of turns at all.
TELLING = PHASES.keys() | STATES.keys() | TASKS.keys()
#: Failures that are a matter of time.
TIMEOUTS = frozenset({"WorkflowTimeout", "RunOutlived"})
#: How the ids of our own runs begin, and hence of their turns.
OURS = "run_"
# A run's id ends in random text without a dash.
_TURN = re.compile(r"(?P<run>.+?)-[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Turn:
    """A run's turn, under the claim that holds it."""

    run_id: str
    agent_id: str
    retries: int = 0
    epoch: int = 0

    @property
    def id(self) -> str:
        """Its `agent_turn_id`."""
        return turn_id(self.run_id, self.retries)

    def after(self, kind: str, data: Mapping[str, Any]) -> Turn:
        """Return the turn as an event of the run's thread leaves it."""
        match kind:
            case "run.started":
                return replace(self, epoch=1)
            case "run.resumed":
                return replace(self, epoch=data["epoch"])
            case "run.retried":
                return replace(self, retries=data["retry"])
        return self


def turn_id(run_id: str, retries: int) -> str:
    """Return the `agent_turn_id` of a run that has been let try again so often."""
    return f"{run_id}-{retries}"


def run_of(turn_id: str) -> str:
    """Return the id of the run that a turn of ours belongs to; what is no turn of ours stays as it is."""
    found = _TURN.fullmatch(turn_id)
    return found["run"] if found else turn_id


def context_box(run_id: str) -> str:
    """Return the name of the box that holds what a run was asked for."""
    return f"{run_id}-context"


def output_box(turn: str) -> str:
    """Return the name of the box that holds what a turn delivered."""
    return f"{turn}-output"


def told(
    turn: Turn, kind: str, *, step_id: str, node: str, data: Mapping[str, Any], at: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what an event of a run's thread tells of its turn: `step`, `state` or `task`, and the message's fields."""
    named = {"agent_id": turn.agent_id, "agent_turn_id": turn.id}
    if kind in PHASES:
        yield "step", {**named, "step_id": step_id, "phase": PHASES[kind], "metadata": {"node": node}}
    if kind in STATES:
        yield "state", {**named, "status": STATES[kind], "turn_epoch": turn.epoch, "updated_at": at}
    if kind in TASKS:
        yield "task", {**named, **_ended(kind, data)}


def _ended(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    if kind != "run.failed":
        return {"status": TASKS[kind]}
    status = "timeout" if data["kind"] in TIMEOUTS else "failed"
    return {"status": status, "error": data["message"], "error_code": data["kind"]}


@dataclass(frozen=True, slots=True)
class Told:
    """What an agent elsewhere says of a turn; `ending` is how the turn ended, if that is what it says."""

    turn_id: str
    step_id: str
    text: str
    ending: Ending
    fields: Mapping[str, Any]


def read(family: str, body: Mapping[str, Any]) -> Told:
    """Return what a `step`, `task` or `state` says; its fields lie in the body itself or in its payload.

    Raises:
        ProtocolViolation: a required field is missing or makes no sense, or the turn is one of OpenVibe's own, which
            tells itself where it stands.
    """
    found = fields(f"evt.agent.{family}", body)
    turn, status = str(found["agent_turn_id"]), str(found.get("status", ""))
    if family != "step" and turn.startswith(OURS):
        raise ProtocolViolation(f"agent_turn_id: {turn!r} is a turn of OpenVibe's own, which tells itself how it goes")
    if family == "task" and status not in TASK_ENDINGS:
        raise ProtocolViolation(f"status: {status!r} is not how a task ends: {', '.join(TASK_ENDINGS)}")
    match family:
        case "step":
            text = f"{found['step_id']}: {found['phase']}"
        case "task":
            text = f"{turn}: {status}" + (f", {found['error']}" if found.get("error") else "")
        case _:
            text = f"{turn}: {status}"
    said = {name: value for name, value in found.items() if name not in ENVELOPE}
    ending = TASK_ENDINGS[status] if family == "task" else ""
    return Told(turn, str(found.get("step_id") or ""), text, ending, said)


def fields(family: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a message, whether they lie in the body itself or in its payload.

    Raises:
        ProtocolViolation: a field that its family requires is missing, or no number where one is needed.
    """
    payload = body.get("payload")
    found = {**body, **payload} if isinstance(payload, dict) else dict(body)
    for name in REQUIRED[family]:
        if found.get(name) in (None, ""):
            raise ProtocolViolation(f"{name}: {family} needs it")
    epoch = found.get("turn_epoch", 0)
    if type(epoch) is not int or epoch < 0:
        raise ProtocolViolation(f"turn_epoch: {epoch!r} is no natural number")
    return found
