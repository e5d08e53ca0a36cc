"""Requests and replies over NATS: the bus's, served by NATS's service API, against nats-py's own.

Each answers with what it is sent, from a process of its own; so many at once ask over one connection. They take turns.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import nats

from benchmarks.figures import median, quantile, tell
from benchmarks.ground import Ground
from openvibe.bus import Message
from openvibe.bus.nats import NatsBus
from tests import servers
from tests.acceptance.site import ROOT

OURS, BARE = "operators.bench.request.ours", "bench.request.bare"
BODY = b'{"payload": {"loaves": 3}}'
TOGETHER, REQUESTS = 32, 4000

Ask = Callable[[], Awaitable[object]]


def measure(ground: Ground) -> None:
    """Tell requests a second, and how long one alone takes."""
    with servers.nats() as server, _answering(server.url):
        turns = asyncio.run(_turns(server.url, ground.options.rounds))
    for name, unit, scale, place in (("rate", "requests/s", 1.0, 0), ("p50", "ms", 1e3, 1)):
        ours, bare = zip(*[(one[place], other[place]) for one, other in turns], strict=True)
        tell(f"request_reply_{name}", median(ours) * scale, unit, rounds=len(turns), bound="raw nats-py",
             bound_value=median(bare) * scale,
             ratio=median([one / other for one, other in zip(ours, bare, strict=True)]))  # fmt: skip


@contextmanager
def _answering(url: str) -> Iterator[None]:
    processes = [
        subprocess.Popen([sys.executable, "-m", "benchmarks.requests", which, url], cwd=ROOT, stdout=subprocess.PIPE)
        for which in ("ours", "bare")
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


async def _turns(url: str, rounds: int) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    bus, client = NatsBus(url), await nats.connect(url)
    await bus.connect()

    async def ours() -> object:
        return await bus.request(OURS, BODY, timeout=30)

    async def bare() -> object:
        return await client.request(BARE, BODY, timeout=30)

    for ask in (ours, bare):
        await _rate(ask, 200)
    turns = [
        ((await _rate(ours, REQUESTS), await _alone(ours)), (await _rate(bare, REQUESTS), await _alone(bare)))
        for _ in range(rounds)
    ]
    await bus.close()
    await client.close()
    return turns


async def _rate(ask: Ask, requests: int) -> float:
    async def one_after_another() -> None:
        for _ in range(requests // TOGETHER):
            await ask()

    begin = time.perf_counter()
    await asyncio.gather(*[one_after_another() for _ in range(TOGETHER)])
    return requests // TOGETHER * TOGETHER / (time.perf_counter() - begin)


async def _alone(ask: Ask) -> float:
    taken = []
    for _ in range(300):
        begin = time.perf_counter()
        await ask()
        taken.append(time.perf_counter() - begin)
    return quantile(taken, 0.5)


async def _answer(which: str, url: str) -> None:
    if which == "ours":
        bus = NatsBus(url)
        await bus.connect()
        await bus.serve_service("bench", version="1.0.0", endpoints={OURS: _echo})
    else:
        client = await nats.connect(url)

        async def respond(message: nats.aio.msg.Msg) -> None:
            await message.respond(message.data)

        await client.subscribe(BARE, cb=respond)
        await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def _echo(message: Message) -> bytes:
    return message.data


if __name__ == "__main__":
    asyncio.run(_answer(*sys.argv[1:]))
