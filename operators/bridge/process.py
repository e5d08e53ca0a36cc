"""The bridge process: reads the streams for as long as it lives, and carries the clock."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from functools import partial

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection

from openvibe import cancelling
from openvibe.bus import Bus, Message, Pull
from openvibe.errors import BusError
from openvibe.protocol.streams import AGENTS, Consumer
from operators import clock
from operators.bridge import (
    artifacts,
    companions,
    furnishing,
    health,
    ingest,
    mirror,
    pauses,
    questions,
    readers,
    registry,
    requests,
    tries,
)
from operators.link import link
from operators.models import Process
from operators.services import presence, session_logging

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5


async def serve(ended: asyncio.Event) -> None:
    """Work until `ended` is set."""
    link.adopt(asyncio.get_running_loop())
    clock_ended = threading.Event()
    ticking = threading.Thread(target=_tick, args=(clock_ended,), name="clock", daemon=True)
    ticking.start()
    logging_sessions = threading.Thread(
        target=session_logging.write_until, args=(clock_ended,), name="session-logs", daemon=True
    )
    logging_sessions.start()
    absent = presence.announce(Process.Kind.BRIDGE)
    consumers = furnishing.consumers()
    reading = {consumer.stream: asyncio.Event() for consumer in consumers}
    works: dict[str, companions.Work] = {
        f"Reading {consumer.stream}": partial(_read_for_ever, consumer, reading[consumer.stream])
        for consumer in consumers
    }
    works |= {
        "Furnishing NATS": furnishing.furnish,
        "Serving requests": requests.serve_for_ever,
        "Mirroring the shared context": mirror.mirror_for_ever,
        "Keeping the registry": registry.beat_for_ever,
        "Reading artifacts": partial(artifacts.read_for_ever, reading[AGENTS]),
        "Hearing agents' health": health.hear_for_ever,
        "Making readers of agents": readers.serve_for_ever,
    }
    tasks = [asyncio.create_task(companions.lasting(name, work)) for name, work in works.items()]
    await ended.wait()
    await cancelling.cancel(tasks, pause=0.5)
    absent.set()
    clock_ended.set()
    await asyncio.to_thread(ticking.join, 5)
    await asyncio.to_thread(logging_sessions.join, 5)


def _tick(ended: threading.Event) -> None:
    try:
        clock.run_until(ended)
    finally:
        # A pool would not get back what a thread takes along when it ends.
        connection.close()


async def _read_for_ever(consumer: Consumer, caught_up: asyncio.Event) -> None:
    known, asked = pauses.Pauses(consumer), questions.Questions(consumer.stream)
    while True:
        try:
            bus = await link.bus()
            await bus.ensure(furnishing.streams())
            pull = await bus.pull(consumer.stream, durable=consumer.durable, patterns=consumer.patterns)
            try:
                await _read(bus, pull, caught_up, known, asked)
            finally:
                caught_up.clear()
                await pull.close()
        except BusError as error:
            logger.info("Stream %s: %s; trying again", consumer.stream, error)
        except Exception:
            # A batch that cannot be written is delivered again; the reader must outlive it.
            logger.exception("Stream %s could not be read", consumer.stream)
        await asyncio.sleep(RETRY_SECONDS)


async def _read(
    bus: Bus, pull: Pull, caught_up: asyncio.Event, known: pauses.Pauses, asked: questions.Questions
) -> None:
    """Write batch after batch; while one is written the next one is fetched."""
    ahead = asyncio.create_task(_fetch(pull))
    try:
        while bus.connected:
            messages = await ahead
            ahead = asyncio.create_task(_fetch(pull))
            await _written(messages)
            paused = await known.look(pull, messages)
            await asked.look(pull)
            if paused or len(messages) >= settings.OPENVIBE.pull_batch:
                caught_up.clear()
            else:
                caught_up.set()
    finally:
        await cancelling.cancel([ahead])
        if not ahead.cancelled() and not ahead.exception():
            await _refuse(ahead.result())


async def _fetch(pull: Pull) -> Sequence[Message]:
    return await pull.fetch(settings.OPENVIBE.pull_batch, timeout=settings.OPENVIBE.pull_seconds)


async def _written(messages: Sequence[Message]) -> None:
    """Write messages and acknowledge them; those at which we failed come again later, and hold up nobody."""
    if not messages:
        return
    try:
        again = await sync_to_async(ingest.take, thread_sensitive=False)(messages)
    except Exception:
        # Given back at once they come again before newer ones, and in order.
        await _refuse(messages)
        raise
    failed = set(map(id, again))
    for message in messages:
        if message.refuse and id(message) in failed:
            await message.refuse(tries.pause(message))
        elif message.acknowledge:
            await message.acknowledge()


async def _refuse(messages: Sequence[Message]) -> None:
    for message in messages:
        if message.refuse:
            await message.refuse()
