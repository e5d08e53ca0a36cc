"""Tells others what no recorded event tells them; kept in the database until the bus has taken it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

from django.db import transaction
from django.utils import timezone

from openvibe.protocol import sessions, tenancy
from operators.models import Notice, Run
from operators.services import doorbell, outgoing

#: How long a notice is kept after it was sent.
KEPT = timedelta(days=1)


def write(
    type: str, payload: Mapping[str, Any], *, project_id: str, session_id: str, id: str, run: Run | None = None
) -> None:
    """Write a notice into a session's events, once for each `id`; part of the caller's transaction."""
    body = sessions.message(type, payload, id=id, run_id=session_id, now=timezone.now())
    put(tenancy.outward(project_id, sessions.subject(session_id, "events")), type, body, id=id, run=run)


def put(
    subject: str,
    type: str,
    body: Mapping[str, Any],
    *,
    id: str,
    run: Run | None = None,
    traceparent: str = "",
    depth: int = 0,
    passed_on: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a notice for whoever hears a subject, once for each `id`; part of the caller's transaction.

    One about a run goes out in the run's trace and depth, with what was passed on to it, else with those given.
    """
    fields: dict[str, Any] = {
        "subject": subject,
        "type": type,
        "run": run,
        "body": dict(body),
        "written_at": timezone.now(),
    }
    fields |= {"traceparent": traceparent, "depth": depth, "passed_on": dict(passed_on)}
    notice, new = Notice.objects.get_or_create(message_id=id, defaults=fields)
    if new:
        transaction.on_commit(partial(doorbell.notify, str(notice.pk)))


def send(notice_id: int) -> bool:
    """Hand a notice to the bus, which keeps a repeated one once; False if it did not take it."""
    notice = Notice.objects.select_related("run").filter(pk=notice_id, sent_at=None).first()
    if notice is None:
        return True
    origin = notice.run or notice
    sent = outgoing.store(
        notice.subject, notice.body, notice.type,
        traceparent=origin.traceparent, depth=origin.depth, passed_on=origin.passed_on,
    )  # fmt: skip
    if sent:
        Notice.objects.filter(pk=notice_id).update(sent_at=timezone.now())
    return sent


def forget() -> None:
    """Forget what was sent long ago."""
    Notice.objects.filter(sent_at__lt=timezone.now() - KEPT).delete()
