"""What this server needs on NATS, and the connection over which it is compared and made."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from typing import Literal

from django.conf import settings
from nats.errors import Error as NATSError

from openvibe.bus.nats_access import Access, NatsClient
from openvibe.errors import SetupError
from openvibe.protocol.streams import Consumer, Stream, consumers, durable, streams
from operators.bridge import differences, readers
from operators.bridge.differences import Difference
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


def table() -> tuple[tuple[Stream, ...], tuple[Consumer, ...]]:
    """Return the streams and durable readers that this server needs."""
    chosen = settings.OPENVIBE
    rows = [
        dataclasses.replace(row, durable=durable(row, chosen.server), max_ack_pending=chosen.pull_inflight)
        for row in consumers(chosen.workflow_prefix)
    ]
    return streams(chosen.workflow_prefix, replicas=chosen.nats_replicas), tuple(rows)


async def settle(act: Act, more: Sequence[Stream] = ()) -> list[Difference]:
    """Compare the server with the table, and with `more` streams, or make it so.

    Raises one of `AWAY` if it does not answer, `SetupError` if what is needed to connect is not there.
    """
    client, options = NatsClient(), access().options()
    connecting = client.connect(**options, name="openvibe bus", allow_reconnect=False, error_cb=_silent)
    await asyncio.wait_for(connecting, CONNECT_SECONDS)
    try:
        work = differences.apply if act == "apply" else differences.compare
        kept, read = table()
        return await work(client.jetstream(), (*kept, *more), read)
    finally:
        await client.close()


async def furnish() -> None:
    """Make NATS as the table says, as soon as it answers, and tell what cannot be made so; nothing on other buses."""
    # There the readers make their streams, and nothing of them can differ.
    while settings.BUS == "nats":
        try:
            found = await settle("apply", await aside(readers.streams))
        except (*AWAY, SetupError) as error:
            logger.debug("NATS cannot be furnished yet: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        for item in found:
            logger.log(logging.WARNING if item.state == "fixed" else logging.INFO, "NATS: %s", item)
        return


async def _silent(error: Exception) -> None:
    """What goes wrong is raised where it is waited for."""
