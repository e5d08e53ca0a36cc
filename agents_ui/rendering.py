"""Renders what watchers of a channel see: the same bytes for everybody, so nothing here may depend on who looks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from django.template.loader import render_to_string
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from agents_ui import items, kinship, said
from agents_ui.entries import Entry
from agents_ui.items import Item
from agents_ui.steps import STEP_KINDS, Step
from openvibe.events import STEP_STARTED
from openvibe.protocol import envelope, subjects
from operators.models import Event, Run, Wait
from operators.services import serving
from operators.services import timeline as threads

State = Literal["connecting", "live", "catching-up", "offline"]
STATES: Mapping[State, str] = {
    "connecting": "Connecting…",
    "live": "Live",
    "catching-up": "Catching up…",
    "offline": "Offline: reading along slowly",
}
#: What a run's head says of other rows.
SHOWN = ("operator", "workflow", "started_by", "parent__operator", "parent__workflow")
#: The most bytes of data that are drawn without a thread: markdown of more may be written so that it takes long.
BRIEF = 300
_STEP_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: How far back an interruption looks for steps that it stopped.
_REACH = 60


def timeline(events: Sequence[Event]) -> SafeString:
    """Render a channel's events for the first time. A step that began before them is read again and shown whole."""
    if not events:
        return mark_safe("")
    first = events[0]
    entries = [Entry.of(event) for event in events]
    if not subjects.is_thread(first.channel):
        return _drawn(items.unfolded(reversed(entries)), public=True)
    return _drawn(items.fold(_completed(first.project_id, first.channel, entries)))


def earlier(events: Sequence[Event]) -> SafeString:
    """Render events that come before those shown; steps that reach into the shown ones are there already."""
    if not events:
        return mark_safe("")
    first, last = events[0], events[-1]
    ids = {event.step_id for event in events if event.step_id}
    later = Event.objects.after(first.project_id, first.channel, last.seq).filter(step_id__in=ids, kind__in=STEP_KINDS)
    shown = set(later.values_list("step_id", flat=True))
    return timeline([event for event in events if event.step_id not in shown or event.kind not in STEP_KINDS])


def pushed(project_id: str, channel: str, events: Sequence[Mapping[str, Any]]) -> str:
    """Render what new events change on open pages, as fragments that htmx puts where they belong."""
    entries = [Entry.read(event) for event in events]
    if not entries:
        return ""
    if not subjects.is_thread(channel):
        rows = _drawn(items.unfolded(reversed(entries)), public=True)
        return _added(rows, "afterbegin") + _hint(entries)
    known = {entry.seq for entry in entries}
    touched = {entry.step_id for entry in entries if entry.step_id}
    folded = items.fold(_recalled(project_id, channel, entries))
    fresh = [item for item in folded if item.entries[0].seq in known]
    again = [item for item in folded if item.entries[0].seq not in known and _changed(item, touched, entries)]
    added = _added(_drawn(fresh), "beforeend") if fresh else ""
    return added + _drawn(again, oob=True) + _surroundings(entries) + _hint(entries)


def brief(channel: str, events: Sequence[Mapping[str, Any]]) -> bool:
    """Whether `pushed` draws these at once: a few words from outside, for which it asks the database nothing."""
    if len(events) != 1 or not subjects.is_thread(channel):
        return False
    entry = Entry.read(events[0])
    return entry.from_agent and len(envelope.dumps(entry.data)) <= BRIEF


def words(step_id: str, text: str) -> str:
    """Render a model's words, to be appended to those of their step. A name that is none is dropped."""
    if not text or not _STEP_ID.fullmatch(step_id):
        return ""
    return f'<div hx-swap-oob="beforeend:#words-{step_id}">{escape(text)}</div>'


def state(name: State) -> str:
    """Render the indicator of how live a page is."""
    return render_to_string("live/state.html", {"state": name, "label": STATES[name], "oob": True})


def head(run: Run) -> dict[str, Any]:
    """Return what a run's head, gate area and result show."""
    waits = list(Wait.objects.pending().filter(run=run)) if run.active else []
    return {
        "run": run,
        "unserved": run.status == Run.Status.QUEUED and not serving.served(run.operator),
        "simulated": _simulated(run),
        "gates": [wait for wait in waits if wait.kind == Wait.Kind.APPROVAL],
        "waits": [wait for wait in waits if wait.kind != Wait.Kind.APPROVAL],
        "children": kinship.children(run.id),
        "result": _result(run),
    }


def _simulated(run: Run) -> bool:
    if not run.llm_calls:
        return False
    told = Event.objects.after(run.project_id, subjects.thread(run.id), 0)
    return told.filter(kind="step.finished", data__usage__simulated=True).exists()


