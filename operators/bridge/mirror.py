"""The shared context and NATS KV, alike: what we write goes there, and what others write there comes in.

The buckets are `context-companies` and so on, one JSON value a key; they belong to the project `default`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

import orjson

from openvibe.bus import Bus, Entry, Message
from openvibe.ctx import BUCKETS
from openvibe.errors import BusError
from openvibe.protocol import keys
from operators.bridge import letters
from operators.link import link
from operators.models import ContextEntry
from operators.models.project import DEFAULT
from operators.services import context, mirroring
from operators.threads import aside

logger = logging.getLogger(__name__)

#: Seconds between two looks for what is to be handed over, and between two comparisons of all keys.
PAUSE = 0.5
COMPARE_SECONDS = 60.0
LONGEST_KEY = ContextEntry._meta.get_field("key").max_length or 0


async def mirror_for_ever() -> None:
    """Mirror, and begin anew whenever that broke off."""
    while True:
        try:
            await _mirror(await link.bus())
        except BusError as error:
            logger.info("The shared context: %s; trying again", error)
        except Exception:
            logger.exception("The shared context could not be mirrored")
        await asyncio.sleep(PAUSE)


async def _mirror(bus: Bus) -> None:
    watches = []
    try:
        for bucket in BUCKETS:
            watches.append(await bus.watch_kv(keys.CONTEXT + bucket, partial(_heard, bus, bucket)))
        compared_at = 0.0
        while await link.bus() is bus:
            if bus.connected:
                if time.monotonic() - compared_at > COMPARE_SECONDS:
                    await _compare(bus)
                    compared_at = time.monotonic()
                await mirroring.push_behind(bus)
            await asyncio.sleep(PAUSE)
    finally:
        await asyncio.gather(*[end() for end in watches], return_exceptions=True)


async def _compare(bus: Bus) -> None:
    """Find what NATS KV has lost, and the deletions that nobody heard."""
    for bucket in BUCKETS:
        present = set(await bus.keys_kv(keys.CONTEXT + bucket))
        for entry in await aside(mirroring.lost, bucket, present):
            last = await bus.entry_kv(keys.CONTEXT + bucket, entry.key)
            if last is None:
                await aside(mirroring.again, entry)
            elif last.deleted:
                await _heard(bus, bucket, last)


async def _heard(bus: Bus, bucket: str, entry: Entry) -> None:
    while True:
        try:
            return await _take(bus, bucket, entry)
        except letters.AWAY as error:
            # What a watcher drops does not come again.
            logger.info("%s/%s waits for the database: %s", bucket, entry.key, error)
            await asyncio.sleep(PAUSE)


async def _take(bus: Bus, bucket: str, entry: Entry) -> None:
    if await aside(_seen, bucket, entry.key) > entry.revision:
        # An older revision, unless somebody has made the bucket anew.
        last = await bus.entry_kv(keys.CONTEXT + bucket, entry.key)
        if last is None or last.revision != entry.revision:
            return
    try:
        await aside(_written, bucket, entry)
    except letters.AWAY:
        raise
    except Exception as error:
        name = f"$KV.{keys.CONTEXT}{bucket}.{keys.encoded(entry.key)}"
        await aside(letters.bury, Message(name, entry.value), f"{type(error).__name__}: {error}")


def _seen(bucket: str, key: str) -> int:
    rows = ContextEntry.objects.filter(project_id=DEFAULT, bucket=bucket, key=key)
    return rows.values_list("kv_revision", flat=True).first() or 0


def _written(bucket: str, entry: Entry) -> None:
    if len(entry.key) > LONGEST_KEY or "\0" in entry.key:
        raise ValueError(f"The key has {len(entry.key)} characters; {LONGEST_KEY} are taken, without NUL")
    value = None if entry.deleted else orjson.loads(entry.value)
    context.take(DEFAULT, bucket, entry.key, value, kv_revision=entry.revision, deleted=entry.deleted)
