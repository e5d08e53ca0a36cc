"""What a run's timeline says in the terminal: one line for each event, chosen by the event's kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rich.text import Text

from openvibe import controls

#: An event as REST tells it.
Event = dict[str, Any]

LONGEST = 200


def line(event: Event) -> Text:
    """Return the event's mark and sentence."""
    mark, style, sentence = _KINDS.get(event["type"], ("·", "dim", _plainly))
    # A node's and a model's words are shown as they are: nothing in them is markup, or moves the terminal.
    return Text.assemble((f"{mark} ", style), controls.entry(sentence(event)))


def shown(value: Any) -> str:
    """Return a value as one line that is not too long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _plainly(event: Event) -> str:
    return " ".join(filter(None, [event["type"], event["node"], shown(event["data"]) if event["data"] else ""]))


def _node(event: Event) -> str:
    return str(event["node"])


def _finished(event: Event) -> str:
    data = event["data"]
    usage = data.get("usage") or {}
    tokens = f", {usage['tokens_in']} + {usage['tokens_out']} tokens" if "tokens_in" in usage else ""
    simulated = ", simulated" if usage.get("simulated") else ""
    fields = ", ".join(data["update"]) if isinstance(data.get("update"), dict) else ""
    took = f" ({data.get('duration_seconds', 0):.1f} s{tokens}{simulated})"
    return f"{event['node']}{f' → {fields}' if fields else ''}{took}"


def _failed(event: Event) -> str:
    data = event["data"]
    return f"{event['node'] or data.get('node') or 'the run'} failed: {data.get('message') or data.get('error')}"


def _attempt(event: Event) -> str:
    data = event["data"]
    return f"{event['node']}: attempt {data.get('attempt')} of {data.get('attempts')} failed: {data.get('error')}"


def _opened(event: Event) -> str:
    data = event["data"]
    payload = f"\n             {shown(data['payload'])}" if data.get("payload") else ""
    return f"{event['node']} waits for a decision ({', '.join(data['decisions'])}): {data['prompt']}{payload}"


def _decided(event: Event) -> str:
    data = event["data"]
    notes = f": {data['notes']}" if data.get("notes") else ""
    return f"{event['node']}: {data['decision']} by {data.get('by') or event['actor'] or 'the clock'}{notes}"


def _logged(event: Event) -> str:
    data = dict(event["data"])
    message = str(data.pop("message", ""))
    return f"{event['node']}: {message}{f' {shown(data)}' if data else ''}"


def _cancelled(event: Event) -> str:
    reason = event["data"].get("reason")
    return f"cancelled by {event['actor']}{f': {reason}' if reason else ''}"


def _set(event: Event) -> str:
    deadline = event["data"].get("deadline")
    return f"{event['node']} sleeps{f' until {deadline}' if deadline else ''}"


def _fired(event: Event) -> str:
    return f"{event['node']}: time is up"


def _escalated(event: Event) -> str:
    return f"{event['node']}: now {event['data'].get('to')} is asked"


def _overridden(event: Event) -> str:
    data = event["data"]
    fields = ", ".join(data.get("fields") or ["its state"])
    return f"{event['node']}: {event['actor']} changed {fields}, and it is asked anew: {data.get('reason')}"


def _emitted(event: Event) -> str:
    return f"{event['data'].get('name')} {shown(event['data'].get('payload', {}))}"


def _refused(event: Event) -> str:
    data = event["data"]
    return f"{data.get('name')} started no {data.get('workflow')}: {data.get('reason')}"


def _said(words: str) -> Callable[[Event], str]:
    return lambda _: words


_KINDS: dict[str, tuple[str, str, Callable[[Event], str]]] = {
    "run.queued": ("○", "dim", _said("queued")),
    "run.started": ("●", "bold", _said("started")),
    "run.resumed": ("●", "bold", _said("goes on")),
    "run.completed": ("✔", "bold green", _said("completed")),
    "run.failed": ("✘", "bold red", _failed),
    "run.cancelled": ("✘", "bold yellow", _cancelled),
    "run.retried": ("○", "bold", _said("tries again")),
    "run.handed_back": ("○", "yellow", _said("handed back by a worker that ended")),
    "run.lost": ("○", "yellow", _said("its worker is gone; another one takes it")),
    "step.started": ("▸", "cyan", _node),
    "step.finished": ("✓", "green", _finished),
    "step.failed": ("✗", "red", _failed),
    "attempt.failed": ("!", "yellow", _attempt),
    "gate.opened": ("?", "bold magenta", _opened),
    "gate.decided": ("✓", "magenta", _decided),
    "gate.expired": ("✓", "magenta", _decided),
    "gate.escalated": ("!", "magenta", _escalated),
    "gate.overridden": ("!", "magenta", _overridden),
    "timer.set": ("◷", "cyan", _set),
    "timer.fired": ("◷", "cyan", _fired),
    "event.emitted": ("→", "blue", _emitted),
    "event.refused": ("!", "yellow", _refused),
    "log": ("·", "dim", _logged),
}
