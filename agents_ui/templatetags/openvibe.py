"""Filters and tags of our templates; they are built in, no template loads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from agents_ui import kinship, questions, triggers
from agents_ui import markdown as md
from openvibe.errors import GateRejected
from operators import definitions
from operators.models import Run, Workflow
from operators.services import endings, serving

register = template.Library()

#: A text longer than this, or of several lines, is prose; one longer than FOLD shows its beginning only.
LINE = 90
FOLD = 700
_DEPTH = 4
#: How many of the runs that it started the head of a run names.
MOST_CHILDREN = 8
_PAST = {
    "approve": "approved",
    "reject": "rejected",
    "accept": "accepted",
    "answer": "answered",
    "edit": "edited what was asked",
    "response": "responded",
    "respond": "responded",
    "ignore": "ignored what was asked",
    "raise": "raised the budget",
    "stop": "refused more money",
    "it_happened": "said that it happened",
    "it_did_not_happen": "said that it did not happen",
}


@register.filter
def markdown(text: Any) -> SafeString:
    """Render a text as markdown."""
    return md.html(str(text or ""))


@register.filter
def humanised(name: Any) -> str:
    """Turn `review_sequence` into `Review sequence`."""
    text = str(name).replace("_", " ").strip()
    return text[:1].upper() + text[1:]


@register.filter
def duration(seconds: float | None) -> str:
    """Tell a length of time in at most two units."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


@register.filter
def lasted(run: Run) -> str:
    """Tell how long a run has taken so far; one that nobody has begun has taken no time."""
    if run.started_at is None:
        return "–"
    return duration(run.duration_seconds(timezone.now()))


@register.filter
def money(amount: Any) -> str:
    """Tell US dollars; what has no known price is unknown, not free."""
    if amount is None or amount == "":
        return "unknown"
    value = Decimal(str(amount))
    if value == 0:
        return "$0"
    return f"${value:.2f}" if value >= 1 else f"${value:.4f}" if value >= Decimal("0.0001") else "< $0.0001"


@register.filter
def thousands(number: Any) -> str:
    """Group digits by thin spaces."""
    return f"{int(number or 0):,}".replace(",", "\u202f")


