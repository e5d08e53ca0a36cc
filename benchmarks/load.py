"""What users do, done often: start runs over REST, approve gates, watch pages."""

from __future__ import annotations

import asyncio
import http.client
import re
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nats
import orjson
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.bounds import REST
from benchmarks.figures import quantile
from tests.acceptance.site import Site, until

#: Where a project's timelines are announced: on the general channel, or on every run's own.
GENERAL, EVERY = (f"cg.v1.default.{channel}.evt.sys.timeline.recorded" for channel in ("public", "*"))


class Endings:
    """Hears on the bus when runs end: no polling, so that looking costs the measured system nothing.

    On the general channel only what everybody should know is told; on a run's own, where its page hears it, every step.
    """

    def __init__(self, url: str, *, subject: str = GENERAL) -> None:
        self._url = url
        self._subject = subject
        self._at: dict[tuple[str, str], float] = {}
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    async def _listen(self) -> None:
        self._client = await nats.connect(self._url)
        await self._client.subscribe(self._subject, cb=self._hear)
        await self._client.flush()

    def close(self) -> None:
        """Hear no more."""
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(10)

    async def _hear(self, message: Any) -> None:
        now = time.perf_counter()
        with self._changed:
            for event in orjson.loads(message.data)["payload"]["events"]:
                self._at.setdefault((event["run_id"], event["type"]), now)
            self._changed.notify_all()

    def wait(self, run_id: str, kind: str, *, seconds: float = 30) -> float:
        """Return when this event of this run was heard."""
        with self._changed:
            if not self._changed.wait_for(lambda: (run_id, kind) in self._at, seconds):
                raise TimeoutError(f"{kind} of {run_id} was not heard within {seconds} s")
            return self._at[run_id, kind]


class Caller:
    """One keep-alive connection to the API. It takes little of the machine that it shares with the measured system."""

    def __init__(self, site: Site) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
        self._headers = {"Authorization": f"Bearer {site.token}", "Content-Type": "application/json"}

    def activate(self, workflow: str) -> str:
        """Start a run of the operator `bench`."""
        answer = self._post("/operators/bench/activate", {"trigger": workflow, "input": {"count": 0}}, expected=201)
        return str(answer["run_id"])

    def approve(self, run_id: str) -> None:
        """Approve a run's one gate."""
        self._post(f"/operators/bench/runs/{run_id}/resume", {"decision": "approve"}, expected=200)

    def _post(self, path: str, body: dict[str, Any], *, expected: int) -> Any:
        self._connection.request("POST", f"/v1{path}", orjson.dumps(body), self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != expected:
            raise RuntimeError(f"{path}: {answer.status} {text.decode()}")
        return orjson.loads(text)


def latencies(site: Site, endings: Endings, *, times: int) -> list[float]:
    """Start runs one after the other; return the seconds from the request to the announced end of each."""
    caller, taken = Caller(site), []
    for _ in range(times):
        begin = time.perf_counter()
        run_id = caller.activate("linear")
        taken.append(endings.wait(run_id, "run.completed") - begin)
    return taken


def runs_per_second(site: Site, endings: Endings, *, runs: int, callers: int, workflow: str = "linear") -> float:
    """Start many runs at once over several connections; return the runs completed in a second."""
    begin = time.perf_counter()
    started = start(site, runs=runs, callers=callers, workflow=workflow)
    return runs / (last_end(endings, started) - begin)


def start(site: Site, *, runs: int, callers: int, workflow: str) -> list[str]:
    """Start many runs over several connections; return their ids when all have been taken in."""
    local = threading.local()

    def begin(_: int) -> str:
        if not hasattr(local, "caller"):
            local.caller = Caller(site)
        return str(local.caller.activate(workflow))

    with ThreadPoolExecutor(callers) as threads:
        return list(threads.map(begin, range(runs)))


def last_end(endings: Endings, started: Iterable[str]) -> float:
    """Return when the last of these runs was heard to have completed."""
    return max(endings.wait(run_id, "run.completed", seconds=120) for run_id in started)


def approvals(site: Site, endings: Endings, *, times: int) -> list[float]:
    """Return the seconds from each approval to the announced end of its run, each after a rest."""
    caller, taken = Caller(site), []
    for _ in range(times):
        run_id = caller.activate("gated")
        endings.wait(run_id, "gate.opened")
        time.sleep(REST)
        begin = time.perf_counter()
        caller.approve(run_id)
        taken.append(endings.wait(run_id, "run.completed") - begin)
    return taken


async def to_websockets(site: Site, *, sockets: int, messages: int, recorded: bool) -> tuple[float, float]:
    """Return p50 and p99 seconds from a publish to each of many websockets that watch one run.

    `recorded` publishes an agent's message, which is stored before it is shown; else a model's words, which pass by.
    """
    run_id = await asyncio.to_thread(lambda: Caller(site).activate("held"))
    step_id = await asyncio.to_thread(_first_step, site, run_id)
    cookie = await asyncio.to_thread(site.session)
    heard: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
    opened = [await _open(site, run_id, cookie) for _ in range(sockets)]
    readers = [asyncio.create_task(_read(socket, heard)) for socket in opened]
    # What the pages missed and their state come first; measuring begins when it is quiet.
    await asyncio.sleep(2)
    client = await nats.connect(site.nats_url)
    taken: list[float] = []
    for number in range(messages):
        mark = f"mark-{number}-"
        subject, body = _message(run_id, step_id, mark, recorded=recorded)
        begin = time.perf_counter()
        await client.publish(subject, orjson.dumps(body))
        got = 0
        while got < sockets:
            async with asyncio.timeout(20):
                seen, at = await heard.get()
            if seen == mark:
                taken.append(at - begin)
                got += 1
    for reader in readers:
        reader.cancel()
    await client.close()
    await asyncio.gather(*[socket.close() for socket in opened])
    return quantile(taken, 0.5), quantile(taken, 0.99)


def _first_step(site: Site, run_id: str) -> str:
    def look() -> str:
        events = site.events(f"/operators/bench/runs/{run_id}")
        return next((event["step_id"] for event in events if event["type"] == "step.started"), "")

    return until(look, "the step has begun")


def _message(run_id: str, step_id: str, mark: str, *, recorded: bool) -> tuple[str, dict[str, Any]]:
    if recorded:
        return f"cg.v1.default.t_{run_id}.evt.agent.bench.message", {"id": mark, "content": mark}
    body = {"agent_turn_id": run_id, "step_id": step_id, "chunk_type": "content", "content": mark, "index": 0}
    return f"cg.v1.default.t_{run_id}.str.agent.bench.chunk", body


async def _open(site: Site, run_id: str, cookie: str) -> ClientConnection:
    address = f"ws://127.0.0.1:{site.port}/ws/agents/{run_id}/?after=0"
    headers = {"Cookie": cookie, "Origin": site.url}
    return await connect(address, additional_headers=headers, proxy=None, compression=None)


async def _read(socket: ClientConnection, heard: asyncio.Queue[tuple[str, float]]) -> None:
    async for frame in socket:
        now = time.perf_counter()
        for mark in dict.fromkeys(re.findall(r"mark-\d+-", str(frame))):
            heard.put_nowait((mark, now))
