"""The shared context and NATS KV, alike: what we write goes there, and what others write there comes in.

The buckets are `context-companies` and so on, one JSON value a key; each project beside `default` has its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import orjson

from openvibe.bus import Bus, Entry, Message, Unsubscribe
from openvibe.errors import BusError
from openvibe.protocol import keys, nesting, tenancy
from operators.bridge import letters
from operators.link import link
from operators.models import ContextEntry, Project
from operators.services import context, mirroring
from operators.threads import aside

logger = logging.getLogger(__name__)

#: Seconds between two looks for what is to be handed over, for projects that came or went, and between two comparisons
#: of all keys.
PAUSE = 0.5
WATCH_SECONDS = 2.0
COMPARE_SECONDS = 60.0
LONGEST_KEY = ContextEntry._meta.get_field("key").max_length or 0


class Place(NamedTuple):
    """A bucket of a project's shared context."""

    project: str
    bucket: str

    @property
    def mirror(self) -> str:
        """The bucket of NATS KV that is like it."""
        return tenancy.context(*self)


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
    watches: dict[Place, Unsubscribe] = {}
    watched_at = compared_at = -math.inf
    try:
        while await link.bus() is bus:
            if bus.connected:
                if time.monotonic() - watched_at > WATCH_SECONDS:
                    await _watch(bus, watches)
                    watched_at = time.monotonic()
                if time.monotonic() - compared_at > COMPARE_SECONDS:
                    await _compare(bus, list(watches))
                    compared_at = time.monotonic()
                await _push(bus)
            await asyncio.sleep(PAUSE)
    finally:
        await asyncio.gather(*[end() for end in watches.values()], return_exceptions=True)


async def _push(bus: Bus) -> None:
    """Hand over what is behind. What cannot be handed over is tried again, and nobody has to follow anew for it."""
    try:
        await mirroring.push_behind(bus)
    except BusError as error:
        logger.info("The shared context: %s; trying again", error)


async def _watch(bus: Bus, watches: dict[Place, Unsubscribe]) -> None:
    """Follow the buckets of every project, also when projects come or go."""
    wanted = [Place(project, bucket) for project in await aside(Project.objects.names) for bucket in keys.BUCKETS]
    for place in watches.keys() - set(wanted):
        await watches.pop(place)()
    for place in wanted:
        if place not in watches:
            try:
                watches[place] = await bus.watch_kv(place.mirror, partial(_heard, bus, place))
            except BusError as error:
                logger.info("%s cannot be followed yet: %s", place.mirror, error)


async def _compare(bus: Bus, places: Sequence[Place]) -> None:
    """Find what NATS KV has lost, and deletions that nobody heard. A bucket that cannot be read hinders no other."""
    for place in places:
        try:
            await _compared(bus, place)
        except BusError as error:
            logger.info("%s cannot be compared: %s", place.mirror, error)


async def _compared(bus: Bus, place: Place) -> None:
    present = set(await bus.keys_kv(place.mirror))
    for entry in await aside(mirroring.lost, *place, present):
        last = await bus.entry_kv(place.mirror, entry.key)
        if last is None:
            await aside(mirroring.again, entry)
        elif last.deleted:
            await _heard(bus, place, last)


async def _heard(bus: Bus, place: Place, entry: Entry) -> None:
    # A connection that is closed for good has a successor, whose watcher hears everything anew.
    while not bus.closed:
        try:
            return await _take(bus, place, entry)
        except (*letters.AWAY, BusError) as error:
            # What a watcher drops does not come again.
            logger.info("%s/%s waits for the database or for NATS: %s", place.mirror, entry.key, error)
            await asyncio.sleep(PAUSE)


async def _take(bus: Bus, place: Place, entry: Entry) -> None:
    try:
        if await aside(_seen, place, entry.key) > entry.revision:
            # An older revision, unless somebody has made the bucket anew.
            last = await bus.entry_kv(place.mirror, entry.key)
            if last is None or last.revision != entry.revision:
                return
        await aside(_written, place, entry)
    except (*letters.AWAY, BusError):
        raise
    except Exception as error:
        message = Message(f"$KV.{place.mirror}.{keys.encoded(entry.key)}", entry.value)
        await aside(letters.bury, message, f"{type(error).__name__}: {error}", project=place.project)


def _seen(place: Place, key: str) -> int:
    rows = ContextEntry.objects.filter(project_id=place.project, bucket=place.bucket, key=key)
    return rows.values_list("kv_revision", flat=True).first() or 0


def _written(place: Place, entry: Entry) -> None:
    if len(entry.key) > LONGEST_KEY or "\0" in entry.key:
        raise ValueError(f"The key has {len(entry.key)} characters; {LONGEST_KEY} are taken, without NUL")
    value = None if entry.deleted else orjson.loads(entry.value)
    if nesting.deep(value):
        raise ValueError(f"The value {nesting.FAULT}")
    context.take(*place, entry.key, value, kv_revision=entry.revision, deleted=entry.deleted)
