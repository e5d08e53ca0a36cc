"""The shared context over REST: read, list, write with compare-and-set, delete, and what a value was."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from django.db.models.functions import Substr
from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operators.api import scope
from operators.api.sizes import MIB, UNKEEPABLE, given
from operators.errors import Misfit, RevisionMoved
from operators.models import ContextEntry, ContextRevision, Project
from operators.numbers import natural
from operators.services import context

#: The largest value, in bytes of JSON.
MOST_BYTES = MIB
LONGEST_KEY = ContextEntry._meta.get_field("key").max_length or 0
PAGE, LARGEST_PAGE = 100, 1000
_REVISION = re.compile(r'(?:W/)?"(\d{1,9})"')
T = TypeVar("T")

IF_MATCH = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description='The revision that was read, as in "3"; `*`: any'
)
IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match", str, OpenApiParameter.HEADER, description="PUT with `*`: only if there is nothing yet"
)
MOVED = OpenApiResponse(description="The value is at another revision, which the problem names")


class Moved(RevisionMoved):
    """The header names a revision that is not the latest."""

    status = 412


class PutBody(serializers.Serializer[Any]):
    """A value to write."""

    value = serializers.JSONField(allow_null=True, help_text=f"Any JSON value of at most {MOST_BYTES} bytes")


class KeyView(serializers.ModelSerializer[ContextEntry]):
    """A key in a list."""

    class Meta:
        model = ContextEntry
        fields: tuple[str, ...] = ("key", "revision", "author", "updated_at")
        read_only_fields = fields


class EntryView(KeyView):
    """A key with its value."""

    value = serializers.JSONField(allow_null=True)

    class Meta(KeyView.Meta):
        fields = ("bucket", *KeyView.Meta.fields, "value")
        read_only_fields = fields


class KeyList(serializers.Serializer[Any]):
    """Some of a bucket's keys; `next` is the `after` of the following page, or null."""

    keys = KeyView(many=True)
    next = serializers.CharField(allow_null=True)


class RevisionView(serializers.ModelSerializer[ContextRevision]):
    """What a value was."""

    value = serializers.JSONField(allow_null=True)

    class Meta:
        model = ContextRevision
        fields = ("revision", "value", "deleted", "author", "created_at")
        read_only_fields = fields


class History(serializers.Serializer[Any]):
    """What a value was, newest first; `next` is the `before` of the following page, or null."""

    history = RevisionView(many=True)
    next = serializers.IntegerField(allow_null=True)


class Bucket(APIView):
    """One bucket of a project's shared context."""

    @extend_schema(
        responses=KeyList,
        operation_id="list_context",
        parameters=[OpenApiParameter(name, kind) for name, kind in (("prefix", str), ("after", str), ("limit", int))],
    )
    def get(self, request: Request, bucket: str) -> Response:
        """List the keys that begin with `prefix` and follow the key `after`, in order."""
        rows = _rows(scope.project(request), bucket).filter(deleted=False)
        prefix, after = (_text(request.query_params.get(name, ""), name) for name in ("prefix", "after"))
        if prefix:
            # `startswith` does not mind case on SQLite.
            rows = rows.annotate(head=Substr("key", 1, len(prefix))).filter(head=prefix)
        if after:
            rows = rows.filter(key__gt=after)
        limit = _limit(request)
        keys = list(rows.order_by("key").defer("value")[: limit + 1])
        more = keys[limit - 1].key if len(keys) > limit else None
        return Response(KeyList({"keys": keys[:limit], "next": more}).data)


