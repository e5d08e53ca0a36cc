"""Timelines as server-sent events: history first, then what happens, resumed by `Last-Event-ID`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.db import DatabaseError
from django.http import Http404, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from openvibe.protocol import subjects, workflow
from operators.api import scope
from operators.errors import Misfit
from operators.models import ApiToken, Event, Project, Run
from operators.numbers import natural
from operators.services import agent_records, kinds, session_records
from operators.services.external import WORKFLOW
from operators.services.filters import Filter, Wire
from operators.services.streams import Stream, session_named

NEWEST, MOST_NEWEST = 500, 1000
EVENT_STREAM = "text/event-stream"
STREAM = {(200, EVENT_STREAM): OpenApiResponse(OpenApiTypes.STR, "Frames with `id`, `event: message` and `data`")}
RESUME = [
    OpenApiParameter("Last-Event-ID", int, OpenApiParameter.HEADER, description="Begin after this number"),
    OpenApiParameter("after", int, description="The same, for a first request"),
    OpenApiParameter("limit", int, description=f"Else with so many of the newest wanted ({NEWEST}; {MOST_NEWEST})"),
    OpenApiParameter("project", str, description="For a signed-in browser: whose general channel"),
]
#: How the caller names his own channel: nobody can name another one's.
MINE = "mine"
#: What an agent's message may be about, and the attribute that says so.
ABOUT = {"repository": "repository", "issue": "issueNumber", "branch": "branch"}


class Unnamed(Misfit):
    """The request does not say which channel it wants."""

    status = 400
    code = "parse_error"


class EventStreamRenderer(JSONRenderer):
    """Lets a request that accepts nothing but event streams in; a refusal is JSON all the same."""

    media_type = EVENT_STREAM
    format = "event-stream"


@dataclass(frozen=True)
class Place:
    """One channel of one project. `names` is what a foreign runtime calls the run whose thread it is."""

    project_id: str
    channel: str
    names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Place:
        """Return a run's thread."""
        return cls(run.project_id, subjects.thread(run.id), agent_records.named(run))


class EventStream(APIView):
    """A door to one channel, open for as long as somebody reads."""

    renderer_classes = [JSONRenderer, EventStreamRenderer]

    def answer(
        self, request: Request, place: Place, wanted: Filter, record: Callable[[Wire], Wire] = session_named
    ) -> HttpResponseBase:
        """Return the stream; the thread of this request is free when it begins."""
        after = _number(request.headers.get("Last-Event-ID"), "Last-Event-ID")
        if after is None:
            after = _number(request.query_params.get("after"), "after")
        limit = _number(request.query_params.get("limit"), "limit")
        newest = min(NEWEST if limit is None else limit, MOST_NEWEST)
        allowed = _rights(request, place.project_id)
        stream = Stream(place.project_id, place.channel, after, newest, wanted, allowed, record)
        # A proxy that gathers frames would hold news back.
        kept = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
        return StreamingHttpResponse(stream.frames(), content_type=EVENT_STREAM, headers=kept)


class Events(EventStream):
    """What happens in a project, or in one of its runs."""

    @extend_schema(
        responses=STREAM, operation_id="stream_events",
        parameters=[
            OpenApiParameter("run_id", str, description="This run's own thread, instead of the general channel"),
            OpenApiParameter("session", str, description="The same, in the words of the dialect `sessions`"),
            OpenApiParameter("channel", enum=["public", MINE], description="`mine`: what is asked of the caller alone"),
            OpenApiParameter("operator", str, description="Only of runs of this operator"),
            OpenApiParameter("kind", str, many=True, description="Only of these kinds, such as `run.*`; also `a,b`"),
            *RESUME,
        ],
    )  # fmt: skip
    def get(self, request: Request) -> HttpResponseBase:
        """Stream the general channel, with `run_id` a run's thread, or with `channel=mine` the caller's own channel."""
        session = request.query_params.get("session", "")
        run_id = request.query_params.get("run_id", "") or session
        place = _thread(request, run_id) if run_id else _aside(request)
        wanted = _kinds(request)
        slug = request.query_params.get("operator", "")
        operators = scope.operators(request).filter(project_id=place.project_id)
        operator = operators.filter(slug=slug).first() if slug and "\0" not in slug else None
        if slug and operator is None:
            raise Http404(f"There is no operator {slug!r}")
        record = session_records.of if session else session_named
        return self.answer(request, place, Filter(wanted, operator.pk if operator else None), record)


