"""What starts a workflow, and what has started a run, in words."""

from __future__ import annotations

from agents_ui import crons

#: What a list of runs can be narrowed to, and how.
KINDS = {
    "on_demand": "By hand",
    "api": "API",
    "cron": "Schedule",
    "webhook": "Webhook",
    "event": "Event",
    "request": "Request",
    "fork": "Fork",
}


def starts(trigger: str) -> str:
    """Say what starts a workflow."""
    kind, _, source = trigger.partition(":")
    match kind:
        case "on_demand":
            return "Started by hand"
        case "cron":
            return crons.words(source) or f"On the schedule {source}"
        case "webhook":
            return f"Started by the webhook {source}"
        case "event":
            return f"Started by {event(source)}"
        case "request":
            return f"Answers requests for “{_plain(source)}”"
        case _:
            return trigger


def started(trigger: str) -> str:
    """Say what has started a run."""
    kind, _, source = trigger.partition(":")
    match kind:
        case "on_demand":
            return "by hand"
        case "api":
            return "over the API"
        case "cron":
            return "by its schedule"
        case "webhook":
            return f"by the webhook {source}" if source else "by a webhook"
        case "event":
            return f"by {event(source)}"
        case "fork":
            return "as a fork"
        case "request":
            return f"by a request for “{_plain(source)}”"
        case _:
            return f"by {trigger}"


def event(pattern: str) -> str:
    """Name an event, or the events that a pattern means."""
    operator, _, kind = pattern.partition(".")
    if pattern == "*" or (operator, kind) == ("*", "*"):
        return "any event"
    if kind == "*":
        return f"any event of {operator}"
    return f"the event {kind} of any operator" if operator == "*" else f"the event {pattern}"


def _plain(name: str) -> str:
    return name.replace("_", " ")
