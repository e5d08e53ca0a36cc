"""The bridge process: reads the streams for as long as it lives, and carries the clock."""

from __future__ import annotations

import asyncio
import logging
import threading

from asgiref.sync import sync_to_async
from django.db import connection

from openvibe.bus import Bus, Pull
from openvibe.errors import BusError
from openvibe.protocol.streams import STREAMS
from operators import clock
from operators.bridge import ingest
from operators.bridge.dialects import DIALECTS
from operators.link import link
from operators.models import Process
from operators.services import presence

logger = logging.getLogger(__name__)

#: One durable per system; its replicas share it.
DURABLE = "openvibe-bridge"
BATCH = 250
FETCH_SECONDS = 5.0
RETRY_SECONDS = 0.5


async def serve(ended: asyncio.Event) -> None:
    """Work until `ended` is set."""
    link.adopt(asyncio.get_running_loop())
    clock_ended = threading.Event()
    ticking = threading.Thread(target=_tick, args=(clock_ended,), name="clock", daemon=True)
    ticking.start()
    absent = presence.announce(Process.Kind.BRIDGE)
    readers = [asyncio.create_task(_read_for_ever(stream)) for stream in _patterns()]
    await ended.wait()
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    absent.set()
    clock_ended.set()
    await asyncio.to_thread(ticking.join, 5)


def _tick(ended: threading.Event) -> None:
    try:
        clock.run_until(ended)
    finally:
        # A pool would not get back what a thread takes along when it ends.
        connection.close()


def _patterns() -> dict[str, list[str]]:
    patterns: dict[str, list[str]] = {}
    for stream, pattern, _ in DIALECTS:
        patterns.setdefault(stream, []).append(pattern)
    return patterns


async def _read_for_ever(stream: str) -> None:
    while True:
        try:
            bus = await link.bus()
            await bus.ensure(STREAMS)
            pull = await bus.pull(stream, durable=DURABLE, patterns=_patterns()[stream])
            try:
                await _read(bus, pull)
            finally:
                await pull.close()
        except BusError as error:
            logger.info("Stream %s: %s; trying again", stream, error)
        except Exception:
            # A batch that cannot be written is delivered again; the reader must outlive it.
            logger.exception("Stream %s could not be read", stream)
        await asyncio.sleep(RETRY_SECONDS)


async def _read(bus: Bus, pull: Pull) -> None:
    while bus.connected:
        messages = await pull.fetch(BATCH, timeout=FETCH_SECONDS)
        if messages:
            try:
                await sync_to_async(ingest.take, thread_sensitive=False)(messages)
            except Exception:
                # Given back at once they come again before newer ones, and in order.
                await asyncio.gather(*[message.refuse() for message in messages if message.refuse])
                raise
            await asyncio.gather(*[message.acknowledge() for message in messages if message.acknowledge])
