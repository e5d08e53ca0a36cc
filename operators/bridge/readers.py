"""Makes durable readers for agents that live in accounts of their own, where OpenVibe itself is known by a key.

What agents ask is `openvibe.protocol.readers`; what they read lies in streams that are made here for each project.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
from django.conf import settings
from django.db import Error as DatabaseFault

from openvibe.bus import Bus, Message, matches
from openvibe.errors import BusError
from openvibe.protocol import envelope, readers
from openvibe.protocol.readers import Refused
from openvibe.protocol.streams import Stream
from operators.link import link
from operators.models import Project
from operators.threads import aside

logger = logging.getLogger(__name__)

#: Seconds between two looks for projects that are new, and after something went wrong.
LOOK_SECONDS = 2.0
RETRY_SECONDS = 0.5
#: How long the server may take to make a reader, in seconds.
PATIENCE = 4.0


async def serve_for_ever() -> None:
    """Serve, and begin anew whenever that broke off. An open server asks nobody for a key, and has one account."""
    while settings.OPENVIBE.nats_credentials:
        try:
            await _serve(await link.bus())
        except BusError as error:
            logger.info("Readers of agents: %s; trying again", error)
        except Exception:
            logger.exception("Readers of agents cannot be made")
        await asyncio.sleep(RETRY_SECONDS)


def streams() -> tuple[Stream, ...]:
    """Return the streams of all projects' agents; none on an open server, or before there are tables."""
    try:
        return tuple(stream for name in _projects() for stream in _of(name))
    except DatabaseFault:
        return ()


async def _serve(bus: Bus) -> None:
    end = await bus.serve(f"{readers.GATE}.>", partial(_answered, bus), queue=readers.GATE)
    made: set[str] = set()
    try:
        while await link.bus() is bus:
            await _make(bus, made)
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await end()


async def _make(bus: Bus, made: set[str]) -> None:
    """Make the streams of projects that have none yet. What cannot be made now closes the gate to nobody."""
    try:
        missing = set(await aside(_projects)) - made
    except DatabaseFault as error:
        logger.info("Whether there are new projects is not known yet: %s", error)
        return
    for project in missing:
        try:
            await bus.ensure(_of(project))
        except BusError as error:
            logger.info("The readers of %s find no streams yet: %s", project, error)
        else:
            made.add(project)


async def _answered(bus: Bus, message: Message) -> bytes:
    """Answer as JetStream would. The account that a message came in by stands in its subject."""
    _, project, act, *rest = message.subject.split(".")
    if act == "names":
        return envelope.dumps(readers.names(_names(_of(project), message.data)))
    try:
        return await _made(bus, project, *rest[:2], request=_read(message.data))
    except Refused as error:
        return envelope.dumps(readers.refusal(error))
    except BusError as error:
        logger.info("A reader of %s is not made: %s", project, error)
        return envelope.dumps(readers.refusal(Refused(503, readers.AWAY, str(error))))


async def _made(bus: Bus, project: str, stream: str, name: str, *, request: dict[str, Any]) -> bytes:
    known = [row for row in _of(project) if row.name == stream]
    if not known:
        raise Refused(404, readers.NO_STREAM, "stream not found")
    config = readers.checked(request, name=name)
    # A server that has lost everything has lost the stream as well.
    await bus.ensure(known)
    asked = {"stream_name": stream, "config": config, "action": str(request.get("action") or "")}
    place = f"{readers.SERVERS}.CONSUMER.CREATE.{stream}.{name}"
    return (await bus.request(place, orjson.dumps(asked), timeout=PATIENCE)).data


def _read(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refused(400, readers.INVALID, f"The request is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refused(400, readers.INVALID, "The request is no object")
    return found


def _names(known: Sequence[Stream], data: bytes) -> list[str]:
    """Return the names of streams that keep something of a subject, or all where none is named."""
    try:
        asked = _read(data).get("subject") if data else None
    except Refused:
        return []
    patterns = {row.name: [source.pattern for source in row.sources] for row in known}
    return [
        name
        for name, kept in patterns.items()
        if not isinstance(asked, str) or any(matches(one, asked) or matches(asked, one) for one in kept)
    ]


def _of(project: str) -> tuple[Stream, ...]:
    return readers.streams(project, replicas=settings.OPENVIBE.nats_replicas)


def _projects() -> list[str]:
    if not settings.OPENVIBE.nats_credentials:
        return []
    return Project.objects.names()
