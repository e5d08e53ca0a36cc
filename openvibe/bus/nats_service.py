"""The NATS service API over one connection: named services that other clients discover on `$SRV`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NATSError
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.request import ServiceError as Refusal

from openvibe.bus import service
from openvibe.bus.protocol import Message, ServeHandler, Unsubscribe
from openvibe.errors import ServiceError


async def serve(client: Client, pattern: str, handler: ServeHandler, queue: str, tasks: service.Tasks) -> Unsubscribe:
    """Answer requests on one subject."""

    async def respond(message: Msg) -> None:
        data, headers = await service.answer(handler, received(message))
        await client.publish(message.reply, data, headers=headers or None)

    subscription = await _Concurrent(client, tasks).subscribe(pattern, queue=queue, cb=respond)

    async def unsubscribe() -> None:
        with contextlib.suppress(NATSError):
            await subscription.unsubscribe()

    return unsubscribe


async def serve_service(
    client: Client,
    name: str,
    *,
    version: str,
    description: str,
    endpoints: Mapping[str, ServeHandler],
    tasks: service.Tasks,
) -> Unsubscribe:
    """Answer requests as one named service."""
    found = await add_service(
        cast(Client, _Concurrent(client, tasks)),
        name=name,
        version=version,
        description=description,
        queue_group=service.SERVICE_QUEUE,
    )
    for subject, handler in endpoints.items():
        endpoint = re.sub(r"[^A-Za-z0-9_-]", "-", subject)
        await found.add_endpoint(name=endpoint, subject=subject, handler=_responding(handler), metadata={})

    async def unsubscribe() -> None:
        with contextlib.suppress(NATSError):
            await found.stop()

    return unsubscribe


def received(message: Msg) -> Message:
    """Return a message as the bus hands it out."""
    return Message(message.subject, message.data, message.headers or {}, message.reply)


def _responding(handler: ServeHandler) -> Callable[[Request], Awaitable[None]]:
    async def respond(request: Request) -> None:
        try:
            data = await service.result(handler, received(request._msg))
        except ServiceError as error:
            # Raised and not sent, so that the service's statistics count it.
            raise Refusal(error.code, error.description) from error
        await request.respond(data)

    return respond


class _Concurrent:
    """The client as a service sees it: it would handle one request after the other; here each has a task of its own."""

    def __init__(self, client: Client, tasks: service.Tasks) -> None:
        self._client = client
        self._tasks = tasks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def subscribe(self, subject: str, queue: str = "", *, cb: Callable[[Msg], Awaitable[None]]) -> Subscription:
        async def start(message: Msg) -> None:
            # Whoever names no subject for an answer did not ask.
            if message.reply:
                self._tasks.start(_run(cb, message))

        return await self._client.subscribe(subject, queue=queue, cb=start)


async def _run(act: Callable[[Msg], Awaitable[None]], message: Msg) -> None:
    await act(message)
