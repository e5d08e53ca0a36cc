"""Agents elsewhere over REST: who there is, where they work, and whether they live."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_field
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operators.api import scope
from operators.models import Agent, ApiToken, Stint
from operators.models.agent import AgentQuerySet
from operators.services import agents, sessions


class StintView(serializers.ModelSerializer[Stint]):
    """An agent's work in one session."""

    session_id = serializers.CharField(source="run_id")

    class Meta:
        model = Stint
        fields: tuple[str, ...] = ("session_id", "role", "container_id", "started_at")
        read_only_fields = fields


class AgentView(serializers.ModelSerializer[Agent]):
    """An agent; `session_id` is where it began to work last, of the sessions in which it works now."""

    id = serializers.CharField(source="name")
    status = serializers.SerializerMethodField()
    session_id = serializers.SerializerMethodField()
    sessions = serializers.SerializerMethodField()
    started_at = serializers.SerializerMethodField()
    last_message_at = serializers.DateTimeField(source="heard_at")
    project_id = serializers.CharField()

    class Meta:
        model = Agent
        fields: tuple[str, ...] = ("id", "project_id", "status", "role", "health", "session_id", "sessions",
                                   "started_at", "last_message_at")  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.ChoiceField(Agent.State.choices))
    def get_status(self, agent: Agent) -> str:
        """Return what is known of it."""
        return agent.state()

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_session_id(self, agent: Agent) -> str | None:
        """Return the session in which it began to work last."""
        return next((stint.run_id for stint in agent.working()), None)

    @extend_schema_field(StintView(many=True))
    def get_sessions(self, agent: Agent) -> list[dict[str, Any]]:
        """Return the sessions in which it works."""
        return list(StintView(agent.working(), many=True).data)

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_started_at(self, agent: Agent) -> Any:
        """Return when it began there."""
        return next((stint.started_at for stint in agent.working()), None)


class AgentBody(serializers.Serializer[Any]):
    """An agent that has been started for a session."""

    session_id = serializers.CharField(max_length=64)
    agent_id = serializers.CharField(max_length=200)
    role = serializers.CharField(default="", allow_blank=True, max_length=80)
    container_id = serializers.CharField(default="", allow_blank=True, max_length=200)


class Agents(generics.ListAPIView[Agent]):
    """The agents of the caller's projects, the latest known first."""

    serializer_class = AgentView

    def get_queryset(self) -> AgentQuerySet:
        """Return those that work in `?session=`, and of the role `?role=`."""
        rows = _rows(self.request)
        session, role = (self.request.query_params.get(name, "") for name in ("session", "role"))
        if session:
            rows = rows.filter(pk__in=Stint.objects.open().filter(run_id=session).values("agent_id"))
        if role:
            rows = rows.filter(role=role)
        if "\0" in session + role:
            rows = rows.none()
        found: AgentQuerySet = sessions.agents(rows)
        return found

    @extend_schema(
        operation_id="list_agents", parameters=[OpenApiParameter("session", str), OpenApiParameter("role", str)]
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them, a page at a time."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        request=AgentBody,
        responses={201: AgentView, 200: OpenApiResponse(AgentView, "It works in this session already")},
        operation_id="start_agent",
    )
    def post(self, request: Request) -> Response:
        """Say that an agent has been started for a session; those who hear the session are told."""
        body = AgentBody(data=request.data)
        body.is_valid(raise_exception=True)
        given = body.validated_data
        run = scope.runs(request, operable=True).filter(id=given["session_id"]).first()
        if run is None:
            raise Http404(f"There is no session {given['session_id']!r}")
        agent, new = agents.start(
            run, given["agent_id"], role=given["role"], container_id=given["container_id"],
            actor=scope.caller(request).get_username(),
        )  # fmt: skip
        headers = {"Location": f"/v1/agents/{agent.name}"}
        return Response(AgentView(agent).data, status=201 if new else 200, headers=headers)


class AgentPage(APIView):
    """One agent."""

    @extend_schema(responses=AgentView, operation_id="read_agent")
    def get(self, request: Request, agent_id: str) -> Response:
        """Tell where it works, and whether it lives."""
        return Response(AgentView(_agent(request, agent_id)).data)

    @extend_schema(responses={204: None}, operation_id="stop_agent")
    def delete(self, request: Request, agent_id: str) -> Response:
        """Let it be stopped in all its sessions; those who hear them are told, and its unfinished work stays."""
        agents.stop(_agent(request, agent_id, operable=True), actor=scope.caller(request).get_username())
        return Response(status=204)


def _rows(request: Request, *, operable: bool = False) -> AgentQuerySet:
    rows = Agent.objects.operable_by(request.user) if operable else Agent.objects.visible_to(request.user)
    return rows.filter(project_id=request.auth.project_id) if isinstance(request.auth, ApiToken) else rows


def _agent(request: Request, agent_id: str, *, operable: bool = False) -> Agent:
    rows = _rows(request, operable=operable).order_by("project_id")
    found = rows.filter(name=agent_id).first() if "\0" not in agent_id else None
    if found is None:
        raise Http404(f"There is no agent {agent_id!r}")
    return found
