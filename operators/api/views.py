"""REST: guard, body, one service call, answer."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db.models import prefetch_related_objects
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from openvibe.outcomes import EACH
from openvibe.protocol import subjects
from operators.api import scope
from operators.api.serializers import (
    ActivateBody,
    CancelBody,
    EventList,
    OperatorDetail,
    OperatorList,
    OverrideBody,
    ResumeBody,
    RunDetail,
    RunSummary,
    represented,
)
from operators.errors import Misfit, NotWaiting
from operators.models import Run, Wait
from operators.models.lookup import listed
from operators.models.run import RunQuerySet
from operators.numbers import natural
from operators.services import intake, overrides, seats, timeline, waits

KEY = "A name that you give the request. The same name with the same body starts one run, however often it comes."


class Operators(APIView):
    """The operators of the caller's project."""

    @extend_schema(responses=OperatorList, operation_id="list_operators")
    def get(self, request: Request) -> Response:
        """List them by name."""
        rows = scope.operators(request).prefetch_related("workflows")
        return Response(OperatorList({"operators": rows}).data)


class OperatorPage(APIView):
    """One operator."""

    @extend_schema(responses=OperatorDetail, operation_id="read_operator")
    def get(self, request: Request, slug: str) -> Response:
        """Tell its workflows, with each one's `input_schema` and a working `sample_input`."""
        operator = scope.operator(request, slug)
        prefetch_related_objects([operator], "workflows__nodes")
        return Response(OperatorDetail(operator).data)


class Activate(APIView):
    """The door by which programs start runs."""

    @extend_schema(
        request=ActivateBody,
        responses={201: RunSummary, 200: OpenApiResponse(RunSummary, "The key has started this run before")},
        operation_id="activate",
        parameters=[OpenApiParameter(scope.KEY_HEADER, str, OpenApiParameter.HEADER, description=KEY)],
    )
    def post(self, request: Request, slug: str) -> Response:
        """Start a workflow by its trigger's id or its own."""
        operator = scope.operator(request, slug, operable=True)
        body = _read(ActivateBody, request)
        key, asked = scope.key(request), {"operator": slug, **body}
        run = intake.repeated(operator, key, asked) or intake.request(
            intake.workflow_of(operator, body["trigger"]),
            input=body["input"],
            actor=scope.caller(request),
            trigger="api",
            **scope.trace(request),
            key=key,
            body=asked,
            priority=body["priority"],
        )
        headers = {"Location": f"/v1/operators/{slug}/runs/{run.id}"}
        return Response(represented(RunSummary, run), status=201 if run.new else 200, headers=headers)


class Runs(generics.ListAPIView[Run]):
    """An operator's runs, newest first."""

    serializer_class = RunSummary

    def get_queryset(self) -> RunQuerySet:
        """Return those of the operator, and of the status that `?status=` asks for."""
        operator = scope.operator(self.request, self.kwargs["slug"])
        rows = scope.runs(self.request).filter(operator=operator)
        status = self.request.query_params.get("status")
        if status and status not in Run.Status.values:
            message = f"There is no status {status!r}; use one of: {', '.join(Run.Status.values)}"
            raise Misfit(message, errors=[{"field": "status", "message": message}])
        return rows.filter(status=status) if status else rows

    @extend_schema(operation_id="list_runs", parameters=[OpenApiParameter("status", enum=Run.Status.values)])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them, a page at a time."""
        return super().get(request, *args, **kwargs)


class RunPage(APIView):
    """One run."""

    @extend_schema(responses=RunDetail, operation_id="read_run")
    def get(self, request: Request, slug: str, run_id: str) -> Response:
        """Tell its status, output, metrics and waits."""
        return Response(represented(RunDetail, scope.run(request, slug, run_id)))

    @extend_schema(request=CancelBody, responses=RunDetail, operation_id="cancel_run")
    def delete(self, request: Request, slug: str, run_id: str) -> Response:
        """Cancel it."""
        run = scope.run(request, slug, run_id, operable=True)
        reason = _read(CancelBody, request)["reason"] if request.body else ""
        return Response(represented(RunDetail, intake.cancel(run, actor=scope.caller(request), reason=reason)))


class RunEvents(APIView):
    """A run's timeline."""

    @extend_schema(responses=EventList, operation_id="list_events",
                   parameters=[OpenApiParameter("after", int), OpenApiParameter("limit", int)])  # fmt: skip
    def get(self, request: Request, slug: str, run_id: str) -> Response:
        """List its events that follow number `after`, in order."""
        run = scope.run(request, slug, run_id)
        after, limit = _number(request, "after", 0), min(_number(request, "limit", 200), 1000)
        events = timeline.read(run.project_id, subjects.thread(run.id), after=after, limit=limit)
        return Response(EventList({"events": events, "last_seq": run.last_seq}).data)


