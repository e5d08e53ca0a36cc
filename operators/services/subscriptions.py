"""Tells other systems of events over HTTP: at least once each, in no certain order, until they have taken it.

What is told is derived from what the general channel holds already, by a number that each subscription keeps, and from
events that were emitted; so no step waits for it. The clock finds what is new and what is due, workers post it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import secrets
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db import connection, transaction
from django.db.models import F, OuterRef, Subquery
from django.utils import timezone

from openvibe.ids import random_text
from openvibe.protocol import envelope, headers, subjects
from operators import seals
from operators.errors import Misfit
from operators.models import Channel, Delivery, Emission, Event, Operator, Project, Run, Subscription
from operators.models.event import EventRow
from operators.services import announcements, cards, channels, doorbell, endpoints, kinds
from operators.services.masking import masked

logger = logging.getLogger(__name__)

EMITTED = "event.emitted"
DISABLED = "subscription.disabled"
#: Events that one look derives for a subscription.
BATCH = 200
#: How long a try may take before another one begins, and the pause after the first failed one; it doubles.
CLAIM = timedelta(seconds=60)
PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(hours=1)
#: Tries of one delivery, and failed tries in a row after which a subscription is disabled.
MOST_ATTEMPTS = 12
MOST_FAILURES = 100
#: Deliveries that are tried at a time for one subscription, and for one that failed lately.
AT_ONCE, AT_ONCE_FAILING = 20, 2
#: How long a delivery is kept after it was taken or given up.
KEPT = timedelta(days=7)
SECRET_PREFIX = "whsec_"  # noqa: S105  # how the field marks such secrets
MOST = 100


def subscribe(
    project: Project, *, url: str, wanted: list[str], operator: Operator | None, secret: str, actor: AbstractUser
) -> Subscription:
    """Let an address be told of what happens from now on.

    Raises:
        Misfit: the address or a kind does not fit, or the project has too many subscriptions.
    """
    if Subscription.objects.filter(project=project).count() >= MOST:
        raise Misfit(f"The project has {MOST} subscriptions already; delete one first")
    return Subscription.objects.create(
        id=f"sub_{random_text(16)}",
        project=project,
        url=endpoints.checked(url),
        kinds=kinds.patterns(wanted),
        operator=operator,
        sealed_secret=seals.sealed(secret or SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()),
        created_by_id=actor.pk,
        created_at=timezone.now(),
        cursor=_newest(project.pk),
    )


def enable(found: Subscription) -> None:
    """Switch a subscription on again: it is told of what happens from now on. One that is on stays as it is."""
    off = Subscription.objects.filter(pk=found.pk, enabled=False)
    off.update(enabled=True, disabled_reason="", failures=0, cursor=_newest(found.project_id))


def disable(found: Subscription, *, actor: AbstractUser) -> None:
    """Switch a subscription off; what is on its way waits until it is on again."""
    told = f"{actor.get_username()} switched it off"
    Subscription.objects.filter(pk=found.pk, enabled=True).update(enabled=False, disabled_reason=told)


def _newest(project_id: str) -> int:
    rows = Channel.objects.filter(project_id=project_id, name=subjects.PUBLIC)
    return rows.values_list("last_seq", flat=True).first() or 0


def behind(most: int) -> list[str]:
    """Return the subscriptions that have not looked at all of their general channel."""
    channel = Channel.objects.filter(project=OuterRef("project"), name=subjects.PUBLIC)
    rows = Subscription.objects.filter(enabled=True).annotate(newest=Subquery(channel.values("last_seq")[:1]))
    return list(rows.filter(newest__gt=F("cursor")).order_by("id").values_list("id", flat=True)[:most])


@transaction.atomic
def derive(subscription_id: str) -> None:
    """Write down what a subscription is to be told of the next events of its general channel."""
    found = Subscription.objects.select_for_update().filter(id=subscription_id, enabled=True).first()
    if found is None:
        return
    channel = Channel.objects.get(project_id=found.project_id, name=subjects.PUBLIC)
    events = list(Event.objects.after(found.project_id, subjects.PUBLIC, found.cursor).select_related("run")[:BATCH])
    wanted = [event for event in events if _wants(found, event.kind, event.run.operator_id if event.run else None)]
    _write(found, [(f"public:{event.seq}", event.kind, event.wire()) for event in wanted])
    # Where nothing follows, what followed has been taken out of the database.
    found.cursor = events[-1].seq if events else channel.last_seq
    Subscription.objects.filter(pk=found.pk).update(cursor=found.cursor)
    found.deliveries.exclude(status=Delivery.Status.PENDING).filter(created_at__lt=timezone.now() - KEPT).delete()


def emitted(emission: Emission) -> None:
    """Write down who is to be told of an event that an operator has emitted."""
    told = {"id": emission.id, "name": emission.name, "payload": emission.payload}
    for found in Subscription.objects.filter(project_id=emission.project_id, enabled=True):
        if _wants(found, EMITTED, emission.run.operator_id):
            data = cards.stowed(emission.project_id, masked(told))
            wire = {
                "type": EMITTED, "channel": subjects.thread(emission.run_id), "run_id": emission.run_id,
                "actor": emission.name.partition(".")[0], "data": data, "timestamp": emission.emitted_at,
            }  # fmt: skip
            _write(found, [(f"emission:{emission.id}", EMITTED, wire)])


def due(now: datetime, most: int) -> list[int]:
    """Return the deliveries whose time has come, a few for each subscription."""
    rows = Delivery.objects.filter(status=Delivery.Status.PENDING, next_at__lte=now, subscription__enabled=True)
    found = rows.order_by("next_at", "id").values_list("id", "subscription_id", "subscription__failures")
    chosen: list[int] = []
    taken: Counter[str] = Counter()
    for delivery_id, subscription_id, failures in found[: 5 * most]:
        if taken[subscription_id] < (AT_ONCE_FAILING if failures else AT_ONCE) and len(chosen) < most:
            taken[subscription_id] += 1
            chosen.append(delivery_id)
    return chosen


def send_out(delivery_id: int) -> None:
    """Have a delivery tried, unless somebody else has had that done."""
    now = timezone.now()
    waiting = Delivery.objects.filter(id=delivery_id, status=Delivery.Status.PENDING, next_at__lte=now)
    if waiting.update(next_at=now + CLAIM, attempts=F("attempts") + 1):
        doorbell.post(str(delivery_id))


def post(delivery_id: int) -> None:
    """Try a delivery, and write down what came of it."""
    rows = Delivery.objects.select_related("subscription").filter(status=Delivery.Status.PENDING)
    delivery = rows.filter(id=delivery_id, subscription__enabled=True).first()
    if delivery is None:
        return
    found = delivery.subscription
    body = envelope.dumps(delivery.body)
    try:
        stamps = signed(found.secret, id=delivery.body["id"], body=body, now=timezone.now())
    except seals.SealBroken as error:
        _failed(delivery, f"The secret cannot be read: {error}. Subscribe anew.", gone=False)
        return
    told = {"Content-Type": "application/json", "User-Agent": "OpenVibe", **_trace(delivery.body), **stamps}
    if connection.vendor != "sqlite" and not connection.in_atomic_block:
        # A pool gets its connection back while somebody else's server thinks.
        connection.close()
    try:
        endpoints.post(found.url, body, told)
    except endpoints.NotTaken as error:
        _failed(delivery, str(error)[:1000], gone=error.gone)
        return
    taken = {"status": Delivery.Status.DELIVERED, "delivered_at": timezone.now(), "error": ""}
    Delivery.objects.filter(id=delivery.pk, status=Delivery.Status.PENDING).update(**taken)
    Subscription.objects.filter(id=found.pk, failures__gt=0).update(failures=0)


def signed(secret: str, *, id: str, body: bytes, now: datetime) -> dict[str, str]:
    """Return the headers that say who posts, as Standard Webhooks (standardwebhooks.com) 1.0 has them.

    The signature is HMAC-SHA256 over `<id>.<seconds>.<body>`.
    """
    seconds = str(int(now.timestamp()))
    text = b".".join((id.encode(), seconds.encode(), body))
    digest = hmac.new(_key(secret), text, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": id, "webhook-timestamp": seconds, "webhook-signature": signature}


def _trace(told: Mapping[str, Any]) -> dict[str, str]:
    """Return the trace of the run that an event is of; without one each event has its own, the same at every try."""
    run = Run.objects.filter(id=told["data"].get("run_id") or "").only("traceparent", "passed_on").first()
    if run is None or not run.traceparent:
        return {"traceparent": headers.trace_of(told["id"])}
    state = {headers.TRACESTATE: run.tracestate} if run.tracestate else {}
    return {"traceparent": run.traceparent, **state}


def _key(secret: str) -> bytes:
    if secret.startswith(SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            logger.debug("A secret begins like a key and is a plain text")
    return secret.encode()


def _wants(found: Subscription, kind: str, operator_id: int | None) -> bool:
    return kinds.fits(kind, found.kinds) and found.operator_id in (None, operator_id)


def _write(found: Subscription, told: list[tuple[str, str, dict[str, Any]]]) -> None:
    now = timezone.now()
    rows = [
        Delivery(
            subscription=found,
            source=source,
            kind=kind,
            body={
                # The same for every try, so that who is told twice can know.
                "id": f"{found.pk}_{source.replace(':', '_')}",
                "type": kind,
                "timestamp": wire["timestamp"].isoformat(),
                "project": found.project_id,
                "subscription": found.pk,
                "data": {**wire, "timestamp": wire["timestamp"].isoformat()},
            },
            next_at=now,
            created_at=now,
        )
        for source, kind, wire in told
    ]
    Delivery.objects.bulk_create(rows, ignore_conflicts=True)


def _failed(delivery: Delivery, error: str, *, gone: bool) -> None:
    given_up = delivery.attempts >= MOST_ATTEMPTS
    pause = min(PAUSE * (1 << max(delivery.attempts - 1, 0)), LONGEST_PAUSE)
    status = Delivery.Status.FAILED if given_up else Delivery.Status.PENDING
    tried = Delivery.objects.filter(id=delivery.pk, status=Delivery.Status.PENDING, attempts=delivery.attempts)
    if not tried.update(status=status, error=error, next_at=timezone.now() + pause):
        return
    rows = Subscription.objects.filter(id=delivery.subscription_id, enabled=True)
    rows.update(failures=F("failures") + 1)
    if gone or rows.filter(failures__gte=MOST_FAILURES).exists():
        _disable(delivery.subscription, error)


@transaction.atomic
def _disable(found: Subscription, error: str) -> None:
    if not Subscription.objects.filter(id=found.pk, enabled=True).update(enabled=False, disabled_reason=error):
        return
    found.deliveries.filter(status=Delivery.Status.PENDING).update(status=Delivery.Status.FAILED, error=error)
    event = EventRow(
        run_id=None,
        project_id=found.project_id,
        channel=subjects.PUBLIC,
        kind=DISABLED,
        data={"subscription": found.pk, "reason": error},
        # It may be switched on again, and off once more.
        message_id=f"{found.pk}:disabled:{random_text(8)}",
        created_at=timezone.now(),
    )
    written = channels.append(channels.locked(found.project_id), [event])
    transaction.on_commit(lambda: announcements.tell(written))
