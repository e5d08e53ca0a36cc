"""What graphs that were brought as they are, and doubtful effects, ask of people: each form's words and shapes.

The forms are those of `openvibe.interrupts` and of the engine's question about an effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from operators.models import Wait

#: Forms whose answer a person writes: their editors are open from the beginning.
WRITTEN = ("value", "effect", "budget")
#: The decision that takes the editors' values along, by form.
TAKING = {
    "value": "answer",
    "effect": "it_happened",
    "budget": "raise",
    "agent_inbox": "edit",
    "middleware": "edit",
    "tool_approval": "edit",
}
#: Decisions that say something: the note is what they say.
SPEAKING = ("response", "respond")
LABELS = {
    "answer": "Your answer",
    "result": "What came of it, as JSON",
    "allowance_usd": "This run may cost in all (US dollars)",
    "args": "Arguments, as JSON",
    "actions": "Actions, as JSON",
    "action": "Action, as JSON",
}


@dataclass(frozen=True)
class Choice:
    """One decision's button. `edited` is its label while changes are being made; `bare` sends no changes along."""

    name: str
    label: str
    look: str = ""
    symbol: str = ""
    edited: str = ""
    bare: bool = False


CHOICES = {
    "approve": Choice("approve", "Approve", "primary", "completed", edited="Approve with changes"),
    "reject": Choice("reject", "Reject", "danger as-is", "failed", bare=True),
}
#: The same, where a form has its own words.
FORM_CHOICES = {
    "approve": Choice("approve", "Approve", "primary as-is", "completed", bare=True),
    "accept": Choice("accept", "Accept", "primary as-is", "completed", bare=True),
    "answer": Choice("answer", "Answer", "primary", "completed"),
    "edit": Choice("edit", "Send as edited", "primary changed", "completed"),
    "response": Choice("response", "Respond", "as-is", "message", bare=True),
    "respond": Choice("respond", "Respond", "as-is", "message", bare=True),
    "ignore": Choice("ignore", "Ignore", "as-is", bare=True),
    "reject": Choice("reject", "Reject", "danger as-is", "failed", bare=True),
    "raise": Choice("raise", "Raise the budget", "primary", "completed"),
    "stop": Choice("stop", "Stop the run", "danger as-is", "failed", bare=True),
    "it_happened": Choice("it_happened", "It happened", "primary", "completed"),
    "it_did_not_happen": Choice("it_did_not_happen", "It did not", "", "failed", bare=True),
}
_ORDER = ("approve", "accept", "answer", "it_happened", "raise", "edit")


def choices(wait: Wait) -> list[Choice]:
    """Return a gate's buttons: the yes first, the no last."""
    known = FORM_CHOICES if wait.form else CHOICES
    names = sorted(wait.decisions, key=lambda name: (name == "reject", name not in _ORDER))
    return [known.get(name) or Choice(name, _plain(name)) for name in names]


def heading(wait: Wait) -> tuple[str, str]:
    """Return the question, and what explains it."""
    if wait.form not in ("effect", "budget"):
        return wait.prompt, ""
    question, mark, why = wait.prompt.partition("? ")
    return question + mark.strip(), why


def shown(wait: Wait) -> Any:
    """Return what a person needs to see, without what the question says already."""
    payload = wait.payload
    match wait.form:
        case "value":
            return {name: value for name, value in payload.items() if value != wait.prompt}
        case "agent_inbox":
            return _call(payload.get("action_request"), "action")
        case "middleware":
            return [_call(item, "name") for item in payload.get("action_requests") or ()]
        case "tool_approval":
            return _call(payload, "name")
        case "effect" | "budget":
            return None
        case _:
            return payload


def prefilled(wait: Wait, name: str) -> Any:
    """Return what an editor holds at first."""
    payload = wait.payload
    match wait.form:
        case "":
            return payload.get(name)
        case "agent_inbox":
            return _mapping(payload.get("action_request")).get("args")
        case "middleware":
            return [_action(item) for item in payload.get("action_requests") or ()]
        case "tool_approval":
            return _action(payload)
        case "budget":
            return payload.get(name)
        case _:
            return None


def _call(asked: Any, named: str) -> dict[str, Any]:
    told = _mapping(asked)
    return {name: told[name] for name in (named, "args", "description") if told.get(name)}


def _action(asked: Any) -> dict[str, Any]:
    told = _mapping(asked)
    return {"name": told.get("name"), "args": told.get("args") or {}}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(name: str) -> str:
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]
