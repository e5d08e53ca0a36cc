"""Folds a channel's events into what a page shows: one item for each step, one for each other fact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agents_ui.entries import Entry
from agents_ui.steps import STEP_KINDS, Step
from openvibe.protocol import workflow

#: After these nobody plays the run's open steps any more; `run.resumed` takes them up again.
INTERRUPTING = frozenset({"run.lost", "run.handed_back", "run.failed", "run.cancelled", "run.completed"})
#: Kinds with a sentence of their own in `templates/timeline/`.
TOLD = frozenset(
    {
        "run.queued",
        "run.started",
        "run.resumed",
        "run.lost",
        "run.handed_back",
        "run.completed",
        "run.failed",
        "run.cancelled",
        "run.retried",
        "run.forked",
        "answer.refused",
        "stop.refused",
        "subscription.disabled",
        "stream.paused",
        "stream.resumed",
        "timer.set",
        "timer.fired",
        "event.emitted",
        "event.refused",
        "error",
        *(kind for kind in STEP_KINDS if not kind.startswith(("step.", "attempt."))),
    }
)


@dataclass
class Moment:
    """A fact that stands by itself."""

    entry: Entry

    @property
    def entries(self) -> Sequence[Entry]:
        """Its one event, in the form in which a step has several."""
        return (self.entry,)

    @property
    def from_agent(self) -> bool:
        """Whether somebody outside said it."""
        return self.entry.from_agent

    @property
    def told(self) -> str:
        """What kind of thing the agent said."""
        return self.entry.kind.removeprefix("agent.")

    @property
    def payload(self) -> Any:
        """What came with the agent's words."""
        attrs = self.entry.data.get("attrs") or {}
        return self.entry.data.get("payload") or {name: attrs[name] for name in attrs if name != workflow.SUBJECT}

    @property
    def sentence(self) -> str:
        """The template that says it."""
        name = self.entry.kind.replace(".", "_") if self.entry.kind in TOLD else "_default"
        return f"timeline/{name}.html"

    @property
    def details(self) -> Any:
        """What came with the fact and is too much for a sentence."""
        return self.entry.details


Item = Step | Moment


def fold(entries: Iterable[Entry]) -> list[Item]:
    """Put the events of a step into one item, which stands where the step began."""
    items: list[Item] = []
    steps: dict[str, Step] = {}
    for entry in entries:
        if entry.step_id and entry.kind in STEP_KINDS:
            if entry.step_id not in steps:
                items.append(steps.setdefault(entry.step_id, Step(entry.step_id)))
            steps[entry.step_id].entries.append(entry)
            continue
        items.append(Moment(entry))
        if entry.kind in INTERRUPTING or entry.kind == "run.resumed":
            for step in steps.values():
                step.interrupted = entry.kind != "run.resumed"
    return items


def unfolded(entries: Iterable[Entry]) -> list[Item]:
    """Let every fact stand by itself, as on the general channel."""
    return [Moment(entry) for entry in entries]
