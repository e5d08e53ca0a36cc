"""Hands the shared context to NATS KV, where programs of others read it; each project has buckets of its own there.

The database is the truth. What NATS KV does not have yet is said by each value's row, so nothing is lost while the bus
is away.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import orjson
from django.db.models import F
from django.utils import timezone

from openvibe.bus import Bus, Entry
from openvibe.errors import BusError, RevisionConflict
from openvibe.protocol import keys, nesting, tenancy
from operators.link import link
from operators.models import ContextEntry
from operators.services import cards
from operators.threads import aside

logger = logging.getLogger(__name__)

#: How many values one look hands over.
MOST = 200
#: How long a caller waits for that, in seconds.
PATIENCE = 5.0
#: How long after its change a key that is missing counts as lost.
SETTLED = timedelta(seconds=10)
#: How often a value is written again because somebody else has written it in between.
TRIES = 5
#: The longest key, as NATS spells it.
LONGEST_NAME = 2000


def push() -> None:
    """Hand over what is behind, if the bus is there; the bridge hands over the rest."""
    if link.connected and behind(1):
        try:
            link.submit(_push()).result(PATIENCE)
        except (BusError, TimeoutError) as error:
            logger.info("The shared context is not mirrored yet: %s", error)


async def push_behind(bus: Bus) -> None:
    """Hand over what is behind; a value that cannot be handed over holds up no other one."""
    failed: BusError | None = None
    first = 0
    # What could not be handed over is behind at the next look, too, before what has never been tried.
    while entries := await aside(behind, MOST, first=first):
        left = 0
        for entry in entries:
            try:
                await aside(_mark, entry, await _put(bus, entry))
            except BusError as error:
                if not bus.connected:
                    raise
                failed, left = error, left + 1
        first += left
        if not left or len(entries) < MOST:
            break
    if failed is not None:
        raise failed


def behind(most: int, *, first: int = 0) -> list[ContextEntry]:
    """Return values that NATS KV does not have yet, the oldest first, without the `first` ones."""
    rows = ContextEntry.objects.filter(mirrored_revision__lt=F("revision"))
    return list(rows.order_by("updated_at", "pk")[first : first + most])


def hindrance(entry: ContextEntry) -> str:
    """Return why NATS KV never has a value as it is here, or an empty text."""
    if (length := len(keys.encoded(entry.key))) > LONGEST_NAME:
        return f"its key has {length:,} characters as NATS spells it, and {LONGEST_NAME:,} are mirrored"
    if nesting.deep(entry.value):
        return f"it {nesting.FAULT}"
    return ""


def lost(project_id: str, bucket: str, present: set[str]) -> list[ContextEntry]:
    """Return values that NATS KV had and whose keys are not among those that it has."""
    rows = ContextEntry.objects.present().filter(project_id=project_id, bucket=bucket, kv_revision__gt=0)
    # What was handed over this very moment may be missing in an older list.
    rows = rows.filter(mirrored_revision=F("revision"), updated_at__lt=timezone.now() - SETTLED)
    return [entry for entry in rows.defer("value") if entry.key not in present]


def again(entry: ContextEntry) -> None:
    """Let a value be handed over anew."""
    rows = ContextEntry.objects.filter(pk=entry.pk, kv_revision=entry.kv_revision)
    rows.update(mirrored_revision=0, kv_revision=0)


async def _push() -> None:
    await push_behind(await link.bus())


def _mark(entry: ContextEntry, kv_revision: int) -> None:
    # A value that was written again meanwhile stays behind.
    rows = ContextEntry.objects.filter(pk=entry.pk, revision=entry.revision)
    rows.update(mirrored_revision=entry.revision, kv_revision=kv_revision)


async def _put(bus: Bus, entry: ContextEntry) -> int:
    """Write a value, or its deletion, and return what NATS KV calls it."""
    if reason := hindrance(entry):
        logger.warning("%s is not mirrored to NATS KV: %s", entry, reason)
        return entry.kv_revision
    bucket, data = tenancy.context(entry.project_id, entry.bucket), orjson.dumps(entry.value)
    if len(data) > cards.VALUE_LIMIT:
        data = orjson.dumps(await aside(cards.keep, entry.project_id, entry.value, data))
    for _ in range(TRIES):
        last = await bus.entry_kv(bucket, entry.key)
        if _same(last, entry, data):
            return last.revision if last else 0
        revision = last.revision if last else 0
        try:
            if entry.deleted:
                return await bus.delete_kv(bucket, entry.key, revision=revision)
            return await bus.put_kv(bucket, entry.key, data, revision=revision)
        except RevisionConflict:
            continue
    raise BusError(f"{entry} is written by somebody else all the time")


def _same(last: Entry | None, entry: ContextEntry, data: bytes) -> bool:
    if last is None or last.deleted or entry.deleted:
        return (last is None or last.deleted) and entry.deleted
    try:
        return _sorted(last.value) == _sorted(data)
    except (orjson.JSONDecodeError, TypeError):
        # No JSON, or more levels of it than can be written.
        return False


def _sorted(text: bytes) -> bytes:
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS)
