"""Sessions: runs that hand work to agents elsewhere, as those agents' people speak of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef, Prefetch, Q

from openvibe.protocol import subjects
from operators.models import Agent, Event, Run, Stint, Wait
from operators.models.run import RunQuerySet
from operators.services import session_logging, session_records, timeline
from operators.services.session_log import Record

#: The workflow that works off a graph of chunks, and the event by which it tells of each that is done.
OPERATOR, WORKFLOW = "coders", "code_session"
DONE = f"{OPERATOR}.chunk_done"

_OPEN = Wait.objects.pending().filter(run_id=OuterRef("pk"))
_ENDED = {Run.Status.COMPLETED: "completed", Run.Status.FAILED: "failed", Run.Status.CANCELLED: "stopped"}
_PAUSED = Q(status=Run.Status.WAITING, asks_people=True, asks_agents=False)
_CREATED = Q(status=Run.Status.QUEUED, started_at=None)
#: What each word for a session's status means.
STATUSES: dict[str, Q] = {
    "created": _CREATED,
    "active": Q(status__in=Run.ACTIVE) & ~_CREATED & ~_PAUSED,
    "paused": _PAUSED,
    **{word: Q(status=status) for status, word in _ENDED.items()},
}
WORDS = list(STATUSES)


def listing(runs: RunQuerySet, *, status: str = "") -> RunQuerySet:
    """Return those of the runs that are sessions, with what `status_of` needs; `status` is one of `STATUSES`."""
    found: RunQuerySet = runs.sessions().annotate(
        asks_people=Exists(_OPEN.filter(kind=Wait.Kind.APPROVAL)),
        asks_agents=Exists(_OPEN.exclude(kind=Wait.Kind.APPROVAL)),
    )
    return found.filter(STATUSES[status]) if status else found


def status_of(run: Run) -> str:
    """Return where a session of a `listing` stands: paused while it waits for nothing but a person."""
    if run.status in _ENDED:
        return _ENDED[Run.Status(run.status)]
    if run.status == Run.Status.QUEUED and run.started_at is None:
        return "created"
    asks: Any = run
    paused = run.status == Run.Status.WAITING and asks.asks_people and not asks.asks_agents
    return "paused" if paused else "active"


def progress(run: Run) -> dict[str, Any]:
    """Return how far a session has come with its chunks; nothing of a workflow that knows none."""
    chunks = run.input.get("chunks")
    if not isinstance(chunks, list):
        return {"current_chunk": None, "current_chunks": None, "chunks_completed": None, "chunks_total": None}
    thread = Event.objects.filter(project_id=run.project_id, channel=subjects.thread(run.id), kind="event.emitted")
    current = _current(run)
    return {
        "current_chunk": next(iter(current), None),
        "current_chunks": current,
        "chunks_completed": thread.filter(data__name=DONE).count(),
        "chunks_total": len(chunks),
    }


def _current(run: Run) -> list[str]:
    """Return the chunks that are worked at, or that a person is asked about, the longest one first."""
    if not run.active:
        return []
    shown = Wait.objects.pending().filter(run=run).order_by("opened_at", "seat").values_list("payload", flat=True)
    # Work tells its task, a gate what it shows.
    told = [(payload.get("task") or payload).get("chunk_id") for payload in shown]
    return list(dict.fromkeys(chunk for chunk in told if chunk))


def agents(rows: Any) -> Any:
    """Return agents with the stints that go on, in one more query."""
    open_stints = Prefetch("stints", queryset=Stint.objects.open().order_by("-started_at"), to_attr="open_stints")
    return rows.prefetch_related(open_stints)


def working(run: Run) -> list[Agent]:
    """Return the agents that work in a session now, by name."""
    found = Agent.objects.filter(pk__in=Stint.objects.open().filter(run=run).values("agent_id"))
    return list(agents(found).order_by("name"))


def records(
    project_id: str,
    run: Run | None,
    *,
    channel: str = subjects.PUBLIC,
    after: int = 0,
    since: datetime | None = None,
    limit: int = 200,
) -> list[Record]:
    """Return a session's records behind a number or a time, in order; without one, those of another channel.

    What retention has taken out of the database may still lie in the session's log.
    """
    if run is not None and run.archived_at is not None:
        log = session_logging.of(run)
        return log.read(after=after, since=since, limit=limit) if log else []
    place = subjects.thread(run.id) if run else channel
    events = timeline.read(project_id, place, after=after, since=since, limit=limit)
    return [session_records.of(event.wire()) for event in events]