class Retries(APIView):
    """The door by which programs let a failed run try again."""

    @extend_schema(request=None, responses=RunDetail, operation_id="retry")
    def post(self, request: Request, slug: str, run_id: str) -> Response:
        """Queue a failed run again; it goes on from its last good step."""
        run = scope.run(request, slug, run_id, operable=True)
        return Response(represented(RunDetail, intake.retry(run, actor=scope.caller(request))))


class Overrides(APIView):
    """The door by which those who were granted the right change the state of a run that stands at an open gate."""

    @extend_schema(request=OverrideBody, responses=RunDetail, operation_id="override")
    def post(self, request: Request, slug: str, run_id: str) -> Response:
        """Change fields of the state, with a reason; the gate is asked anew, under its next version."""
        run = scope.run(request, slug, run_id, operable=True)
        body = _read(OverrideBody, request)
        wait = Wait.objects.gates().filter(run=run, id=body.pop("wait_id")).first()
        if wait is None:
            raise NotWaiting(f"Run {run.id} has no such gate", run_status=run.status)
        wait.run = run
        overrides.override(wait, actor=scope.caller(request), **body)
        return Response(represented(RunDetail, scope.run(request, slug, run_id)))


class Resume(APIView):
    """The door by which programs decide at gates."""

    @extend_schema(request=ResumeBody, responses=RunDetail, operation_id="resume")
    def post(self, request: Request, slug: str, run_id: str) -> Response:
        """Decide at a gate, quoting its id and, better, its version and payload hash."""
        run = scope.run(request, slug, run_id, operable=True)
        body = _read(ResumeBody, request)
        given = waits.Answer(
            decision=body["decision"],
            notes=body["notes"],
            values=body.get("values"),
            version=body.get("version"),
            payload_sha256=body.get("payload_sha256"),
        )
        caller = scope.caller(request)
        wait = _wait(run, body.get("wait_id"), caller)
        wait.run = run
        waits.answer(wait, given, actor=caller)
        return Response(represented(RunDetail, scope.run(request, slug, run_id)))


def _wait(run: Run, wait_id: str | None, caller: AbstractUser) -> Wait:
    asked = listed(Wait, order=["-opened_at", "pk"], run_id=run.id, kind=Wait.Kind.APPROVAL)
    if wait_id is not None:
        found = next((gate for gate in asked if gate.id == wait_id), None)
        if found is None:
            raise NotWaiting(f"Run {run.id} has no gate {wait_id!r}", run_status=run.status)
        return found
    if len(run.workflow.gates) > 1:
        raise NotWaiting(f"{run.workflow.slug!r} has several gates; quote wait_id", gates=run.workflow.gates)
    if not asked:
        raise NotWaiting(f"Run {run.id} waits for nobody; it is {run.status}", run_status=run.status)
    newest = asked[0]
    if newest.rule == EACH:
        raise NotWaiting(f"{run.workflow.slug!r} asks several at the same time; quote wait_id", run_status=run.status)
    # A loop, or a graph of somebody's own, asks again: the second click on one question is no answer to the next.
    if any(gate.form == newest.form and gate.interrupt_id != newest.interrupt_id for gate in asked):
        raise NotWaiting(f"Run {run.id} has asked more than once; quote wait_id", run_status=run.status)
    return seats.own(newest, caller) if newest.approver else newest


def _read(body: Any, request: Request) -> dict[str, Any]:
    reader = body(data=request.data)
    reader.is_valid(raise_exception=True)
    values: dict[str, Any] = reader.validated_data
    return values


def _number(request: Request, name: str, default: int) -> int:
    number = natural(request.query_params.get(name, ""))
    return default if number is None else number
