"""Hears `system.health`: agents say that they live. The words pass by; what is kept is each agent's last one."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict

from openvibe.bus import Bus, Message
from openvibe.errors import BusError
from openvibe.protocol import envelope, headers, sessions, tenancy
from openvibe.protocol.envelope import Malformed
from openvibe.protocol.session_payloads import Health
from operators.bridge import letters
from operators.link import link
from operators.models import Project
from operators.services import agents
from operators.threads import aside

logger = logging.getLogger(__name__)

#: Seconds for which words are gathered before they are written down together.
PAUSE = 1.0
#: More than so many of one pause are from a storm, and the next word of a living agent comes soon.
MOST = 5000


async def hear_for_ever() -> None:
    """Hear, and begin anew whenever that broke off."""
    while True:
        try:
            await _hear(await link.bus())
        except BusError as error:
            logger.info("Agents' health: %s; trying again", error)
        except Exception:
            # The next word of each agent comes by itself.
            logger.exception("Agents' health could not be written down")
        await asyncio.sleep(PAUSE)


async def _hear(bus: Bus) -> None:
    waiting: list[Message] = []

    async def gather(message: Message) -> None:
        if message.headers.get("CG-Sender") != headers.SENDER and len(waiting) < MOST:
            waiting.append(message)

    deaf = [await bus.subscribe(pattern, gather) for pattern in tenancy.everybodys(sessions.HEALTH)]
    try:
        while await link.bus() is bus:
            if waiting:
                taken = waiting[:]
                waiting.clear()
                await aside(take, taken)
            await asyncio.sleep(PAUSE)
    finally:
        for end in deaf:
            await end()


def take(messages: list[Message]) -> None:
    """Keep what agents say of their health, each in its project, and bury what cannot be read."""
    said: dict[str, list[Health]] = defaultdict(list)
    projects = set(Project.objects.values_list("id", flat=True))
    for message in messages:
        project = tenancy.owner(message.subject)
        try:
            if project not in projects:
                raise Malformed(f"There is no project {project!r}")
            said[project].append(_read(message))
        except Malformed as error:
            letters.bury(message, str(error), malformed=True)
    for project, words in said.items():
        agents.beaten(project, words)


def _read(message: Message) -> Health:
    body = envelope.received(message.data)
    if "\0" in message.subject or b"\\u0000" in message.data:
        raise Malformed("The body holds a NUL character")
    told = sessions.read(body)
    if told.type != sessions.HEALTH:
        raise Malformed(f"type: {told.type!r} is not {sessions.HEALTH!r}, which this subject takes")
    return Health.model_validate(told.payload)
