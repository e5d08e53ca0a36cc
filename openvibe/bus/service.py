"""Answering requests, alike on every bus: what a handler returns or raises becomes an answer."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine, Sequence
from typing import Any

from openvibe import cancelling
from openvibe.bus.protocol import ERROR_CODE_HEADER, ERROR_HEADER, MOST_BYTES, Message, ServeHandler, Unsubscribe
from openvibe.errors import ServiceError, SetupError

logger = logging.getLogger(__name__)

#: The queue that replicas of a service share: what the NATS service API calls it.
SERVICE_QUEUE = "q"
#: How long a handler may take, in seconds, to end when it is given up, before it is told once more.
CLEANUP = 5.0
#: The longest error text that an answer carries, in characters.
MOST_TEXT = 1000

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SEMANTIC_VERSION = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?"
)


def check(name: str, version: str) -> None:
    """Refuse a service's name or version that the NATS service API would refuse, on every bus alike."""
    if not _NAME.fullmatch(name):
        raise SetupError(f"A service cannot be called {name!r}; use letters, digits, '-' and '_'")
    if not _SEMANTIC_VERSION.fullmatch(version):
        raise SetupError(f"Service {name!r} has version {version!r}; use a semantic version such as '1.0.0'")


async def answer(handler: ServeHandler, message: Message) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers that answer a request."""
    try:
        return await result(handler, message), {}
    except ServiceError as error:
        return b"", {ERROR_HEADER: error.description, ERROR_CODE_HEADER: error.code}


async def result(handler: ServeHandler, message: Message) -> bytes:
    """Return what the handler returns; raise `ServiceError`, fit for headers, whatever else happens."""
    try:
        data = await handler(message)
    except ServiceError as error:
        raise ServiceError(_line(error.code), _line(error.description)) from error
    except Exception as error:
        logger.exception("The request on %s failed", message.subject)
        raise ServiceError("500", _line(str(error) or type(error).__name__)) from error
    if len(data) > MOST_BYTES:
        raise ServiceError("500", f"The answer of {len(data)} bytes is too large")
    return data


def together(endings: Sequence[Unsubscribe]) -> Unsubscribe:
    """Return one ending for several."""

    async def unsubscribe() -> None:
        for end in endings:
            await end()

    return unsubscribe


class Tasks:
    """Requests that are being answered, each in a task of its own. The event loop holds tasks weakly."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it; what it raises is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def cancel(self) -> None:
        """Give up whatever still runs, except the caller's own task."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        await cancelling.cancel(tasks, pause=CLEANUP)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("A request was not answered: %s", error)


def _line(text: str) -> str:
    """One line, because a header ends where its line ends."""
    return " ".join(text.split())[:MOST_TEXT]
