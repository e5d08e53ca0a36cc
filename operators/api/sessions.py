"""Sessions over REST: create, list, read, stop, and their log of events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operators.api import scope, streams
from operators.coders import graphs
from operators.coders.graphs import Misdrawn
from operators.errors import Misfit
from operators.models import Run
from operators.models.run import RunQuerySet
from operators.moments import moment
from operators.numbers import natural
from operators.services import intake, sessions

KEY = "A name that you give the request. The same name with the same body starts one session, however often it comes."
MOST_RECORDS = 1000


class GraphPart(serializers.Serializer[Any]):
    """What is to be done: chunks, and what the session is called."""

    session = serializers.DictField(required=False, help_text="`name`, and `repo`: where the code lies")
    chunks = serializers.ListField(
        help_text="`id`, `description`, `name`, `requirements`, `test_requirements`, `criteria`, `phases`, `depends_on`"
    )


class SessionBody(serializers.Serializer[Any]):
    """A new session of the workflow `code_session`."""

    name = serializers.CharField(default="", allow_blank=True, max_length=200)
    graph = GraphPart()
    max_rounds = serializers.IntegerField(default=3, min_value=1, max_value=20, help_text="How often a chunk is begun")


class SessionView(serializers.ModelSerializer[Run]):
    """A session in a list."""

    name = serializers.SerializerMethodField()
    status = serializers.SerializerMethodField()
    operator_id = serializers.CharField(source="operator.slug")
    workflow_id = serializers.CharField(source="workflow.slug")
    run_status = serializers.CharField(source="status")
    completed_at = serializers.DateTimeField(source="ended_at", allow_null=True)

    class Meta:
        model = Run
        fields: tuple[str, ...] = ("id", "name", "status", "run_status", "operator_id", "workflow_id", "created_at",
                                   "started_at", "completed_at")  # fmt: skip
        read_only_fields = fields

    def get_name(self, run: Run) -> str:
        """Return what it was called, else its workflow's name."""
        return str(run.input.get("name") or run.workflow.name)

    @extend_schema_field(serializers.ChoiceField(sessions.WORDS))
    def get_status(self, run: Run) -> str:
        """Return where it stands, in the dialect's words."""
        return sessions.status_of(run)


class SessionDetail(SessionView):
    """A session, with how far it has come and who works in it."""

    current_chunk = serializers.CharField(allow_null=True, help_text="The first of `current_chunks`")
    current_chunks = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="Chunks that are worked at, or that a gate asks about"
    )
    chunks_completed = serializers.IntegerField(allow_null=True)
    chunks_total = serializers.IntegerField(allow_null=True)
    agents = serializers.ListField(child=serializers.CharField(), help_text="Ids of the agents that work in it now")

    class Meta(SessionView.Meta):
        fields = (
            *SessionView.Meta.fields,
            "current_chunk",
            "current_chunks",
            "chunks_completed",
            "chunks_total",
            "agents",
        )
        read_only_fields = fields

    def to_representation(self, instance: Run) -> dict[str, Any]:
        """Return it with what only a look at its events tells."""
        for name, value in sessions.progress(instance).items():
            setattr(instance, name, value)
        found: Any = instance
        found.agents = [agent.name for agent in sessions.working(instance)]
        return super().to_representation(instance)


class RecordView(serializers.Serializer[Any]):
    """One event of a session, in the words of the dialect where it has some."""

    id = serializers.CharField()
    seq = serializers.IntegerField()
    session_id = serializers.CharField(allow_blank=True)
    timestamp = serializers.DateTimeField()
    type = serializers.CharField()
    topic = serializers.CharField(allow_blank=True)
    kind = serializers.CharField()
    node = serializers.CharField(allow_blank=True)
    actor = serializers.CharField(allow_blank=True)
    payload = serializers.JSONField()


class RecordList(serializers.Serializer[Any]):
    """Some of a log; `next` is the `since` of what follows, or null when nothing does yet."""

    events = RecordView(many=True)
    next = serializers.IntegerField(allow_null=True)


