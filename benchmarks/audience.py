"""Many websockets of one process that do nothing but note when each numbered message arrives."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

MARK = re.compile(rb"mark-(\d+)-")
#: Longer than a mark: a part of one may come with the next bytes.
TAIL = 16


def mark(number: int) -> str:
    """Return what a message with this number says."""
    return f"mark-{number}-"


class Reader(asyncio.Protocol):
    """One socket. Numbers must come each once and in order; whatever stands between them is not looked at."""

    def __init__(self, audience: Audience, request: bytes) -> None:
        self.audience = audience
        self.request = request
        self.transport: asyncio.Transport | None = None
        self.last = -1
        self._tail = b""
        self._ready = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        data = self._tail + data
        end = 0
        for found in MARK.finditer(data):
            end = found.end()
            number = int(found[1])
            if number != self.last:
                self.audience.heard(number, expected=self.last + 1, at=now)
                self.last = number
        self._tail = data[max(end, len(data) - TAIL) :]
        if not self._ready and self.audience.greeting in data:
            self._ready = True
            self.audience.ready += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.audience.lost += 1


@dataclass
class Audience:
    """All sockets of a measurement. `greeting` is what each is sent once it is heard of."""

    greeting: bytes
    sent: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    ready: int = 0
    lost: int = 0
    faults: int = 0
    newest: float = 0.0

    def heard(self, number: int, *, expected: int, at: float) -> None:
        """Note that a socket was sent a message."""
        self.faults += number != expected
        self.taken.append(at - self.sent[number])
        self.newest = at

    async def gather(self, sockets: int, *, port: int, path: str, headers: Mapping[str, str]) -> None:
        """Open so many sockets."""
        lines = {
            "Host": f"127.0.0.1:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "bm9ib2R5IGxvb2tzIGl0Lg==",
            "Sec-WebSocket-Version": "13",
            **headers,
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        request = f"GET {path} HTTP/1.1\r\n{text}\r\n".encode()
        loop = asyncio.get_running_loop()
        for _ in range(sockets):
            _, reader = await loop.create_connection(lambda: Reader(self, request), "127.0.0.1", port)
            self.readers.append(reader)
        await self.until(lambda: self.ready == sockets, "every socket is open")

    async def until(self, true: object, what: str, *, seconds: float = 60.0) -> None:
        """Wait for a condition."""
        assert callable(true)
        deadline = time.perf_counter() + seconds
        while not true():
            if time.perf_counter() > deadline or self.lost:
                raise TimeoutError(f"Not so: {what}; {self.ready} are ready, {self.lost} lost")
            await asyncio.sleep(0.005)

    def leave(self) -> None:
        """Close all sockets."""
        for reader in self.readers:
            if reader.transport is not None:
                reader.transport.abort()
