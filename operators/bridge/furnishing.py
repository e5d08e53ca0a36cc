"""What this server needs on NATS, and the connection over which it is compared and made."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Literal

from django.conf import settings
from django.db import Error as DatabaseFault
from nats.errors import Error as NATSError

from openvibe import cancelling
from openvibe.bus.nats_access import Access, NatsClient
from openvibe.bus.protocol import HISTORY
from openvibe.errors import SetupError
from openvibe.protocol import readers as agents
from openvibe.protocol import streams as standard
from openvibe.protocol.streams import Bucket, Consumer, Stream, durable
from operators.bridge import differences, readers
from operators.bridge.differences import Difference, Table
from operators.models import Project
from operators.threads import aside

logger = logging.getLogger(__name__)

Act = Literal["check", "apply"]
#: What a server that does not answer, or refuses, is told by.
AWAY = (NATSError, OSError, TimeoutError)
CONNECT_SECONDS = 5.0
RETRY_SECONDS = 0.5


def access() -> Access:
    """Return how this server gets into NATS."""
    chosen = settings.OPENVIBE
    return Access(settings.NATS_URL, chosen.nats_credentials, chosen.nats_certificates)


def streams() -> tuple[Stream, ...]:
    """Return the streams that this server needs in any case."""
    return standard.streams(settings.OPENVIBE.workflow_prefix, replicas=settings.OPENVIBE.nats_replicas)


def consumers() -> tuple[Consumer, ...]:
    """Return the durable readers of this server's bridge."""
    chosen = settings.OPENVIBE
    return tuple(
        dataclasses.replace(row, durable=durable(row, chosen.server), max_ack_pending=chosen.pull_inflight)
        for row in standard.consumers(chosen.workflow_prefix)
    )


def table() -> Table:
    """Return all that this server needs, as far as the database knows its projects."""
    replicas = settings.OPENVIBE.nats_replicas
    names = [name for project in _projects() for name in (*agents.buckets(project), agents.registry(project))]
    buckets = [Bucket(name, HISTORY, replicas) for name in names]
    return Table((*streams(), *readers.streams()), consumers(), buckets)


async def settle(act: Act, needed: Table, *, shared: bool = False) -> list[Difference]:
    """Compare the server with what is needed, or make it so, perhaps as one that is `shared` with other servers.

    Raises one of `AWAY` if it does not answer, `SetupError` if what is needed to connect is not there.
    """
    client, options = NatsClient(), access().options()
    connecting = client.connect(**options, name="openvibe bus", allow_reconnect=False, error_cb=_silent)
    await cancelling.within(CONNECT_SECONDS, connecting)
    try:
        if act == "apply":
            return await differences.apply(client.jetstream(), needed, shared=shared)
        return await differences.compare(client.jetstream(), needed)
    finally:
        await client.close()


async def furnish() -> None:
    """Make NATS as the table says, as soon as it answers, and tell what cannot be made so; nothing on other buses.

    Servers of other settings or versions may keep more in the same streams. Only who asks for it takes that away.
    """
    # There the readers make their streams, and nothing of them can differ.
    while settings.BUS == "nats":
        try:
            found = await settle("apply", await aside(table), shared=True)
        except (*AWAY, SetupError) as error:
            logger.debug("NATS cannot be furnished yet: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        for item in found:
            logger.log(logging.WARNING if item.state == "fixed" else logging.INFO, "NATS: %s", item)
        return


def _projects() -> list[str]:
    try:
        return Project.objects.names()
    except DatabaseFault:
        # Before there are tables.
        return []


async def _silent(error: Exception) -> None:
    """What goes wrong is raised where it is waited for."""