class Sessions(generics.ListAPIView[Run]):
    """The sessions of the caller's projects, newest first."""

    serializer_class = SessionView

    def get_queryset(self) -> RunQuerySet:
        """Return those of the status that `?status=` asks for."""
        status = self.request.query_params.get("status", "")
        if status and status not in sessions.STATUSES:
            message = f"There is no status {status!r}; use one of: {', '.join(sessions.WORDS)}"
            raise Misfit(message, errors=[{"field": "status", "message": message}])
        return sessions.listing(scope.runs(self.request), status=status)

    @extend_schema(operation_id="list_sessions", parameters=[OpenApiParameter("status", enum=sessions.WORDS)])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them, a page at a time."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        request=SessionBody,
        responses={201: SessionDetail, 200: OpenApiResponse(SessionDetail, "The key has started this session before")},
        operation_id="create_session",
        parameters=[OpenApiParameter(scope.KEY_HEADER, str, OpenApiParameter.HEADER, description=KEY)],
    )
    def post(self, request: Request) -> Response:
        """Start the workflow `code_session` with a graph of chunks."""
        operator = scope.operator(request, sessions.OPERATOR, operable=True)
        body = SessionBody(data=request.data)
        body.is_valid(raise_exception=True)
        run = intake.request(
            intake.workflow_of(operator, sessions.WORKFLOW),
            input=_input(body.validated_data),
            actor=scope.caller(request),
            trigger="api",
            **scope.trace(request),
            key=scope.key(request),
            body={"session": body.validated_data},
        )
        headers = {"Location": f"/v1/sessions/{run.id}"}
        found = SessionDetail(_session(request, run.id)).data
        return Response(found, status=201 if run.new else 200, headers=headers)


class SessionPage(APIView):
    """One session."""

    @extend_schema(responses=SessionDetail, operation_id="read_session")
    def get(self, request: Request, session_id: str) -> Response:
        """Tell its status, how far it has come, and who works in it."""
        return Response(SessionDetail(_session(request, session_id)).data)

    @extend_schema(responses={204: None}, operation_id="stop_session")
    def delete(self, request: Request, session_id: str) -> Response:
        """Stop it; its log stays."""
        run = _session(request, session_id, operable=True)
        intake.cancel(run, actor=scope.caller(request), reason="The session was stopped")
        return Response(status=204)


class Records(APIView):
    """The log of a session's events, of the general channel, or of the caller's own."""

    @extend_schema(
        responses=RecordList, operation_id="list_session_events",
        parameters=[
            OpenApiParameter("session", str, description="Whose; without it, the general channel's"),
            OpenApiParameter("channel", enum=["public", streams.MINE], description="`mine`: the caller's own channel"),
            OpenApiParameter("since", str, description="Behind this number, or later than this time (RFC 3339)"),
            OpenApiParameter("limit", int),
        ],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List what happened, in order."""
        asked = request.query_params
        name = asked.get("session", "")
        run = _session(request, name) if name else None
        project = run.project_id if run else scope.project(request).pk
        after, since = _since(asked.get("since", ""))
        given = natural(asked.get("limit", ""))
        limit = min(max(200 if given is None else given, 1), MOST_RECORDS)
        channel = streams.named(request, asked.get("channel", ""))
        found = sessions.records(project, run, channel=channel, after=after, since=since, limit=limit)
        more = found[-1]["seq"] if len(found) == limit else None
        return Response(RecordList({"events": found, "next": more}).data)


def _session(request: Request, session_id: str, *, operable: bool = False) -> Run:
    """Return one of the caller's sessions; 404 for what does not exist and for what is not the caller's."""
    rows = sessions.listing(scope.runs(request, operable=operable))
    found = rows.filter(id=session_id).first() if "\0" not in session_id else None
    if found is None:
        raise Http404(f"There is no session {session_id!r}")
    return found


def _input(body: dict[str, Any]) -> dict[str, Any]:
    graph = body["graph"]
    named = graph.get("session", {})
    try:
        graphs.read(graph["chunks"])
    except Misdrawn as error:
        raise Misfit(str(error), errors=[{"field": f"graph.{error.field}", "message": error.message}]) from error
    names = {"name": body["name"] or named.get("name", ""), "repo": named.get("repo", "")}
    return {**names, "chunks": graph["chunks"], "max_rounds": body["max_rounds"]}


def _since(text: str) -> tuple[int, datetime | None]:
    number = natural(text)
    if not text or number is not None:
        return number or 0, None
    # A plus sign that nobody has escaped arrives as a blank.
    since = moment(text.replace(" ", "+"))
    if since is None:
        message = f"{text!r:.60} is neither a number nor a time such as 2026-01-01T00:00:00Z"
        raise Misfit(f"since: {message}", errors=[{"field": "since", "message": message}])
    return 0, since