def _result(run: Run) -> dict[str, Any]:
    """Return the output in two parts: what the last step wrote, and everything else."""
    output = run.output or {}
    if not output:
        return {}
    finished = Event.objects.filter(project_id=run.project_id, channel=subjects.thread(run.id), kind="step.finished")
    last = finished.order_by("-seq").values_list("data", flat=True).first() or {}
    wrote = last.get("update") or {}
    main = {name: output[name] for name in wrote if name in output} or output
    return {"main": main, "rest": {name: value for name, value in output.items() if name not in main}}


def _added(rows: SafeString, where: str) -> str:
    return f'<ol hx-swap-oob="{where}:#timeline">{rows}</ol>'


def _drawn(rows: Iterable[Item], *, public: bool = False, oob: bool = False) -> SafeString:
    rows = list(rows)
    runs = _runs(rows) if public else {}
    known = {"public": public, "oob": oob, "children": {} if public else _children(rows)}
    drawn = [_row(item, runs.get(item.entries[0].run_id), known) for item in rows]
    return mark_safe("".join(drawn))  # noqa: S308  # every part is rendered


def _row(item: Item, run: Run | None, known: Mapping[str, Any]) -> str:
    if isinstance(item, Step):
        return render_to_string("timeline/step.html", {"item": item, "run": run, **known})
    if item.from_agent:
        return said.row(item, run, public=known["public"])
    frame = "general/news.html" if known["public"] else "timeline/moment.html"
    return render_to_string(frame, {"item": item, "run": run, **known})


def _runs(rows: Iterable[Item]) -> dict[str, Run]:
    ids = {item.entries[0].run_id for item in rows} - {""}
    return Run.objects.select_related("operator", "workflow").in_bulk(ids) if ids else {}


def _children(rows: Iterable[Item]) -> kinship.Children:
    """Return the runs that these items say were started; most say of none."""
    starting = [entry for item in rows for entry in item.entries if entry.kind in kinship.STARTING]
    return kinship.children(starting[0].run_id) if starting else {}


def _completed(project_id: str, channel: str, entries: list[Entry]) -> list[Entry]:
    """Add the events, from before these, of steps whose start is missing."""
    begun = {entry.step_id for entry in entries if entry.kind == STEP_STARTED}
    cut = {entry.step_id for entry in entries if entry.step_id and entry.kind in STEP_KINDS} - begun
    if not cut:
        return entries
    rows = Event.objects.filter(project_id=project_id, channel=channel, step_id__in=cut).order_by("seq")
    return _merged(map(Entry.of, rows), entries)


def _recalled(project_id: str, channel: str, entries: list[Entry]) -> list[Entry]:
    """Add what the fold needs to know from before: cut steps, and after an interruption the steps it stopped."""
    if any(entry.kind in items.INTERRUPTING or entry.kind == "run.resumed" for entry in entries):
        rows = threads.newest(project_id, channel, before=entries[0].seq, limit=_REACH)
        entries = _merged(map(Entry.of, rows), entries)
    return _completed(project_id, channel, entries)


def _changed(item: Item, touched: set[str], entries: list[Entry]) -> bool:
    if not isinstance(item, Step):
        return False
    interrupted = any(entry.kind in items.INTERRUPTING or entry.kind == "run.resumed" for entry in entries)
    return item.id in touched or (interrupted and item.end is None)


def _merged(earlier: Iterable[Entry], later: Iterable[Entry]) -> list[Entry]:
    return [entry for _, entry in sorted({entry.seq: entry for entry in (*earlier, *later)}.items())]


def _hint(entries: Sequence[Entry]) -> str:
    """Let the header count anew when gates were opened or closed (see `static/js/live.js`)."""
    told = any(entry.kind.startswith("gate.") or entry.kind in items.INTERRUPTING for entry in entries)
    return '<template data-dispatch="gates-changed"></template>' if told else ""


def _surroundings(entries: Sequence[Entry]) -> str:
    if all(entry.from_agent for entry in entries):
        return ""
    run = Run.objects.select_related(*SHOWN).filter(id=entries[0].run_id).first()
    if run is None:
        return ""
    context = {**head(run), "oob": True}
    parts = ["run/head.html", "run/result.html"]
    # Only a run's or a gate's own news touches the open gates: somebody may be writing in their forms.
    if any(entry.kind.startswith(("run.", "gate.")) for entry in entries):
        parts.append("run/gates.html")
    return "".join(render_to_string(part, context) for part in parts)
