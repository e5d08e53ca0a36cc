"""Lower bounds: the same work with nothing of OpenVibe around it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypedDict

import nats
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from benchmarks.figures import median, quantile

#: How long a system has been idle before something is decided, in seconds: ours and the bare one alike.
REST = 0.05


class State(TypedDict):
    count: int


def _plus(state: State) -> State:
    return {"count": state["count"] + 1}


def _gate(state: State) -> State:
    interrupt({"count": state["count"]})
    return state


def linear(saver: BaseCheckpointSaver[Any]) -> Any:
    """Return a graph of four nodes in a row."""
    return _chain(saver, [("first", _plus), ("second", _plus), ("third", _plus), ("fourth", _plus)])


def gated(saver: BaseCheckpointSaver[Any]) -> Any:
    """Return a graph with an interrupt between two nodes."""
    return _chain(saver, [("before", _plus), ("gate", _gate), ("after", _plus)])


def _chain(saver: BaseCheckpointSaver[Any], nodes: list[tuple[str, Any]]) -> Any:
    graph: Any = StateGraph(State)
    for name, act in nodes:
        graph.add_node(name, act)
    names = [START, *[name for name, _ in nodes], END]
    for before, after in pairwise(names):
        graph.add_edge(before, after)
    return graph.compile(checkpointer=saver)


@contextmanager
def official_saver(database_url: str, path: str) -> Iterator[BaseCheckpointSaver[Any]]:
    """Open LangGraph's own saver on the same kind of database that OpenVibe uses."""
    if database_url:
        with PostgresSaver.from_conn_string(database_url) as saver:
            saver.setup()
            yield saver
    else:
        with SqliteSaver.from_conn_string(path) as saver:
            saver.setup()
            yield saver


def runs_per_second(saver: BaseCheckpointSaver[Any], *, seconds: float) -> tuple[float, float]:
    """Play four-node runs in this thread, a checkpoint a step; return runs/s and the median seconds of one."""
    graph, times = linear(saver), []
    _invoke(graph, "warm-up")
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        _invoke(graph, f"bare-{len(times)}-{begin}")
        times.append(time.perf_counter() - start)
    return len(times) / (time.perf_counter() - begin), median(times)


def _invoke(graph: Any, thread_id: str) -> None:
    graph.invoke({"count": 0}, {"configurable": {"thread_id": thread_id}}, durability="sync")


def resume_seconds(saver: BaseCheckpointSaver[Any], *, times: int) -> float:
    """Return the median seconds of a bare resume to the end, each after a rest: people decide on an idle system."""
    graph, taken = gated(saver), []
    for number in range(times):
        config = {"configurable": {"thread_id": f"resume-{number}-{time.time()}"}}
        graph.invoke({"count": 0}, config, durability="sync")
        time.sleep(REST)
        start = time.perf_counter()
        graph.invoke(Command(resume="yes"), config, durability="sync")
        taken.append(time.perf_counter() - start)
    return median(taken)


async def publish_to_subscribe(url: str, *, subscribers: int, messages: int) -> tuple[float, float]:
    """Return p50 and p99 seconds from a raw publish to each of many raw subscriptions of one client."""
    client = await nats.connect(url)
    times: list[float] = []
    done = asyncio.Event()

    async def hear(message: Any) -> None:
        times.append(time.perf_counter() - float(message.data))
        if len(times) % subscribers == 0:
            done.set()

    for _ in range(subscribers):
        await client.subscribe("bench.raw", cb=hear)
    await client.flush()
    for _ in range(messages):
        done.clear()
        await client.publish("bench.raw", str(time.perf_counter()).encode())
        async with asyncio.timeout(10):
            await done.wait()
    await client.close()
    return quantile(times, 0.5), quantile(times, 0.99)
