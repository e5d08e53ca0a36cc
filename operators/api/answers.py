"""The door by which agents and tools answer the waits that ask them for something."""

from __future__ import annotations

from typing import Any, NoReturn

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operators.api import scope
from operators.api.serializers import WaitView
from operators.api.sizes import MIB, keepable
from operators.errors import AlreadyDecided, DomainError, Misfit, NotWaiting
from operators.models import Run, Wait
from operators.services import late, waits

#: The largest result, in bytes of JSON.
MOST_BYTES = MIB
LONGEST_ERROR = 10_000
ANSWERABLE = (Wait.Kind.WORK, Wait.Kind.TOOL)


class ResultBody(serializers.Serializer[Any]):
    """What came of the work: a result, or the reason why there is none."""

    result = serializers.JSONField(required=False, allow_null=True)
    error = serializers.CharField(required=False, max_length=LONGEST_ERROR)


class AnsweredWait(WaitView):
    """A wait with what came of it."""

    result = serializers.JSONField(allow_null=True)

    class Meta(WaitView.Meta):
        fields: tuple[str, ...] = (*WaitView.Meta.fields, "result", "error")
        read_only_fields: tuple[str, ...] = fields


class Result(APIView):
    """What somebody outside has made of a wait's question."""

    @extend_schema(request=ResultBody, responses=AnsweredWait, operation_id="answer_wait")
    def post(self, request: Request, slug: str, run_id: str, wait_id: str) -> Response:
        """Answer a wait of kind `work` or `tool`, and wake its run. The same answer again changes nothing."""
        run = scope.run(request, slug, run_id, operable=True)
        wait = Wait.objects.select_related("run").filter(run=run, id=wait_id).first()
        if wait is None:
            raise Http404(f"Run {run_id} has no wait {wait_id!r}")
        _require_answerable(wait, slug)
        result, error = _answer(request)
        by = scope.caller(request).get_username()
        if not wait.pending or not waits.settle(wait, result=result, error=error, by=by):
            _require_same(wait, run, result, error, by=by)
        return Response(AnsweredWait(wait).data)


def _answer(request: Request) -> tuple[Any, str]:
    body: Any = request.data
    given = [name for name in ("result", "error") if name in body]
    if len(given) != 1:
        message = "send either result or error"
        raise Misfit(f"The body has {' and '.join(given) or 'neither'}; {message}", errors=[
            {"field": "result", "message": message}])  # fmt: skip
    if "error" in given:
        reader = ResultBody(data={"error": body["error"]})
        reader.is_valid(raise_exception=True)
        return None, str(keepable(reader.validated_data["error"], field="error"))
    return keepable(body["result"], field="result", most=MOST_BYTES), ""


def _require_answerable(wait: Wait, slug: str) -> None:
    if wait.kind == Wait.Kind.APPROVAL:
        place = f"/v1/operators/{slug}/runs/{wait.run_id}/resume"
        raise NotWaiting(f"{wait.id} is a gate: a person decides it, by POST {place}", kind=wait.kind, resume=place)
    if wait.kind not in ANSWERABLE:
        raise NotWaiting(f"{wait.id} is a {wait.kind}: nobody outside answers it", kind=wait.kind)


def _require_same(wait: Wait, run: Run, result: Any, error: str, *, by: str) -> None:
    wait.refresh_from_db()
    if wait.status == Wait.Status.RESOLVED and (wait.result, wait.error) == (result, error):
        return
    try:
        _refuse(wait, run)
    except DomainError as refused:
        late.tell(wait, by=by, reason=refused.code)
        raise


def _refuse(wait: Wait, run: Run) -> NoReturn:
    if wait.status == Wait.Status.CANCELLED:
        run.refresh_from_db(fields=["status", "ended_at"])
        others = wait.counted and wait.closed_at != run.ended_at
        why = "enough others have answered" if others else f"its run is {run.status}"
        raise NotWaiting(f"{wait.id} is closed: {why}", run_status=run.status)
    what = "has expired" if wait.status == Wait.Status.EXPIRED else f"was answered by {wait.decider or 'somebody'}"
    raise AlreadyDecided(
        f"{wait.id} {what} at {wait.closed_at:%Y-%m-%d %H:%M:%S} UTC, with something else",
        decided_by=wait.decider,
        decided_at=wait.closed_at,
        wait_id=wait.id,
    )
