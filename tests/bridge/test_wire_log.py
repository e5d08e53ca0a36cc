"""The log of the wire: a line of JSON for each message, where somebody wants it, and nothing at all elsewhere."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from openvibe.bus import Message
from openvibe.bus.logged import logged, logger
from openvibe.bus.memory import MemoryBus
from openvibe.protocol.streams import Stream
from tests.bridge.conftest import Bridge, eventually, said

PUBLIC = "cg.v1.default.public.evt.agent.scout.message"


class Lines(logging.Handler):
    """What was logged, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(json.loads(record.getMessage()))

    def of(self, topic: str) -> list[tuple[str, str, str, str]]:
        return [
            (line["component"], line["action"], line["message_id"], line["message_type"])
            for line in self.told
            if line["topic"] == topic
        ]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, before = Lines(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_a_bus_that_nobody_reads_along_stays_what_it_is() -> None:
    bus = MemoryBus()
    assert logged(bus, "x") is bus


async def test_each_message_that_is_sent_or_received_is_a_line(lines: Lines) -> None:
    bus = logged(MemoryBus(), "coordinator")
    await bus.connect()
    await bus.ensure([Stream("sessions", ("sessions.>",), timedelta(hours=1))])
    heard: list[Message] = []

    async def hear(message: Message) -> None:
        heard.append(message)

    async def answer(message: Message) -> bytes:
        return b'{"id": "a1", "type": "answer"}'

    await bus.subscribe("sessions.>", hear)
    await bus.serve("ask", answer)
    await bus.serve_service("desk", version="1.0.0", endpoints={"desk.ask": answer})
    await bus.store("sessions.s1.work", b'{"id": "msg_abc123", "type": "work.coding"}')
    await bus.publish("sessions.s1.events", b"no JSON", headers={"Nats-Msg-Id": "m2", "CG-Msg-Type": "note"})
    pull = await bus.pull("sessions", durable="d", patterns=["sessions.*.work"])
    [pulled] = await pull.fetch(5, timeout=1)
    assert pulled.acknowledge
    await pulled.acknowledge()
    await bus.request("ask", b'{"id": "q1"}', timeout=1)
    await bus.request("desk.ask", b"[]", timeout=1)
    while len(heard) < 2:
        await asyncio.sleep(0.01)
    await bus.close()

    sent, received = ("coordinator", "message_sent"), ("coordinator", "message_received")
    coding = ("msg_abc123", "work.coding")
    assert sorted(lines.of("sessions.s1.work")) == sorted(
        [(*sent, *coding), (*received, *coding), (*received, *coding)]
    )
    assert sorted(lines.of("sessions.s1.events")) == sorted([(*sent, "m2", "note"), (*received, "m2", "note")])
    assert sorted(lines.of("ask")) == sorted([(*sent, "q1", ""), (*received, "q1", "")])
    assert len(lines.of("desk.ask")) == 2
    assert [line["action"] for line in lines.told if line["message_id"] == "a1"].count("message_sent") == 2
    for line in lines.told:
        assert datetime.fromisoformat(line["timestamp"]).tzinfo
        assert list(line) == ["timestamp", "level", "component", "action", "topic", "message_id", "message_type"]


@pytest.mark.django_db(transaction=True)
def test_a_bridge_logs_what_it_hears_and_what_it_says_of_it(lines: Lines, project: object, bridge: Bridge) -> None:
    bridge.send((PUBLIC, {"id": "m1", "type": "agent.message", "content": "hello"}))
    eventually(lambda: said() == ["hello"])
    assert lines.of(PUBLIC) == [("openvibe", "message_received", "m1", "agent.message")]
    recorded = "cg.v1.default.public.evt.sys.timeline.recorded"
    eventually(lambda: ("openvibe", "message_sent", "public:1-1", "timeline.recorded") in lines.of(recorded))


@pytest.mark.parametrize(("wanted", "level"), [("true", logging.DEBUG), ("false", logging.INFO)])
def test_a_setting_switches_it_on_and_the_level_of_the_other_logs_does_not(wanted: str, level: int) -> None:
    ask = "import django; django.setup(); from openvibe.bus.logged import logger; print(logger.getEffectiveLevel())"
    settings = {"DJANGO_SETTINGS_MODULE": "openvibe_site.settings"}
    given = {"OPENVIBE_LOG_WIRE": wanted, "OPENVIBE_LOG_LEVEL": "DEBUG", **settings}
    command = [sys.executable, "-c", ask]
    told = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=False)
    assert told.stdout.strip() == str(level), told.stderr