class Key(APIView):
    """One value of the shared context. Its key may hold slashes."""

    @extend_schema(
        responses={200: OpenApiResponse(EntryView, "With `history=1`: `history` (newest first) and `next`"), 304: None},
        operation_id="read_context",
        parameters=[OpenApiParameter(name, int) for name in ("history", "before", "limit")],
    )
    def get(self, request: Request, bucket: str, key: str) -> Response:
        """Read it, with its revision as ETag; with `history=1`, what it was."""
        entry = _rows(scope.project(request), bucket).filter(key=_key(key)).first()
        history = request.query_params.get("history", "") not in ("", "0")
        if entry is None or (entry.deleted and not history):
            raise Http404(f"The shared context has no {bucket}/{key}")
        if history:
            return Response(_history(request, entry))
        etag = {"ETag": f'"{entry.revision}"'}
        if request.headers.get("If-None-Match") == etag["ETag"]:
            return Response(status=304, headers=etag)
        return Response(EntryView(entry).data, headers=etag)

    @extend_schema(
        request=PutBody, responses={200: EntryView, 201: EntryView, 412: MOVED}, operation_id="write_context",
        parameters=[IF_MATCH, IF_NONE_MATCH],
    )  # fmt: skip
    def put(self, request: Request, bucket: str, key: str) -> Response:
        """Write it; with `If-Match` or `If-None-Match: *` only if nobody else has written since."""
        project = scope.project(request, operable=True)
        rows = _rows(project, bucket)
        value = given(request.data, "value", most=MOST_BYTES)
        seen = _seen(request, rows, _key(key))
        there = rows.filter(key=key, deleted=False).exists()
        entry = _guarded(lambda: context.put(project.pk, bucket, key, value, author=_author(request), revision=seen))
        return Response(EntryView(entry).data, status=200 if there else 201, headers={"ETag": f'"{entry.revision}"'})

    @extend_schema(responses={204: None, 412: MOVED}, operation_id="delete_context", parameters=[IF_MATCH])
    def delete(self, request: Request, bucket: str, key: str) -> Response:
        """Delete it; its history stays."""
        project = scope.project(request, operable=True)
        seen = _seen(request, _rows(project, bucket), _key(key))
        _guarded(lambda: context.delete(project.pk, bucket, key, author=_author(request), revision=seen))
        return Response(status=204)


def _rows(project: Project, bucket: str) -> Any:
    context.require_bucket(bucket)
    return ContextEntry.objects.filter(project=project, bucket=bucket)


def _history(request: Request, entry: ContextEntry) -> Any:
    rows = entry.history.order_by("-revision")
    before = natural(request.query_params.get("before", ""))
    if before is not None:
        rows = rows.filter(revision__lt=before)
    limit = _limit(request)
    found = list(rows[: limit + 1])
    more = found[limit - 1].revision if len(found) > limit else None
    return History({"history": found[:limit], "next": more}).data


def _seen(request: Request, rows: Any, key: str) -> int | None:
    """Return the revision that the caller has seen: 0 for none, None where the caller does not say."""
    if request.headers.get("If-None-Match", "").strip() == "*":
        return 0
    match = request.headers.get("If-Match", "").strip()
    if not match:
        return None
    if match == "*":
        if not rows.filter(key=key, deleted=False).exists():
            raise Moved(f"There is no {key!r} yet, and If-Match: * asks for one", revision=0)
        return None
    found = _REVISION.fullmatch(match)
    if found is None:
        message = 'takes one revision in quotes, such as "3", or *'
        raise Misfit(f"The header If-Match {message}", errors=[{"field": "If-Match", "message": message}])
    return int(found[1])


def _guarded(write: Callable[[], T]) -> T:
    try:
        return write()
    except RevisionMoved as error:
        raise Moved(error.message, **error.detail) from error


def _key(key: str) -> str:
    if len(key) > LONGEST_KEY:
        message = f"has {len(key)} characters; {LONGEST_KEY} are taken"
        raise Misfit(f"The key {message}", errors=[{"field": "key", "message": message}])
    return _text(key, "key")


def _text(text: str, field: str) -> str:
    if "\0" in text:
        raise Misfit(f"{field}: {UNKEEPABLE}", errors=[{"field": field, "message": UNKEEPABLE}])
    return text


def _limit(request: Request) -> int:
    number = natural(request.query_params.get("limit", ""))
    return min(max(PAGE if number is None else number, 1), LARGEST_PAGE)


def _author(request: Request) -> str:
    return scope.caller(request).get_username()
