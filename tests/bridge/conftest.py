"""What the bridge's tests share: a run to speak about, a link that reaches nobody, and a bridge on a real server."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from django.utils import timezone

from openvibe.bus.memory import MemoryBus
from openvibe.bus.nats import NatsBus
from openvibe.protocol.streams import STREAMS
from operators.bridge import process
from operators.link import link
from operators.models import DeadLetter, Event, Operator, Project, Run, Workflow
from operators.services import announcements
from tests import servers
from tests.bridge import village
from tests.servers import Server

SOON = 15.0


@pytest.fixture
def run(project: Project) -> Run:
    """A run that has ended, so that no clock touches it; its thread has three events, says its counter."""
    return make_run(project, "run_01")


def make_run(project: Project, run_id: str) -> Run:
    operator, _ = Operator.objects.get_or_create(project=project, slug="scout", defaults={"name": "Scout"})
    workflow, _ = Workflow.objects.get_or_create(operator=operator, slug="search", defaults={"name": "Search"})
    now = timezone.now()
    return Run.objects.create(
        id=run_id,
        project=project,
        operator=operator,
        workflow=workflow,
        status=Run.Status.COMPLETED,
        last_seq=3,
        announced_seq=3,
        created_at=now,
        updated_at=now,
    )


@pytest.fixture
def critic(project: Project) -> Iterator[Operator]:
    for found in village.served(project, village.Critic):
        yield found["critic"]


@pytest.fixture
def crier(project: Project) -> Iterator[Operator]:
    for found in village.served(project, village.Crier):
        yield found["crier"]


@pytest.fixture
def chief(project: Project) -> Iterator[Operator]:
    for found in village.served(project, village.Chief):
        yield found["chief"]


@pytest.fixture
def memory() -> Iterator[MemoryBus]:
    """The bus that announcements go to."""
    bus = MemoryBus()
    asyncio.run(_made_ready(bus))
    link.use(bus)
    yield bus
    announcements.settle(SOON)
    link.use(None)


async def _made_ready(bus: MemoryBus) -> None:
    await bus.connect()
    await bus.ensure(STREAMS)


@dataclass
class Bridge:
    """The real bridge coroutine on the link's own loop, and a connection of an agent's beside it."""

    server: Server
    ended: asyncio.Event | None = None
    future: concurrent.futures.Future[None] | None = None

    def start(self) -> None:
        ready = threading.Event()

        async def serve() -> None:
            self.ended = asyncio.Event()
            ready.set()
            await process.serve(self.ended)

        self.future = link.submit(serve())
        assert ready.wait(SOON)

    def stop(self) -> None:
        async def end() -> None:
            assert self.ended is not None
            self.ended.set()

        assert self.future is not None
        link.submit(end()).result(SOON)
        self.future.result(SOON)
        # They say goodbye in the database, which must not be gone by then, and may open the link anew.
        for thread in threading.enumerate():
            if thread.name in ("presence", "clock", "session-logs"):
                thread.join(SOON)

    def send(self, *messages: tuple[str, object] | tuple[str, object, Mapping[str, str]]) -> None:
        """Store messages `(subject, body[, headers])` as an agent does; a body that is no bytes goes as JSON."""
        asyncio.run(self._send(messages))

    async def _send(self, messages: tuple[Any, ...]) -> None:
        bus = NatsBus(self.server.url, name="agent")
        await bus.connect()
        await bus.ensure(STREAMS)
        for subject, body, *headers in messages:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            # What may start runs says how deep it stands.
            stamps = {"CG-Recursion-Depth": "0"} if subject.startswith("operators.") else None
            await bus.store(subject, data, headers=headers[0] if headers else stamps)
        await bus.close()


@pytest.fixture
def bridge(transactional_db: None, settings: Any) -> Iterator[Bridge]:
    with servers.nats() as server:
        settings.NATS_URL = server.url
        bridge = Bridge(server)
        bridge.start()
        yield bridge
        bridge.stop()
        announcements.settle(SOON)
        link.submit(link.close()).result(SOON)


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, "this did not become true in time"
        time.sleep(0.01)


def said(channel: str = "public", project: str = "default") -> list[str]:
    """What agents said on a channel, in the order of its numbers."""
    events = Event.objects.filter(project_id=project, channel=channel, kind__startswith="agent.").order_by("seq")
    return [event.data["content"] for event in events]


def letters() -> list[tuple[str, bytes, str]]:
    """Subject, body and reason of the dead letters, oldest first."""
    return [(item.subject, bytes(item.body), item.reason) for item in DeadLetter.objects.order_by("id")]
