"""From one publish on NATS to many websockets of one web process, against a bare ASGI bridge under the same server.

A model's words, and events as they are announced once the database holds them. Ours and bare take turns.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import nats
import orjson

from benchmarks.audience import Audience, mark
from benchmarks.figures import median, quantile, tell
from benchmarks.ground import Ground
from openvibe_site import ports
from tests import servers
from tests.acceptance import site as sites
from tests.acceptance.site import ROOT, Site, until

SERVERS = ("daphne", "uvicorn")
#: Sockets, messages of a burst, and messages a second and in all of a quiet stream.
SIZES = ((100, 500, 20.0, 40), (500, 200, 10.0, 30))
STEP = "bench-step"


@dataclass(frozen=True)
class Heard:
    """One turn: messages delivered in a second at full speed, and the seconds that each took in a quiet stream."""

    rate: float
    p50: float
    p99: float


@dataclass
class Stage:
    """Where a turn is played: a server's address, what opens a socket there, and the thread that is spoken in."""

    port: int
    path: str
    headers: dict[str, str]
    greeting: bytes
    run_id: str
    seq: int


def measure(ground: Ground) -> None:
    """Tell rate, p50 and p99 for each server, number of sockets, and kind of message."""
    with servers.nats() as server:
        for name in SERVERS:
            with sites.running(
                ground.home / f"fanout-{name}",
                OPENVIBE_WEB=name,
                OPENVIBE_OPERATORS="benchmarks.operator",
                OPENVIBE_LOG_LEVEL="WARNING",
                NATS_URL=server.url,
                **ground.environment(),
            ) as site:
                ours = _ours(site)
                with _bare(name, server.url, ours) as bare:
                    for size in SIZES:
                        asyncio.run(_compare(ground, server.url, name, ours, bare, size))


def _ours(site: Site) -> Stage:
    run = site.start_run("bench", "linear")
    site.wait_for(run, "completed")
    run_id = run.rpartition("/")[2]
    last = site.events(run)[-1]["seq"]
    headers = {"Cookie": site.session(), "Origin": site.url}
    return Stage(site.port, f"/ws/agents/{run_id}/?after={last}", headers, b'data-state="live"', run_id, last)


