"""Events, and the channels that number them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson
from django.db import models

from operators.models.jsonfield import JSONField
from operators.models.project import Actor, Project
from operators.models.run import Run


class Channel(models.Model):
    """A channel that no run numbers, such as `public`: its counter, raised by its announcer only."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="channels")
    name = models.CharField(max_length=80)
    last_seq = models.PositiveBigIntegerField(default=0)
    announced_seq = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="one_channel_per_name")]

    def __str__(self) -> str:
        return f"{self.project_id}/{self.name}"


class EventQuerySet(models.QuerySet["Event"]):
    """Events of one channel, in order."""

    def visible_to(self, user: Actor) -> EventQuerySet:
        """Those of the user's projects."""
        return self.filter(project__in=Project.objects.visible_to(user))

    def after(self, project_id: str, channel: str, seq: int) -> EventQuerySet:
        """Those of a channel that follow number `seq`."""
        return self.filter(project_id=project_id, channel=channel, seq__gt=seq).order_by("seq")


class Event(models.Model):
    """One fact of a channel. Immutable; numbered by `seq` without holes.

    `message_id` names what the fact came from (a foreign message, or the run's event that a public one repeats), so
    that the same thing told twice is one event.
    """

    # Nobody deletes a project or a run but through Django, which deletes its events first: a check of both for every
    # event would lock the project's row for each step of each run.
    project = models.ForeignKey(
        Project, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    channel = models.CharField(max_length=80)
    seq = models.PositiveBigIntegerField()
    kind = models.CharField(max_length=80)
    run = models.ForeignKey(
        Run, on_delete=models.CASCADE, null=True, blank=True, related_name="events", db_index=False, db_constraint=False
    )
    node = models.CharField(max_length=80, blank=True)
    step_id = models.CharField(max_length=64, blank=True)
    actor = models.CharField(max_length=200, blank=True)
    data = JSONField(default=dict)
    message_id = models.CharField(max_length=200, null=True, blank=True)
    created_at = models.DateTimeField()

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ["project", "channel", "seq"]
        constraints = [
            models.UniqueConstraint(fields=["project", "channel", "seq"], name="one_event_per_seq"),
            models.UniqueConstraint(
                fields=["project", "channel", "message_id"],
                name="one_event_per_message",
                condition=models.Q(message_id__isnull=False),
            ),
        ]
        indexes = [models.Index(fields=["run"], name="event_of_run")]

    def __str__(self) -> str:
        return f"{self.channel}#{self.seq} {self.kind}"

    def wire(self) -> dict[str, Any]:
        """The event as others read it: on the bus, in SSE and over REST."""
        return _wire(self, self.data)


@dataclass(slots=True)
class EventRow:
    """An event on its way into the database; a model's instance would cost more than its writing.

    `data` is JSON text where that was made already, as for what agents say by the hundred.
    """

    project_id: str
    channel: str
    kind: str
    run_id: str | None
    data: dict[str, Any] | bytes
    created_at: datetime
    seq: int = 0
    node: str = ""
    step_id: str = ""
    actor: str = ""
    message_id: str | None = None

    @property
    def text(self) -> bytes:
        """`data` as JSON text."""
        return self.data if isinstance(self.data, bytes) else orjson.dumps(self.data)

    def wire(self) -> dict[str, Any]:
        """See `Event.wire`; text is put in as it is, which only `orjson` can read."""
        return _wire(self, orjson.Fragment(self.data) if isinstance(self.data, bytes) else self.data)


class Told(Protocol):
    """What announcing an event needs of it."""

    project_id: str
    channel: str
    seq: int
    kind: str
    run_id: Any
    node: str
    step_id: str
    actor: str
    data: Any
    message_id: Any
    created_at: datetime

    def wire(self) -> dict[str, Any]:
        """See `Event.wire`."""
        ...


def _wire(event: Event | EventRow, data: Any) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "type": event.kind,
        "channel": event.channel,
        "run_id": event.run_id or "",
        "node": event.node,
        "step_id": event.step_id,
        "actor": event.actor,
        "data": data,
        "timestamp": event.created_at,
    }
