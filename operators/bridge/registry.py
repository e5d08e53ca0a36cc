"""The registry: this server says what it offers, in NATS KV and by heartbeats, and hears what the others say.

The bucket `registry` holds one entry a server under `servers/<name>`, and one an operator under its id, which names the
server that serves it. Each project has a bucket, heartbeats and words of health of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import orjson
from django.utils import timezone

from openvibe.bus import Bus
from openvibe.errors import BusError
from openvibe.protocol import envelope, headers, requests, sessions, tenancy
from operators.link import link
from operators.models.server import BEAT_SECONDS
from operators.services import servers
from operators.threads import aside

logger = logging.getLogger(__name__)

BUCKET = "registry"
SERVERS = "servers/"
RETRY_SECONDS = 2.0


async def beat_for_ever() -> None:
    """Say so every few seconds."""
    while True:
        pause = BEAT_SECONDS
        try:
            entries = await aside(servers.own)
            for project, entry in entries.items():
                await aside(servers.heard, project, [entry])
            bus = await link.bus()
            # What is wrong in the bucket of one project silences this server in no other.
            for error in [await _beat(bus, project, entry) for project, entry in entries.items()]:
                if error is not None:
                    raise error
        except BusError as error:
            logger.info("The registry: %s; trying again", error)
            pause = RETRY_SECONDS
        except Exception:
            logger.exception("The registry could not be kept")
        await asyncio.sleep(pause)


async def _beat(bus: Bus, project: str, entry: Mapping[str, Any]) -> Exception | None:
    """Tell a project and hear what others told it; return what went wrong."""
    try:
        await tell(bus, project, entry)
        await aside(servers.heard, project, await told(bus, project))
    except Exception as error:
        if not bus.connected:
            raise
        return error
    return None


async def tell(bus: Bus, project: str, entry: Mapping[str, Any]) -> None:
    """Say what this server offers a project."""
    bucket = tenancy.bucket(project, BUCKET)
    await bus.put_kv(bucket, SERVERS + entry["server"], envelope.dumps(entry))
    for operator in entry["operators"]:
        body = envelope.dumps({**entry, "operator": operator, "capabilities": entry["capabilities"][operator]})
        await bus.put_kv(bucket, operator, body)
        await bus.publish(requests.heartbeat(project, operator), body)
    payload = {"agent_id": f"{headers.SENDER}:{entry['server']}", "status": "ok", "interval_seconds": BEAT_SECONDS}
    told = sessions.message(sessions.HEALTH, payload, id=uuid4().hex, run_id=sessions.SYSTEM, now=timezone.now())
    subject = tenancy.outward(project, sessions.HEALTH)
    await bus.publish(subject, envelope.dumps(told), headers={"CG-Sender": headers.SENDER})


async def told(bus: Bus, project: str) -> list[dict[str, Any]]:
    """Return what servers said to a project."""
    bucket = tenancy.bucket(project, BUCKET)
    found = [await bus.get_kv(bucket, key) for key in await bus.keys_kv(bucket, SERVERS)]
    return [entry for value in found if value is not None and (entry := _read(value))]


def _read(value: bytes) -> dict[str, Any]:
    try:
        entry = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    return entry if isinstance(entry, dict) else {}
