"""What any ASGI server can do with one NATS subscription and no Django: one frame a message to every socket.

`BARE_SUBJECT` on `NATS_URL`, served at every path: `daphne benchmarks.bare_asgi:application`.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import nats

sockets: set[Any] = set()
listening: asyncio.Task[Any] | None = None


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    global listening
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if listening is None:
        listening = asyncio.create_task(_listen())
    await listening
    await receive()
    await send({"type": "websocket.accept"})
    sockets.add(send)
    while (await receive())["type"] != "websocket.disconnect":
        pass
    sockets.discard(send)


async def _listen() -> None:
    client = await nats.connect(os.environ["NATS_URL"])
    for subject in os.environ["BARE_SUBJECTS"].split(","):
        await client.subscribe(subject, cb=_hear)
    await client.flush()


async def _hear(message: Any) -> None:
    text = message.data.decode()
    for send in list(sockets):
        await send({"type": "websocket.send", "text": text})
