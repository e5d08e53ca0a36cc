"""A model's server, a process of its own: speaks OpenAI's streamed chat completions and answers after a while.

`python -m benchmarks.model` prints its port. It costs next to nothing, so that what is measured is who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

from tests.contracts.vendors import OpenAI

#: How long it thinks, in seconds.
THOUGHT = 2.0


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Run one and return its address, until the block ends."""
    command = [sys.executable, "-m", "benchmarks.model"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def _answer() -> bytes:
    body = b"".join(
        f"{len(piece.encode()):x}\r\n".encode() + piece.encode() + b"\r\n"
        for piece in OpenAI().answer("Yes, ", "I do.")
    )
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + body + b"0\r\n\r\n"


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    answer = _answer()
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            await asyncio.sleep(THOUGHT)
            writer.write(answer)
            await writer.drain()
    writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_talk, "127.0.0.1", 0, backlog=2_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve())