@contextmanager
def _bare(server: str, nats_url: str, ours: Stage) -> Iterator[Stage]:
    """Serve the bare bridge of the same subjects."""
    port = ports.free()
    place = {"daphne": ["-b", "127.0.0.1", "-p"], "uvicorn": ["--ws-per-message-deflate", "false", "--port"]}[server]
    subjects = [f"cg.v1.default.t_{ours.run_id}.str.>", f"cg.v1.default.t_{ours.run_id}.evt.sys.timeline.recorded"]
    process = subprocess.Popen(
        [sys.executable, "-m", server, *place, str(port), "benchmarks.bare_asgi:application"],
        cwd=ROOT,
        env={**os.environ, "NATS_URL": nats_url, "BARE_SUBJECTS": ",".join(subjects)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: ports.answers(port), "the bare bridge answers")
        yield Stage(port, "/", {}, b"\r\n\r\n", ours.run_id, ours.seq)
    finally:
        process.kill()
        process.wait()


async def _compare(ground: Ground, url: str, server: str, ours: Stage, bare: Stage, size: Any) -> None:
    client = await nats.connect(url)
    turns = [(await _turn(client, ours, size), await _turn(client, bare, size)) for _ in range(ground.options.rounds)]
    await client.close()
    for kind in ("words", "events"):
        name = f"fanout_{server}_{size[0]}_{kind}"
        _told(f"{name}_rate", "deliveries/s", 1.0, [(one[kind].rate, other[kind].rate) for one, other in turns], ground)
        _told(f"{name}_p50", "ms", 1e3, [(one[kind].p50, other[kind].p50) for one, other in turns], ground)
        _told(f"{name}_p99", "ms", 1e3, [(one[kind].p99, other[kind].p99) for one, other in turns], ground)


def _told(name: str, unit: str, scale: float, pairs: list[tuple[float, float]], ground: Ground) -> None:
    ours, bare = zip(*pairs, strict=True)
    tell(name, median(ours) * scale, unit, where=ground.where, rounds=len(pairs), bound="bare ASGI bridge, same server",
         bound_value=median(bare) * scale, ratio=median([one / other for one, other in pairs]))  # fmt: skip


async def _turn(client: Any, stage: Stage, size: Any) -> dict[str, Heard]:
    """Open the sockets, let a step begin, and speak: words, then events, each at full speed and in a quiet stream."""
    sockets, burst, pace, few = size
    audience = Audience(stage.greeting)
    await audience.gather(sockets, port=stage.port, path=stage.path, headers=stage.headers)
    # The place that words have on a page; the sockets that came last have heard of it by then.
    await client.publish(_recorded(stage), _announced(stage, stage.seq + 1, "step.started", {}))
    await asyncio.sleep(0.5)
    seq = stage.seq + 2
    heard: dict[str, Heard] = {}
    for kind in ("words", "events"):

        def message(number: int, kind: str = kind, first: int = seq - len(audience.sent)) -> tuple[str, bytes]:
            if kind == "words":
                return f"cg.v1.default.t_{stage.run_id}.str.agent.bench.chunk", _chunk(stage, number)
            data = {"content": mark(number), "role": "assistant"}
            return _recorded(stage), _announced(stage, first + number, "agent.message", data)

        rate = await _burst(client, audience, message, burst, sockets)
        taken = await _stream(client, audience, message, few, pace, sockets)
        heard[kind] = Heard(rate, quantile(taken, 0.5), quantile(taken, 0.99))
    assert not audience.faults, f"{audience.faults} messages came twice, late or never"
    audience.leave()
    await asyncio.sleep(1)
    return heard


Message = Callable[[int], tuple[str, bytes]]


async def _burst(client: Any, audience: Audience, message: Message, messages: int, sockets: int) -> float:
    """Publish as fast as can be; return deliveries a second until the last socket has the last message."""
    await _stream(client, audience, message, 3, 20.0, sockets)
    goal = len(audience.taken) + messages * sockets
    begin = time.perf_counter()
    for _ in range(messages):
        await _publish(client, audience, message)
    await client.flush()
    await audience.until(lambda: len(audience.taken) >= goal, "all is heard")
    return messages * sockets / (audience.newest - begin)


async def _stream(
    client: Any, audience: Audience, message: Message, messages: int, pace: float, sockets: int
) -> list[float]:
    """Publish so many messages a second; return the seconds that each delivery took."""
    first = len(audience.taken)
    for _ in range(messages):
        await _publish(client, audience, message)
        await client.flush()
        await asyncio.sleep(1 / pace)
    await audience.until(lambda: len(audience.taken) - first >= messages * sockets, "all is heard")
    return audience.taken[first:]


async def _publish(client: Any, audience: Audience, message: Message) -> None:
    subject, body = message(len(audience.sent))
    audience.sent.append(time.perf_counter())
    await client.publish(subject, body)


def _recorded(stage: Stage) -> str:
    return f"cg.v1.default.t_{stage.run_id}.evt.sys.timeline.recorded"


def _chunk(stage: Stage, number: int) -> bytes:
    body = {
        "agent_turn_id": stage.run_id,
        "step_id": STEP,
        "chunk_type": "content",
        "content": mark(number),
        "index": 0,
    }
    return orjson.dumps(body)


def _announced(stage: Stage, seq: int, kind: str, data: dict[str, Any]) -> bytes:
    event = {
        "seq": seq, "type": kind, "channel": f"t_{stage.run_id}", "run_id": stage.run_id, "node": "bench",
        "step_id": STEP if kind == "step.started" else "", "actor": "bench", "data": data,
        "timestamp": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return orjson.dumps({"version": "1", "id": f"bench:{seq}", "payload": {"events": [event]}})
