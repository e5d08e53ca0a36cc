"""The commands of the dialect `cg`: what other programs may put into the inbox of an agent, an operator of ours.

They come on `cg.{ver}.{project}.{channel}.cmd.agent.{agent}.{kind}`, their fields flat in the body or inside an
envelope's `payload`. What is said at length lies in cards; a command only points at them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openvibe.protocol.envelope import ProtocolViolation
from openvibe.protocol.subjects import VERSION

Name = Field(min_length=1, max_length=200)
After = Literal["suspend", "terminate"]
#: The key of a tool's result whose `after_execution` counts more than the message's.
CONTROL = "__cg_control"

#: Longer names are hashed.
LONGEST_NAME = 120
#: What must lie in a card instead.
INLINE = ("result", "args", "arguments")


class Command(BaseModel):
    """What every command says: to whom it goes. Unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    agent_id: str = Name


class Wakeup(Command):
    """A bell: it wakes a run, or starts one that needs no input."""

    inbox_id: str = ""
    reason: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


class Turn(Command):
    """A task: it starts a run. `context_box_id` points at what the task is, `profile_box_id` names the workflow."""

    agent_turn_id: str = Field(default="", max_length=200)
    enqueue_mode: Literal["call"] = "call"
    profile_box_id: str = ""
    context_box_id: str = ""
    parent_agent_turn_id: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


class Stop(Command):
    """The end of a run, wished by somebody elsewhere."""

    agent_turn_id: str = Name
    turn_epoch: int = Field(ge=0)
    reason: str = ""


class Timeout(Command):
    """Whoever waited for a tool in its name does so no longer."""

    tool_call_id: str = Name
    agent_turn_id: str = Name
    turn_epoch: int = Field(ge=0)


class ToolResult(Timeout):
    """What a tool has brought about: a pointer at the card that tells it."""

    after_execution: After
    status: Literal["success", "failed", "canceled", "timeout", "partial"]
    tool_result_card_id: str = Name


class InternalCall(Timeout):
    """A call of a tool of our own, whose arguments lie in a card."""

    tool_name: str = Name
    tool_call_card_id: str = Name
    after_execution: After = "suspend"


#: A call of a tool of our own; all others go to an agent.
INTERNAL = "internal"
KINDS: Mapping[str, type[Command]] = {
    "wakeup": Wakeup,
    "turn": Turn,
    "tool_result": ToolResult,
    "timeout": Timeout,
    "stop": Stop,
    INTERNAL: InternalCall,
}
#: Those that are about a run that there is.
ABOUT_RUNS = frozenset({"tool_result", "timeout", "stop"})
#: Where turns are asked for.
TURNS = f"cg.{VERSION}.*.*.cmd.agent.*.turn"
#: Where each of them comes in.
PATTERNS: tuple[str, ...] = tuple(f"cg.{VERSION}.*.*.cmd.agent.*.{kind}" for kind in KINDS if kind != INTERNAL)


class Received(BaseModel):
    """A command as it came: what it says, and what its subject and its headers say beside it."""

    model_config = ConfigDict(frozen=True)

    kind: str
    id: str
    channel: str
    sender: str
    traceparent: str = ""
    passed_on: dict[str, str] = Field(default_factory=dict)
    depth: int = 0
    answer_to: str = ""
    fields: dict[str, Any]

    @property
    def command(self) -> Command:
        """The command, typed by its kind."""
        return KINDS[self.kind].model_validate(self.fields)


def read(
    kind: str, body: Mapping[str, Any], *, target: str | None, more: Mapping[str, Any] = MappingProxyType({})
) -> Command:
    """Return the command of this kind that a body holds, flat or in its `payload`; `more` fields the subject tells.

    Raises:
        ProtocolViolation: a field is missing or wrong, it is for another agent than the subject's, or carries inline
            what must lie in a card; the text names the field.
    """
    fields = {**_fields(body), **more}
    # Whoever fills a payload can still say it beside that.
    if inline := [name for name in INLINE if name in fields or name in body]:
        raise ProtocolViolation(f"{inline[0]}: it belongs into a card, at which the message points")
    try:
        found = KINDS[kind].model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        raise ProtocolViolation(f"{'.'.join(map(str, item['loc']))}: {item['msg']}") from error
    if target is not None and found.agent_id != target:
        raise ProtocolViolation(f"agent_id: {found.agent_id!r} is not the agent of the subject, {target!r}")
    return found


def name(command: Command, id: str) -> str:
    """Return what makes a command one and the same, however often and under whatever message ids it comes.

    A tool's result is told apart by all that it says, a stop by the epoch that it is about, all else by the message.
    """
    match command:
        case InternalCall():
            told = f"{command.agent_turn_id} {command.tool_call_id} {command.turn_epoch}"
        case Timeout():
            told = command.model_dump_json()
        case Stop():
            told = f"{command.agent_turn_id} {command.turn_epoch}"
        case Turn() if command.agent_turn_id:
            return _short(command.agent_turn_id)
        case _:
            return _short(id)
    return hashlib.sha256(told.encode()).hexdigest()


def turn_name(body: Mapping[str, Any], id: str) -> str:
    """Return the same of a turn that may be wrong in every respect."""
    told = _fields(body).get("agent_turn_id")
    return _short(told if isinstance(told, str) and told else id)


def _fields(body: Mapping[str, Any]) -> Mapping[str, Any]:
    payload = body.get("payload")
    return payload if isinstance(payload, dict) else body


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else hashlib.sha256(text.encode()).hexdigest()