class AgentEvents(EventStream):
    """The same channels by the names that external workflow runtimes know."""

    @extend_schema(
        responses=STREAM, operation_id="stream_agent_events",
        parameters=[
            OpenApiParameter("runId", str, description="A run, of ours or of a runtime that posts messages"),
            OpenApiParameter("workflowUid", str, description="The same, by the workflow's uid"),
            OpenApiParameter("channel", enum=["general", MINE], description="The general channel, or the caller's own"),
            OpenApiParameter("kind", str, many=True, description="Only of these kinds: `status`, `agent.*`, `a,b`"),
            *[OpenApiParameter(name, str, description=f"Only what was said about this {name}") for name in ABOUT],
            *RESUME,
        ],
    )  # fmt: skip
    def get(self, request: Request) -> HttpResponseBase:
        """Stream one run's thread or the general channel."""
        asked, wanted = request.query_params, Filter(_kinds_of_agents(request), attrs=_about(request))
        name = asked.get("runId", "") or asked.get("workflowUid", "")
        if name:
            place = _thread(request, name)
            return self.answer(request, place, wanted, partial(agent_records.of, names=place.names))
        channel = {"general": subjects.PUBLIC, MINE: MINE}.get(asked.get("channel", ""))
        if channel is None:
            message = "name one of runId, workflowUid, channel=general and channel=mine"
            raise Unnamed(f"Which channel? {message}", ok=False, error=message)
        return self.answer(request, _aside(request, channel), wanted, partial(agent_records.of, names={}))


def _kinds(request: Request) -> list[str]:
    return kinds.patterns(_parts(request), field="kind")


def _kinds_of_agents(request: Request) -> list[str]:
    """Return the same where what an agent said may also go by the kind that the agent gave it, as it spelled it."""
    plain = kinds.patterns([part.replace("-", "_") for part in _parts(request)], field="kind")
    return [*plain, *(f"agent.{part if part.endswith('*') else workflow.word(part)}" for part in plain)]


def _parts(request: Request) -> list[str]:
    given = ",".join(request.query_params.getlist("kind"))
    return [part.strip() for part in given.split(",") if part.strip()]


def _about(request: Request) -> dict[str, str]:
    found = {name: text for name in ABOUT if (text := request.query_params.get(name, ""))}
    for name, text in found.items():
        if "\0" in text:
            message = "holds a NUL character, which no event can"
            raise Misfit(f"{name}: {message}", errors=[{"field": name, "message": message}])
    return {ABOUT[name]: text for name, text in found.items()}


def named(request: Request, asked: str) -> str:
    """Return the channel that is asked for: the general one, or the caller's own."""
    if asked not in ("", subjects.PUBLIC, MINE):
        message = f"is {asked!r:.60}; there are: {subjects.PUBLIC}, {MINE}"
        raise Misfit(f"channel: {message}", errors=[{"field": "channel", "message": message}])
    return subjects.personal(scope.caller(request).get_username()) if asked == MINE else subjects.PUBLIC


def _aside(request: Request, channel: str = "") -> Place:
    """Return a channel that is no run's."""
    asked = channel or request.query_params.get("channel", "")
    return Place(scope.project(request).pk, named(request, asked))


def _thread(request: Request, name: str) -> Place:
    """Return a run's thread: of a run of ours, or one that only messages tell of."""
    if "\0" not in name and (run := scope.runs(request).filter(id=name).first()):
        return Place.of(run)
    project = scope.project(request)
    if run := scope.runs(request).filter(id=workflow.run_id(project.pk, name)).first():
        return Place.of(run)
    # What a runtime calls its run beside the uid.
    theirs = scope.runs(request).filter(project=project, trigger=WORKFLOW, input__run_id=name)
    if "\0" not in name and (run := theirs.order_by("-created_at").first()):
        return Place.of(run)
    channel = subjects.thread(name)
    known = Run.objects.filter(id=name).exists() if "\0" not in name else True
    if known or not Event.objects.filter(project=project, channel=channel).exists():
        raise Http404(f"There is no run {name!r}")
    return Place(project.pk, channel)


def _number(text: str | None, field: str) -> int | None:
    if text is None or text == "":
        return None
    number = natural(text.strip())
    if number is None:
        message = f"{text!r:.60} is no natural number"
        raise Misfit(f"{field}: {message}", errors=[{"field": field, "message": message}])
    return number


def _rights(request: Request, project_id: str) -> Callable[[], bool]:
    """Return the question whether the caller may still read."""
    user_id = scope.caller(request).pk
    token_id = request.auth.pk if isinstance(request.auth, ApiToken) else None

    def allowed() -> bool:
        try:
            user: Any = get_user_model().objects.filter(pk=user_id, is_active=True).first()
            void = token_id is not None and not ApiToken.objects.filter(pk=token_id).exists()
            return bool(user) and not void and Project.objects.visible_to(user).filter(pk=project_id).exists()
        except DatabaseError:
            # Asked again next time; without a database there is no news either.
            return True

    return allowed