@register.filter
def pairs(mapping: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return names and values; templates would take a key called `items` for the method."""
    return list(mapping.items())


@register.filter
def kind_of(value: Any, depth: int = 0) -> str:
    """Name the template in `values/` that shows a JSON value best."""
    if value is None or value in ("", [], {}):
        return "empty"
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, str):
        return _kind_of_text(value)
    if not isinstance(value, (dict, list)):
        return "text"
    kind = _kind_of_list(value) if isinstance(value, list) else _kind_of_mapping(value)
    # What holds nothing deeper needs no room to the right.
    return kind if depth < _DEPTH or kind in ("list", "card") else "json"


def _kind_of_mapping(value: dict[str, Any]) -> str:
    return "card" if value.keys() == {"card", "size"} else "mapping"


def _kind_of_text(text: str) -> str:
    if len(text) > FOLD:
        return "fold"
    return "prose" if len(text) > LINE or "\n" in text else "text"


def _kind_of_list(items: list[Any]) -> str:
    if not all(isinstance(item, dict) for item in items):
        return "json" if any(isinstance(item, (dict, list)) for item in items) else "list"
    return "touches" if all({"channel", "subject", "body"} <= item.keys() for item in items) else "records"


@register.filter
def deeper(depth: Any) -> int:
    """Count one level down."""
    return int(depth or 0) + 1


@register.filter
def pretty(value: Any) -> str:
    """Write a value as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


@register.filter
def plain(value: Any) -> str:
    """Write a value as one line: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


@register.filter
def parsed(text: Any) -> Any:
    """Return what a tool's text means, if it is a JSON object or list; else the text."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return text
    return value if isinstance(value, (dict, list)) else text


@register.filter
def days(touches: Iterable[Mapping[str, Any]]) -> list[tuple[int | None, Mapping[str, Any]]]:
    """Return each touch of a sequence with the day it falls on, counted from the first."""
    day: int | None = 0
    placed: list[tuple[int | None, Mapping[str, Any]]] = []
    for touch in touches:
        wait = touch.get("wait_days", 0)
        day = day + wait if isinstance(day, int) and isinstance(wait, int) else None
        placed.append((day, touch))
    return placed


@register.filter
def trigger_words(trigger: str) -> str:
    """Say in words what starts a workflow."""
    return triggers.starts(trigger)


@register.filter
def started_words(trigger: str) -> str:
    """Say in words what has started a run."""
    return triggers.started(trigger)


@register.filter
def starter(run: Run) -> str:
    """Say what or who has started a run."""
    by_hand = run.trigger == "on_demand"
    if by_hand and run.started_by:
        return f"by {run.started_by.get_username()}"
    # A run keeps the kind of its trigger only, where its workflow's definition has the rest.
    full = run.workflow.trigger.startswith(f"{run.trigger}:") and run.trigger == "webhook"
    said = triggers.started(run.workflow.trigger if full else run.trigger)
    return f"{said}, as {run.started_by.get_username()}" if run.started_by else said


@register.filter
def rejected(run: Run) -> bool:
    """Tell whether a person's no has ended a run; one whose gate nobody answered in time may ask again."""
    return (run.error or {}).get("kind") == GateRejected.__name__ and not endings.by_silence(run.id)


@register.filter
def served(workflow: Workflow) -> bool:
    """Tell whether this server or, sharing its database, another one knows the code of a workflow."""
    if serving.holds(workflow.operator):
        return definitions.registry.workflow(workflow.operator.slug, workflow.slug) is not None
    return serving.served(workflow.operator)


@register.filter
def past(decision: str) -> str:
    """Turn a decision into what was done: approve, approved."""
    return _PAST.get(decision, f"decided “{humanised(decision)}”")


@register.filter
def changed(decision: str) -> str:
    """Say that values came with a decision, unless the decision itself says so."""
    return "" if decision in questions.TAKING.values() else " with changes"


@register.filter
def words(text: str) -> list[str]:
    """Split a text at its spaces, so that a template can loop over names."""
    return text.split()


@register.filter
def sentence(kind: str) -> str:
    """Name the template that says an event of this kind."""
    return f"timeline/{kind.replace('.', '_')}.html"


@register.filter
def stem(path: str) -> str:
    """Return a template's name without folder and ending, for a class."""
    return path.rsplit("/", 1)[-1].removesuffix(".html").strip("_")


@register.filter
def slug(kind: str) -> str:
    """Turn an event's kind into a class."""
    return kind.replace(".", "-")


@register.filter
def at(mapping: Mapping[Any, Any] | None, name: Any) -> Any:
    """Look a name up that a template holds in a variable."""
    return (mapping or {}).get(name)


@register.filter
def firstborn(children: kinship.Children) -> list[Run]:
    """Return the runs that a run has started, the first ones, whatever started them."""
    return sorted((run for runs in children.values() for run in runs), key=lambda run: run.created_at)[:MOST_CHILDREN]


@register.filter
def fresh(at: datetime | None) -> bool:
    """Tell whether something happened just now, so that more may follow from it."""
    return kinship.fresh(at)


@register.filter
def instant(text: Any) -> datetime | None:
    """Read a time out of an event."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


@register.filter
def article(noun: Any) -> str:
    """Return `a` or `an`."""
    return "an" if str(noun or "external")[:1].lower() in "aeiou" else "a"


@register.filter
def channel_icon(channel: Any) -> str:
    """Name the symbol of a way to reach somebody."""
    return channel if channel in ("email", "phone", "linkedin") else "message"


@register.filter
def wait_icon(kind: str) -> str:
    """Name the symbol of a wait."""
    return {"approval": "gate", "timer": "queued", "reply": "message", "change": "card"}.get(kind, "waiting")


@register.filter
def node_icon(kind: str) -> str:
    """Name the symbol of a node's kind."""
    return {"agent": "llm", "remote": "general", "graph": "conditional"}.get(kind, kind)


@register.filter
def channel_words(channel: Any) -> str:
    """Spell a way to reach somebody as it spells itself."""
    return "LinkedIn" if channel == "linkedin" else humanised(channel)


@register.simple_tag
def when(at: datetime | None, style: str = "relative") -> SafeString | str:
    """Write a time; a script shows it in the reader's own zone (`static/js/times.js`)."""
    if at is None:
        return "–"
    at = at.astimezone(UTC)
    text = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    drawn = f'<time datetime="{at.isoformat()}" data-time="{style}" title="{text}">{_short(at, style)}</time>'
    return mark_safe(drawn)  # noqa: S308  # a time and what a template says; timelines have hundreds of them


def _short(at: datetime, style: str) -> str:
    formats = {"clock": "%H:%M:%S", "date": "%a %d %b %Y, %H:%M UTC"}
    return at.strftime(formats.get(style, "%Y-%m-%d %H:%M"))


@register.simple_tag
def icon(name: str, label: str = "") -> SafeString:
    """Draw a symbol of `static/icons.svg`; without a label it is decoration."""
    said = format_html('role="img" aria-label="{}"', label) if label else SafeString('aria-hidden="true"')
    return format_html('<svg class="icon icon-{}" {}><use href="{}#{}"/></svg>', name, said, static("icons.svg"), name)


@register.inclusion_tag("status.html")
def status(name: str, word: str = "") -> dict[str, str]:
    """Show where something stands: shape, word and colour."""
    return {"status": name, "word": word or name}
