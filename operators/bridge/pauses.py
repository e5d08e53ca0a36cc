"""Tells when an administrator keeps NATS from handing a stream's messages out (`nats consumer pause`), and when not."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from openvibe.bus import Message, Pull
from openvibe.protocol import subjects
from openvibe.protocol.streams import Consumer
from operators.models import Event, Project
from operators.models.event import EventRow
from operators.models.project import DEFAULT
from operators.services import announcements, channels, presence
from operators.threads import aside

logger = logging.getLogger(__name__)

PAUSED, RESUMED = "stream.paused", "stream.resumed"
#: Among how many of the channel's last events is looked for what was told before; it is locked meanwhile.
RECENT = 10_000


class Pauses:
    """What is known of one durable reader; nothing at first, since it may have been paused while nobody lived."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._until: str | None = None

    async def look(self, pull: Pull, messages: Sequence[Message]) -> bool:
        """Tell what is new after a fetch, and return whether the reader is paused; where messages come it is not."""
        until = "" if messages else await pull.paused_until()
        if until != self._until:
            self._log(until)
            (presence.paused.add if until else presence.paused.discard)(self._consumer.stream)
            await aside(_tell, self._consumer, until)
            self._until = until
        return bool(until)

    def _log(self, until: str) -> None:
        stream, durable = self._consumer.stream, self._consumer.durable
        if until:
            logger.warning(
                "Stream %s is not read before %s: an administrator has paused its consumer %s; "
                "`nats consumer resume %s %s` ends that",
                *(stream, until, durable, stream, durable),
            )
        elif self._until:
            logger.warning("Stream %s is read again: its consumer %s is paused no more", stream, durable)


@transaction.atomic
def _tell(consumer: Consumer, until: str) -> None:
    """Write it on the general channel of `default`, once however many bridges see it."""
    if not Project.objects.filter(id=DEFAULT).exists():
        return
    kind = PAUSED if until else RESUMED
    channel = channels.locked(DEFAULT)
    told = Event.objects.filter(
        project_id=DEFAULT, channel=subjects.PUBLIC, kind__in=(PAUSED, RESUMED), data__consumer=consumer.durable,
        data__stream=consumer.stream, seq__gt=channel.last_seq - RECENT,
    )  # fmt: skip
    last = told.order_by("-seq").values_list("kind", flat=True).first() or RESUMED
    if kind == last:
        return
    event = EventRow(
        run_id=None,
        project_id=DEFAULT,
        channel=subjects.PUBLIC,
        kind=kind,
        data={"stream": consumer.stream, "consumer": consumer.durable, **({"until": until} if until else {})},
        created_at=timezone.now(),
    )
    written = channels.append(channel, [event])
    transaction.on_commit(lambda: announcements.tell(written))
