"""One execution of a node as a page shows it: from its start to its end, with everything that happened in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from agents_ui import questions
from agents_ui.entries import Entry
from openvibe.events import ATTEMPT_FAILED, GATE_OPENED, LOG, STEP_FAILED, STEP_FINISHED, STEP_STARTED

#: Whose answers a step may wait for; the clock's is told beside the step, which has ended by then.
ASKING = ("gate", "work", "tool", "reply", "change")
EFFECTS = ("attempted", "confirmed", "failed", "unknown", "skipped")
STEP_KINDS = frozenset(
    {
        *(STEP_STARTED, ATTEMPT_FAILED, STEP_FINISHED, STEP_FAILED, LOG),
        *(GATE_OPENED, "gate.escalated", "gate.overridden", "gate.decided", "gate.expired"),
        *(f"{asked}.{told}" for asked in ASKING[1:] for told in ("requested", "answered", "expired")),
        "reply.cancelled",
        *(f"effect.{told}" for told in EFFECTS),
    }
)
#: How the node of an agent's calls is called after the agent's (see `openvibe.graph.agents`).
TOOLS = ".tools"

StepStatus = Literal["running", "waiting", "completed", "failed", "stopped"]


@dataclass
class Part:
    """Facts of a step that belong together: a question and its answer, an effect and its tries, or one fact alone."""

    entries: list[Entry]

    @property
    def first(self) -> Entry:
        """What began it."""
        return self.entries[0]

    @property
    def last(self) -> Entry:
        """What is known last."""
        return self.entries[-1]

    @property
    def family(self) -> str:
        """What kind of thing it is: the first word of its events' kinds."""
        return self.first.kind.partition(".")[0]

    @property
    def closed(self) -> Entry | None:
        """The answer to a question, if there is one."""
        answers = ("decided", "answered", "expired", "overridden", "cancelled")
        return next((entry for entry in reversed(self.entries) if entry.kind.endswith(answers)), None)

    @property
    def asks(self) -> bool:
        """Whether it is a question."""
        return self.family in ASKING

    @property
    def asked(self) -> Any:
        """What a tool, an agent or another operator was given."""
        payload = self.first.data.get("payload")
        given = [
            payload[name] for name in ("arguments", "task", "payload") if isinstance(payload, dict) and name in payload
        ]
        return given[0] if given else payload

    @property
    def escalated(self) -> Entry | None:
        """The fact that somebody else was asked, if that happened."""
        return next((entry for entry in self.entries if entry.kind == "gate.escalated"), None)

    @property
    def changes(self) -> Any:
        """What a person answered or changed at the gate."""
        return self.closed.data.get("values") if self.closed else None

    @property
    def edited(self) -> list[str]:
        """The state fields that a person changed at the gate; an answer to a foreign graph's question is no field."""
        answered = self.closed is not None and self.closed.data.get("decision") in questions.TAKING.values()
        return [] if answered else list(self.changes or ())

    @property
    def frame(self) -> str:
        """The template that draws it."""
        if self.family in ("gate", "attempt"):
            return "timeline/gate.html" if self.asks else "timeline/attempt_failed.html"
        return "timeline/ask.html" if self.asks else "timeline/note.html"

    @property
    def details(self) -> Any:
        """What came with it and is too much for a sentence."""
        return next((entry.details for entry in reversed(self.entries) if entry.details), None)


@dataclass
class Step:
    """One execution of a node, from its start to its end, with what happened in between."""

    id: str
    entries: list[Entry] = field(default_factory=list)
    interrupted: bool = False

    def _last(self, *kinds: str) -> Entry | None:
        return next((entry for entry in reversed(self.entries) if entry.kind in kinds), None)

    @property
    def node(self) -> str:
        """The node's id."""
        return self.entries[0].node

    @property
    def begun(self) -> bool:
        """Whether its first event is here too."""
        return self.entries[0].kind == STEP_STARTED

    @property
    def at(self) -> datetime:
        """When it began."""
        return self.entries[0].at

    @property
    def seq(self) -> int:
        """The number of its newest event."""
        return self.entries[-1].seq

    @property
    def end(self) -> Entry | None:
        """The event that ended it, if one has."""
        return self._last(STEP_FINISHED, STEP_FAILED)

    @property
    def parts(self) -> list[Part]:
        """What happened between its start and its end."""
        parts: list[Part] = []
        latest: dict[str, Part] = {}
        for entry in self.entries:
            if entry.kind in (STEP_STARTED, STEP_FINISHED, STEP_FAILED):
                continue
            part = latest.get(_thread(entry))
            # What follows a doubt is told after the question that it led to.
            if part is None or part.last.kind == "effect.unknown":
                parts.append(part := Part([]))
                latest[_thread(entry)] = part
            part.entries.append(entry)
        return parts

    @property
    def asked(self) -> bool:
        """Whether it had to wait for an answer."""
        return any(part.asks for part in self.parts)

    @property
    def name(self) -> str:
        """The node's id; for an agent's call, the agent's."""
        return self.node.removesuffix(TOOLS)

    @property
    def calling(self) -> bool:
        """Whether it is one call that an agent makes."""
        return self.node.endswith(TOOLS)

    @property
    def tool(self) -> str:
        """The tool that it calls, or several, as far as they are known."""
        told = self.made or [part.first.data.get("payload") or {} for part in self.parts if part.family == "tool"]
        return ", ".join(dict.fromkeys(str(data["tool"]) for data in told if "tool" in data))

    @property
    def made(self) -> list[Mapping[str, Any]]:
        """The calls that it made, with their results, once it has ended."""
        if self.end is None:
            return []
        return self.end.data.get("made") or [self.end.data]

    @property
    def status(self) -> StepStatus:
        """Where it stands, as far as the events tell."""
        if self.end:
            return "completed" if self.end.kind == STEP_FINISHED else "failed"
        # What was asked here is asked anew by a step that begins again.
        if self.interrupted or self._last("gate.overridden"):
            return "stopped"
        return "waiting" if any(part.asks and not part.closed for part in self.parts) else "running"

    @property
    def update(self) -> Any:
        """What the step wrote, without what its gate's answer tells already."""
        update = self.end.data.get("update") if self.end else None
        if not isinstance(update, Mapping):
            return update
        told = {name for part in self.parts if part.family == "gate" for name in (self.node, *part.edited)}
        return {name: value for name, value in update.items() if name not in told}

    @property
    def rejected(self) -> bool:
        """Whether a person's no ended it."""
        told = [part.closed.data for part in self.parts if part.closed]
        return any((data.get("group") or data).get("decision") == "reject" for data in told)

    @property
    def calls(self) -> list[Mapping[str, Any]]:
        """The tools that the model asked for in this step."""
        return self.end.data.get("calls") or [] if self.end else []

    @property
    def usage(self) -> Mapping[str, Any]:
        """What its model calls used."""
        return self.end.data.get("usage") or {} if self.end else {}

    @property
    def duration(self) -> float | None:
        """Seconds; a step that waited has none, for its time is somebody else's."""
        if self.end is None or self.asked:
            return None
        seconds: float | None = self.end.data.get("duration_seconds")
        return seconds


def _thread(entry: Entry) -> str:
    """Name what a fact of a step belongs to."""
    family = entry.kind.partition(".")[0]
    if family in ASKING:
        return f"wait {entry.data.get('wait_id')}"
    return f"effect {entry.data.get('key')}" if family == "effect" else f"event {entry.seq}"
