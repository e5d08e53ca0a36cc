"""Tools of our own in the dialect `cg`: what an agent may ask of OpenVibe itself, and with which arguments.

They are called on `cg.{ver}.{project}.{channel}.cmd.sys.pmo.internal.{tool}` like any tool, with their
arguments in a card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from openvibe.protocol.subjects import VERSION, Subject, thread

PATTERN = f"cg.{VERSION}.*.*.cmd.sys.pmo.internal.*"
#: How many tasks one `fork_join` may have, and how long they may take unless it says, in seconds.
MOST_TASKS = 8
DEADLINE_SECONDS = 900.0

Text = Field(min_length=1)


class Arguments(BaseModel):
    """What a tool of ours takes. Unknown names are refused, because a model that misspells one should hear of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Delegate(Arguments):
    """Start a run and go on: `target_ref` is an operator, `operator.workflow` or, for a clone, a run."""

    target_strategy: Literal["new", "reuse", "clone"] = "new"
    target_ref: str = Text
    instruction: str = Text
    context_box_id: str = ""


class Launch(Arguments):
    """Start a run and go on."""

    profile_name: str = Text
    instruction: str = Text


class Ask(Arguments):
    """Start a run and wait for what it answers."""

    expert_profile: str = Text
    question: str = Text
    include_history: Literal[False] = False


class Fork(Arguments):
    """Start several runs and wait for all of them, or until one has failed, or for so long."""

    tasks: list[Delegate] = Field(min_length=1, max_length=MOST_TASKS)
    fail_fast: bool = False
    deadline_seconds: float = Field(default=DEADLINE_SECONDS, gt=0, le=366 * 86400)


TOOLS: Mapping[str, type[Arguments]] = {
    "delegate_async": Delegate,
    "launch": Launch,
    "launch_principal": Launch,
    "ask_expert": Ask,
    "fork_join": Fork,
}


def subject(project: str, run_id: str, tool: str) -> str:
    """Return where a run calls a tool of ours."""
    return str(Subject(project, thread(run_id), "cmd", "sys", "pmo", f"internal.{tool}"))


def tasks(arguments: Arguments) -> list[Delegate]:
    """Return the runs that a call wants."""
    match arguments:
        case Fork():
            return arguments.tasks
        case Ask():
            return [Delegate(target_ref=arguments.expert_profile, instruction=arguments.question)]
        case Launch():
            return [Delegate(target_ref=arguments.profile_name, instruction=arguments.instruction)]
        case Delegate():
            return [arguments]
    raise TypeError(f"{arguments!r} is no call of ours")


def awaited(arguments: Arguments) -> bool:
    """Tell whether whoever calls waits for the ends of the runs, not only for their beginnings."""
    return isinstance(arguments, Ask | Fork)


def summary(output: Any, most: int = 2000) -> str:
    """Return a run's output as a short text: its only text, or all of it."""
    texts = [value for value in output.values() if value] if isinstance(output, dict) else [output]
    told = str(texts[0]) if len(texts) == 1 else str(output)
    return told if len(told) <= most else f"{told[: most - 1]}…"
