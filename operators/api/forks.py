"""REST: the states that a run has passed through, and runs that begin at one of them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operators.api import scope
from operators.api.serializers import RunSummary
from operators.numbers import natural
from operators.services import forks

KEY = "A name that you give the request. The same name with the same body starts one run, however often it comes."
MOST_STEPS = 200


class ForkBody(serializers.Serializer[Any]):
    """Where a new run begins."""

    step_id = serializers.CharField(max_length=64, help_text="A step of the run; see `steps`")
    before = serializers.BooleanField(
        default=False, help_text="Begin with the state before the step, and play it again"
    )
    values = serializers.DictField(default=dict, help_text="Fields of the state that begin with other values")


class StepView(serializers.Serializer[Any]):
    """A step, with the state after it or, if it has not finished, before it. Large values are pointers to cards."""

    step_id = serializers.CharField()
    node = serializers.CharField()
    seq = serializers.IntegerField()
    finished = serializers.BooleanField()
    timestamp = serializers.DateTimeField()
    state = serializers.DictField()


class StepList(serializers.Serializer[Any]):
    """Some of a run's steps, in order."""

    steps = StepView(many=True)


class Steps(APIView):
    """The steps from which a run can be forked."""

    @extend_schema(responses=StepList, operation_id="list_steps",
                   parameters=[OpenApiParameter("after", int), OpenApiParameter("limit", int)])  # fmt: skip
    def get(self, request: Request, slug: str, run_id: str) -> Response:
        """List those that began after event number `after`, each with its state."""
        run = scope.run(request, slug, run_id)
        after = natural(request.query_params.get("after", "")) or 0
        limit = natural(request.query_params.get("limit", ""))
        found = forks.steps(run, after=after, limit=min(50 if limit is None else limit, MOST_STEPS))
        return Response(StepList({"steps": found}).data)


class Forks(APIView):
    """The door by which programs start a run in the middle of another one."""

    @extend_schema(
        request=ForkBody,
        responses={201: RunSummary, 200: OpenApiResponse(RunSummary, "The key has started this run before")},
        operation_id="fork",
        parameters=[OpenApiParameter(scope.KEY_HEADER, str, OpenApiParameter.HEADER, description=KEY)],
    )
    def post(self, request: Request, slug: str, run_id: str) -> Response:
        """Start a run with the state that this one had after a step, or before it, with fields edited."""
        run = scope.run(request, slug, run_id, operable=True)
        body = ForkBody(data=request.data)
        body.is_valid(raise_exception=True)
        new = forks.fork(run, actor=scope.caller(request), key=scope.key(request), **body.validated_data)
        headers = {"Location": f"/v1/operators/{slug}/runs/{new.id}"}
        return Response(RunSummary(new).data, status=201 if new.new else 200, headers=headers)
